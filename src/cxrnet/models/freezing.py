"""The trainable part: one specification for everything that people freeze and unfreeze.

=====================  =====================================================================================
``head``               the head alone; the backbone is frozen
``all``                everything
``{from: layer3}``     the head and the backbone from that part on (names: ``cxrnet.models.backbones.registry.stages``)
``{stages: 2}``        the head and the last 2 stages of the backbone, a stage being what works at one resolution
                       (``cxrnet.models.backbones.layers.stage_groups``)
``{last: 100}``        the head and the last 100 layers of the backbone, counted as Keras counts them
                       (``cxrnet.models.backbones.layers.layers``)
``{fraction: 0.3}``    the head and that share of the backbone's layers, counted the same way from the end
=====================  =====================================================================================

All layers, or all stages, are the whole backbone, with the parameters that belong to none (a class token, say).
"""

from collections.abc import Sequence
from itertools import chain

from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.layers import layers, stage_groups
from cxrnet.models.backbones.registry import stages
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
