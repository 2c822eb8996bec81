"""The trainable part of a network, by one specification for all that people unfreeze, and the frozen trunk before it.

=====================  =====================================================================================
``head``               the head alone; the backbone is frozen
``all``                everything
``{from: layer3}``     the head and the backbone from that part on (names: ``cxrnet.models.backbones.layers.stages``)
``{stages: 2}``        the head and the last 2 stages of the backbone, a stage being what works at one resolution
                       (``cxrnet.models.backbones.layers.stage_groups``)
``{last: 100}``        the head and the last 100 layers of the backbone, counted as Keras counts them
                       (``cxrnet.models.backbones.layers.layers``)
``{fraction: 0.3}``    the head and that share of the backbone's layers, counted the same way from the end
=====================  =====================================================================================

All layers, or all stages, are the whole backbone, with the parameters that belong to none (a class token, say).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.layers import layers, stage_groups, stages
from cxrnet.models.fusion import fused
from cxrnet.models.network import Network
from cxrnet.models.settings import Trainable


def set_trainable(network: Network, trainable: Trainable) -> None:
    """Set ``requires_grad`` of every parameter in place; the head is always trainable.

    Raises:
        CxrnetError: the specification is not one of this module's table, or names an unknown stage.
    """
    chosen = {id(p) for module in _trainable_modules(network, trainable) for p in module.parameters()}
    for parameter in network.backbone.parameters():
        parameter.requires_grad = id(parameter) in chosen
    for parameter in network.head.parameters():
        parameter.requires_grad = True
    network.train(network.training)  # so that what is frozen now is in evaluation mode at once


def frozen_names(network: Network) -> set[str]:
    """List the names in the network's state that training leaves as they are: parameters and batch norm statistics."""
    names: set[str] = set()
    for place, module in network.backbone.named_modules(prefix="backbone"):
        parameters = dict(module.named_parameters(recurse=False))
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        statistics = dict(module.named_buffers(recurse=False)) if frozen == parameters.keys() != set() else {}
        names |= {f"{place}.{name}" for name in (*frozen, *statistics)}
    return names


def describe(trainable: Trainable) -> str:
    """Put the specification into a few words, for the console and the report."""
    if isinstance(trainable, str):
        return trainable
    ((kind, value),) = trainable.items()
    return {
        "from": f"from {value}",
        "stages": f"last {value} stages",
        "last": f"last {value} layers",
        "fraction": f"last {value} of the layers",
    }[kind]


def _trainable_modules(network: Network, trainable: Trainable) -> Sequence[nn.Module]:
    backbone = network.backbone
    match trainable:
        case "head":
            return []
        case "all":
            return [backbone]
        case {"from": str(stage), **rest} if not rest:
            parts = stages(backbone)
            if stage not in parts:
                raise CxrnetError(f"phase: trainable: no stage '{stage}' in this backbone; it has {', '.join(parts)}")
            return list(parts.values())[list(parts).index(stage) :]
        case {"stages": int(count), **rest} if not rest and count > 0:
            groups = stage_groups(backbone, network.config.size)
            return [backbone] if count >= len(groups) else list(chain(*groups[-count:]))
        case {"last": int(count), **rest} if not rest and count > 0:
            return _last_layers(backbone, count)
        case {"fraction": int() | float() as share, **rest} if not rest and 0 < share <= 1:
            return _last_layers(backbone, round(share * len(layers(backbone))))
    raise CxrnetError(
        f"phase: trainable: {trainable} is not known; use head, all, {{from: STAGE}}, {{stages: N}}, {{last: N}} or "
        "{fraction: 0..1}"
    )


def _last_layers(backbone: nn.Module, count: int) -> list[nn.Module]:
    found = layers(backbone)
    if count >= len(found):
        return [backbone]
    return [layer for layer in found[len(found) - count :] if layer is not None]


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
