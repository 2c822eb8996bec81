"""The network: grey X-rays in, logits out. Plain PyTorch, usable and exportable without Lightning.

    images (N, 1, H, W) -> normalise -> backbone -> pool -> features (N, F) -> head -> logits (N, K)

The normalisation is part of the network, so nothing that predicts can get it wrong. A head is a row of dense layers,
each with [batch norm] -> dropout -> linear -> (activation, but for the last).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.layers import output_shapes
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.settings import NetworkConfig

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "elu": nn.ELU, "tanh": nn.Tanh, "silu": nn.SiLU
}  # fmt: skip


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


class ZeroFirst(nn.Module):
    """Makes logits (N, 2), [0, z], of one logit z (N, 1).

    The softmax of those is [1 - sigmoid(z), sigmoid(z)] and their cross-entropy is the binary one, so whatever works
    on the logits of K classes works on a single sigmoid.
    """

    def forward(self, logit: Tensor) -> Tensor:
        """Put a 0 before each logit."""
        return F.pad(logit, (1, 0))


class Network(nn.Module):
    """A backbone with a head.

    Args:
        config: what to build; the weights are random until loaded. Its own ``config`` has a mean and std.
        held: shapes of a state that it is for, by name: dense layers of any other size are refused, and not allocated.

    Raises:
        CxrnetError: there is no such backbone, or it doesn't go with the pooling, the size of the images or ``held``.
    """

    def __init__(self, config: NetworkConfig, held: Mapping[str, Sequence[int]] | None = None) -> None:
        super().__init__()
        spec = backbone_spec(config.backbone)
        if spec.own_pool and config.pool != "own":
            raise CxrnetError(f"model.pool: {config.backbone} pools by a rule of its own; give model.pool=own")
        if config.pool == "own" and not spec.own_pool:
            raise CxrnetError(
                f"model.pool: 'own' is for timm backbones, {config.backbone} has none; give average, max or flatten"
            )
        self.config = config = replace(config, mean=config.mean or spec.mean, std=config.std or spec.std)
        self.normalise = Normalise(config.mean or spec.mean, config.std or spec.std)
        self.backbone = spec.build(config.size)
        self.pool = _make_pool(config)
        self.n_features = self._count_features()
        if held is not None:
            with torch.device("meta"):
                wanted = make_head(self.n_features, config).state_dict(prefix="head.")
            for name, tensor in wanted.items():
                if (shape := tuple(held.get(name, ()))) != tensor.shape:
                    raise CxrnetError(f"the weights have {name} of {shape}, the network of {tuple(tensor.shape)}")
        self.head = make_head(self.n_features, config)
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
        kernels = [layer.weight for layer in self.head if isinstance(layer, nn.Linear)][:-1] if self.config.l2 else []
        squares = [kernel.square().sum() for kernel in kernels]
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
        (height, width), name, own_pool = self.config.size, self.config.backbone, self.config.pool == "own"
        try:
            shape = output_shapes(self.backbone, self.config.size)[""]
        except (RuntimeError, AssertionError, ValueError) as error:
            trouble = f"are too few for {name}; take at least 32 x 32"
            if own_pool:
                reason = str(error).partition("\n")[0]
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


def _make_pool(config: NetworkConfig) -> nn.Module:
    """Make the module from a feature map (N, C, h, w) to features (N, F); ``own``: the backbone gives these.

    Windows are adjacent and without padding, as in Keras's AveragePooling2D.
    """
    window = config.pool_window
    match config.pool:
        case "average":
            return nn.Sequential(nn.AvgPool2d(window) if window else nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case "max":
            return nn.Sequential(nn.MaxPool2d(window) if window else nn.AdaptiveMaxPool2d(1), nn.Flatten())
        case "flatten":
            return nn.Flatten()
        case "own":
            return nn.Identity()


def make_head(n_features: int, config: NetworkConfig) -> nn.Sequential:
    """Make the head of a network, from features (N, F) to logits (N, K)."""
    widths = [n_features, *config.hidden, len(config.classes) if config.output == "softmax" else 1]
    rates = config.dropout if isinstance(config.dropout, tuple) else (config.dropout,) * (len(widths) - 1)
    layers: list[nn.Module] = []
    for (width, following), rate in zip(pairwise(widths), rates, strict=True):
        normalisation = [nn.BatchNorm1d(width)] if config.batch_norm else []
        layers += [*normalisation, nn.Dropout(rate), nn.Linear(width, following), _ACTIVATIONS[config.activation]()]
    layers[-1:] = [ZeroFirst()] if config.output == "sigmoid" else []  # no activation after the last
    return nn.Sequential(*layers)


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
    running = ("running_mean", "running_var")
    return ParameterCounts(
        total=sum(p.numel() for p in module.parameters()),
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        statistics=sum(buffer.numel() for name, buffer in module.named_buffers() if name.endswith(running)),
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
