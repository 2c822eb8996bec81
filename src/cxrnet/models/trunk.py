"""A network in two: the frozen front, whose output for an image doesn't change, and the rest, which is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cxrnet.models.fusion import folded
from cxrnet.models.network import Network


@dataclass(frozen=True)
class Cut:
    """The two parts of a network.

    Attributes:
        front: images (N, 1, H, W) in 0..255 -> features: (N, F) where the whole backbone is in front, else a map
            (N, C, h, w). A copy for evaluation, see :func:`cxrnet.models.fusion.folded`.
        parts: the network's own modules from there on, the head among them.
        whole: the whole backbone is in front.
    """

    front: nn.Sequential
    parts: tuple[nn.Module, ...]
    whole: bool

    def rest(self, features: Tensor) -> Tensor:
        """Features -> logits (N, K)."""
        for part in self.parts:
            features = part(features)
        return features

    def shape(self, size: tuple[int, int]) -> torch.Size:
        """Shape of the features of one image of that height and width."""
        with torch.no_grad():
            features: Tensor = self.front(torch.zeros(1, 1, *size, dtype=torch.uint8))
        return features.shape[1:]


def cut(network: Network) -> Cut | None:
    """Cut a network before its first trainable part.

    Parts are the modules that the backbone calls one after the other; a backbone of timm is one part.

    Args:
        network: with what is trainable set (:mod:`cxrnet.models.freezing`), on the CPU.

    Returns:
        ``None`` where the first part is trainable.
    """
    parts = [*_in_order(network.backbone), network.pool]
    trainable = [any(parameter.requires_grad for parameter in part.parameters()) for part in parts]
    place = trainable.index(True) if any(trainable) else len(parts)
    if place == 0:
        return None
    front = folded(nn.Sequential(network.normalise, *parts[:place]))
    return Cut(front, (*parts[place:], network.head), whole=place == len(parts))


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for child in module:
            yield from _in_order(child)
    else:
        yield module
