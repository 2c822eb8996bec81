"""What is trainable: one specification for everything that people freeze and unfreeze.

=====================  =====================================================================================
``head``               the head alone; the backbone is frozen
``all``                everything
``{from: layer3}``     the head and the backbone from that stage on (names: ``cxrnet.models.backbones.stages``)
``{last: 100}``        the head and the last 100 layers of the backbone, where every convolution, batch norm,
                       activation, pooling and addition is a layer. For ResNet50 this is the count of Keras; in its
                       VGG an activation is part of its convolution, and its MobileNetV2 has padding layers besides
``{fraction: 0.3}``    the head and that share of the backbone's layers, counted the same way from the end
=====================  =====================================================================================
"""

import operator
from collections.abc import Mapping

import torch
from torch import fx, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones import stages
from cxrnet.models.network import Network

Trainable = str | Mapping[str, str | int | float]


def set_trainable(network: Network, trainable: Trainable) -> None:
    """Set ``requires_grad`` of every parameter in place; the head is always trainable.

    Raises:
        CxrnetError: the specification is not one of this module's table, or names an unknown stage.
    """
    chosen = {id(p) for module in _trainable_modules(network.backbone, trainable) for p in module.parameters()}
    for parameter in network.backbone.parameters():
        parameter.requires_grad = id(parameter) in chosen
    for parameter in network.head.parameters():
        parameter.requires_grad = True
    network.train(network.training)  # so that what is frozen now is in evaluation mode at once


def describe(trainable: Trainable) -> str:
    """The specification in a few words, for the console and the report."""
    if isinstance(trainable, str):
        return trainable
    ((kind, value),) = trainable.items()
    return {
        "from": f"from {value}",
        "last": f"last {value} layers",
        "fraction": f"last {value} of the layers",
    }[kind]


def _trainable_modules(backbone: nn.Module, trainable: Trainable) -> list[nn.Module]:
    match trainable:
        case "head":
            return []
        case "all":
            return [backbone]
        case {"from": str(stage), **rest} if not rest:
            return _from_stage(backbone, stage)
        case {"last": int(count), **rest} if not rest and count > 0:
            return _last_layers(backbone, count)
        case {"fraction": int() | float() as share, **rest} if not rest and 0 < share <= 1:
            return _last_layers(backbone, round(share * len(_layers(backbone))))
    raise CxrnetError(
        f"phase: trainable: {trainable} is not known; use head, all, {{from: STAGE}}, {{last: N}} or {{fraction: 0..1}}"
    )


def _from_stage(backbone: nn.Module, stage: str) -> list[nn.Module]:
    parts = stages(backbone)
    if stage not in parts:
        raise CxrnetError(f"phase: trainable: no stage '{stage}' in this backbone; it has {', '.join(parts)}")
    names = list(parts)
    return [parts[name] for name in names[names.index(stage) :]]


def _last_layers(backbone: nn.Module, count: int) -> list[nn.Module]:
    return [layer for layer in _layers(backbone)[-count:] if layer is not None] if count else []


def _layers(backbone: nn.Module) -> list[nn.Module | None]:
    """Layers in forward order; an addition has no module and stands as ``None``."""
    graph = fx.symbolic_trace(backbone).graph
    modules = dict(backbone.named_modules())
    additions = (operator.add, operator.iadd, torch.add)
    return [
        modules[str(node.target)] if node.op == "call_module" else None
        for node in graph.nodes
        if node.op == "call_module" or (node.op == "call_function" and node.target in additions)
    ]
