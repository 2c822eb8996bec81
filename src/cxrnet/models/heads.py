"""Pooling and head: feature map (N, C, h, w) -> pooling -> features (N, F) -> head -> logits (N, K).

A head is a row of dense layers, each with [batch norm] -> dropout -> linear -> (activation, but for the last).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from cxrnet.errors import CxrnetError

Pool = Literal["average", "max", "flatten", "own"]
Output = Literal["softmax", "sigmoid"]
Dropout = float | tuple[float, ...]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "elu": nn.ELU, "tanh": nn.Tanh, "silu": nn.SiLU
}  # fmt: skip


class ZeroFirst(nn.Module):
    """Makes logits (N, 2), [0, z], of one logit z (N, 1).

    The softmax of those is [1 - sigmoid(z), sigmoid(z)] and their cross-entropy is the binary one, so whatever works
    on the logits of K classes works on a single sigmoid.
    """

    def forward(self, logit: Tensor) -> Tensor:
        """Put a 0 before each logit."""
        return F.pad(logit, (1, 0))


def make_pool(kind: Pool, window: tuple[int, int] | None) -> nn.Module:
    """Make the module from a feature map (N, C, h, w) to features (N, F).

    Args:
        kind: ``average``, ``max``, ``flatten``, or ``own``: the backbone gives (N, F) itself.
        window: height and width of adjacent pooling windows without padding, as in Keras's AveragePooling2D; ``None``
            pools the whole map.

    Raises:
        CxrnetError: there is no such pooling.
    """
    if window is not None and not _are_widths(window, length=2):
        raise CxrnetError(f"model.pool_window: {window}; give the window's height and width, as [4, 4], or null")
    match kind:
        case "average":
            return nn.Sequential(nn.AvgPool2d(window) if window else nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case "max":
            return nn.Sequential(nn.MaxPool2d(window) if window else nn.AdaptiveMaxPool2d(1), nn.Flatten())
        case "flatten" | "own" if window:
            raise CxrnetError(f"model.pool_window: pool '{kind}' has no windows; give null, or pool average or max")
        case "flatten":
            return nn.Flatten()
        case "own":
            return nn.Identity()
    raise CxrnetError(f"model.pool: '{kind}' is not known; choose average, max or flatten (own: of timm backbones)")


def make_head(
    n_features: int, n_classes: int, hidden: Sequence[int], activation: str, batch_norm: bool, dropout: Dropout,
    output: Output,
) -> nn.Sequential:  # fmt: skip
    """Make the head, from features (N, F) to logits (N, K), see :class:`cxrnet.models.network.NetworkConfig`.

    Raises:
        CxrnetError: an argument is out of its range.
    """
    _check(n_classes, hidden, activation, batch_norm, dropout, output)
    widths = [n_features, *hidden, n_classes if output == "softmax" else 1]
    rates = dropout if isinstance(dropout, tuple) else (dropout,) * (len(hidden) + 1)
    layers: list[nn.Module] = []
    for (width, following), rate in zip(pairwise(widths), rates, strict=True):
        normalisation = [nn.BatchNorm1d(width)] if batch_norm else []
        layers += [*normalisation, nn.Dropout(rate), nn.Linear(width, following), ACTIVATIONS[activation]()]
    layers[-1:] = [ZeroFirst()] if output == "sigmoid" else []  # no activation after the last
    return nn.Sequential(*layers)


def hidden_kernels(head: nn.Sequential) -> list[Tensor]:
    """List the weights of a head's dense layers, but for the last."""
    return [layer.weight for layer in head if isinstance(layer, nn.Linear)][:-1]


def _check(
    n_classes: int, hidden: Sequence[int], activation: str, batch_norm: bool, dropout: Dropout, output: Output
) -> None:
    if not _are_widths(hidden):
        raise CxrnetError(f"model.hidden: {hidden}; give a list of widths, as [256], or []")
    if activation not in ACTIVATIONS:
        raise CxrnetError(f"model.activation: '{activation}' is not known; choose one of {', '.join(ACTIVATIONS)}")
    if not isinstance(batch_norm, bool):
        raise CxrnetError(f"model.batch_norm: '{batch_norm}'; give true or false")
    rates = dropout if isinstance(dropout, tuple) else (dropout,)
    if not all(isinstance(rate, int | float) and 0 <= rate <= 1 for rate in rates):
        raise CxrnetError(f"model.dropout: {dropout}; give a probability from 0 to 1, or a list of them")
    if isinstance(dropout, tuple) and len(dropout) != len(hidden) + 1:
        raise CxrnetError(
            f"model.dropout: {len(dropout)} rates for {len(hidden) + 1} dense layers; give one for each layer of "
            "model.hidden and one for the last, or a single number"
        )
    if output not in ("softmax", "sigmoid"):
        raise CxrnetError(f"model.output: '{output}' is not known; choose softmax or sigmoid")
    if output == "sigmoid" and n_classes != 2:
        raise CxrnetError(f"model.output: sigmoid tells two classes apart, the data have {n_classes}; give softmax")


def _are_widths(values: object, length: int | None = None) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == (length or len(values))
        and all(isinstance(value, int) and value >= 1 for value in values)
    )
