"""A network in two: the frozen trunk, whose features of an image don't change, and the trainable part."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cxrnet.models.fusion import fused
from cxrnet.models.network import Network


@dataclass(frozen=True)
class SplitNetwork:
    """A network, split before its first trainable module.

    Attributes:
        trunk: images (N, 1, H, W) in 0..255 -> features: (N, F) if it holds the whole backbone, else a map
            (N, C, h, w). A fused copy (:func:`cxrnet.models.fusion.fused`).
        modules: the network's own modules from there on, the head last.
        whole_backbone: the trunk holds the whole backbone.
    """

    trunk: nn.Sequential
    modules: tuple[nn.Module, ...]
    whole_backbone: bool

    def trainable_part(self, features: Tensor) -> Tensor:
        """Map features to logits (N, K)."""
        for module in self.modules:
            features = module(features)
        return features

    def shape(self, size: tuple[int, int]) -> torch.Size:
        """Return the shape of the features of one image of that height and width."""
        with torch.no_grad():
            features: Tensor = self.trunk(torch.zeros(1, 1, *size, dtype=torch.uint8))
        return features.shape[1:]


def split_network(network: Network) -> SplitNetwork | None:
    """Split a network before its first trainable module; ``None`` where there is no frozen one before it.

    Modules are those that the backbone calls one after the other; a timm backbone is one module.

    Args:
        network: with its trainable parameters set (:mod:`cxrnet.models.freezing`), on the CPU.
    """
    modules = [*_in_order(network.backbone), network.pool]
    trainable = [any(parameter.requires_grad for parameter in module.parameters()) for module in modules]
    first = trainable.index(True) if any(trainable) else len(modules)
    if first == 0:
        return None
    trunk = fused(nn.Sequential(network.normalise, *modules[:first]))
    return SplitNetwork(trunk, (*modules[first:], network.head), whole_backbone=first == len(modules))


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for child in module:
            yield from _in_order(child)
    else:
        yield module
