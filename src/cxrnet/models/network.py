"""The network: grey X-rays in, logits out. Plain PyTorch, usable and exportable without Lightning.

    images (N, 1, H, W) -> normalise -> backbone -> pool -> features (N, F) -> head -> logits (N, K)

The normalisation is part of the network, so nothing that predicts can get it wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.registry import backbone_spec, output_shapes
from cxrnet.models.heads import hidden_kernels, make_head, make_pool
from cxrnet.models.settings import NetworkConfig


class Normalise(nn.Module):
    """Makes three normalised channels of one grey channel; mean and std per channel, on the scale 0..1."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        spread = torch.tensor(std)
        self.register_buffer("scale", 1 / (255 * spread), persistent=False)
        self.register_buffer("shift", -torch.tensor(mean) / spread, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (N, 1, H, W), uint8 or float, in 0..255 to (N, 3, H, W) float32, channels last."""
        pixels = images.to(self.scale.dtype).permute(0, 2, 3, 1)
        return torch.addcmul(self.shift, pixels, self.scale).permute(0, 3, 1, 2)


class Network(nn.Module):
    """A backbone with a head.

    Args:
        config: what to build; the weights are random until loaded. Its own ``config`` has a mean and std.

    Raises:
        CxrnetError: a setting can't be built.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        spec = backbone_spec(config.backbone)
        mean, std = config.mean or spec.mean, config.std or spec.std
        _check(config, mean, std)
        self.config = config = replace(config, mean=mean, std=std)
        self.normalise = Normalise(mean, std)
        self.backbone = spec.build(config.size)
        self.pool = make_pool(config.pool, config.pool_window)
        self.n_features = self._count_features()
        self.head = make_head(
            self.n_features, len(config.classes), config.hidden, config.activation, config.batch_norm, config.dropout,
            config.output,
        )  # fmt: skip
        # Convolutions are 1.5 to 2.5 times faster in this layout, on CPU and GPU (docs of torch: channels last).
        self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W) in 0..255 to features (N, F)."""
        pooled: Tensor = self.pool(self.backbone(self.normalise(images)))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W) in 0..255 to logits (N, K)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def penalty(self) -> Tensor:
        """Compute what training adds to the loss, 0-dim: ``l2`` times the sum of squares of the hidden layers' weights.

        Keras's ``kernel_regularizer``: without biases and the last layer.
        """
        squares = [kernel.square().sum() for kernel in hidden_kernels(self.head)] if self.config.l2 else []
        return self.config.l2 * torch.stack(squares).sum() if squares else self.normalise.shift.new_zeros(())

    def train(self, mode: bool = True) -> Self:
        """Switch to training, but keep frozen parts of the backbone in evaluation mode.

        Otherwise the running statistics of a frozen batch norm would drift with every batch.
        """
        super().train(mode)
        if mode:
            for module in self.backbone.modules():
                parameters = list(module.parameters())
                if parameters and not any(p.requires_grad for p in parameters):
                    module.eval()
        return self

    def _count_features(self) -> int:
        height, width = self.config.size
        name, own_pool = self.config.backbone, self.config.pool == "own"
        try:
            shape = output_shapes(self.backbone, self.config.size)[""]
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            trouble = f"are too few for {name}; take at least 32 x 32"
            if own_pool:
                trouble = f"don't suit {name} ({reason}); take the size that it was made for"
            raise CxrnetError(f"data.size: {height} x {width} pixels {trouble}") from error
        if own_pool and len(shape) != 2:
            raise CxrnetError(f"model.backbone: {name} doesn't pool to a vector of features; take another")
        try:
            return int(self.pool(torch.empty(shape, device="meta")).shape[1])
        except RuntimeError as error:
            raise CxrnetError(
                f"model.pool_window: {self.config.pool_window} is more than the {shape[2]} x {shape[3]} map that "
                f"{name} makes of {height} x {width} pixels; take a smaller window or larger images"
            ) from error


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters: all, trainable ones, and the running means and variances of batch norms.

    Keras counts the latter among its parameters, as not trainable.
    """

    total: int
    trainable: int
    statistics: int


def count_parameters(module: nn.Module) -> ParameterCounts:
    """Count the parameters of a network or of a part of one."""
    return ParameterCounts(
        total=sum(p.numel() for p in module.parameters()),
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        statistics=sum(
            buffer.numel() for name, buffer in module.named_buffers() if name.endswith(("running_mean", "running_var"))
        ),
    )


@torch.no_grad()
def lone_batch_norms(network: Network) -> list[str]:
    """List batch norms that get one number a channel from one image: they can't train on batches of one."""
    found: list[str] = []

    def note(name: str, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0][0, 0].numel() == 1:
            found.append(name)

    hooks = [
        part.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs))
        for name, part in network.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    mode = network.training
    network.eval()(torch.zeros(1, 1, *network.config.size))
    network.train(mode)
    for hook in hooks:
        hook.remove()
    return found


def _check(config: NetworkConfig, mean: Sequence[float], std: Sequence[float]) -> None:
    if not _is_triple(mean) or not _is_triple(std) or min(std) <= 0:
        raise CxrnetError(f"model.mean, model.std: {mean}, {std}; give three numbers each, std above 0")
    if not isinstance(config.l2, int | float) or not 0 <= config.l2 < math.inf:
        raise CxrnetError(f"model.l2: {config.l2}; give a number from 0 on")
    own_pool = backbone_spec(config.backbone).own_pool
    if own_pool and config.pool != "own":
        raise CxrnetError(f"model.pool: {config.backbone} pools by a rule of its own; give model.pool=own")
    if config.pool == "own" and not own_pool:
        raise CxrnetError(
            f"model.pool: 'own' is for timm backbones, {config.backbone} has none; give average, max or flatten"
        )


def _is_triple(values: object) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == 3
        and all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in values)
    )
