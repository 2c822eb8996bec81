"""The layers of a backbone, counted as Keras counts them, and its stages.

Recipes written for Keras say which layers are trainable by their place in ``model.layers``. What Keras counts differs
from the modules of PyTorch in four ways, which hold for all of ``keras.applications`` and are rules here, no tables:

* an addition is a layer;
* an activation directly after a convolution is part of it (VGG), after a batch norm it is a layer (ResNet);
* zeros are padded by a layer of their own before a padded max pool, before a strided depthwise convolution, and
  before a strided convolution wider than 3 (MobileNetV2: ``block_1_pad``; ResNet50: ``conv1_pad, pool1_pad``);
* layers stand in the order of their distance from the output, and the shortcut of a residual block before the
  convolutions beside it (``conv2_block1_0_conv, conv2_block1_3_conv, conv2_block1_0_bn, ...``).

So VGG16 has 18 layers, VGG19 21, ResNet50 174 and MobileNetV2 153; ``len(model.layers)`` in Keras, without top, is one
more, the input. Source: keras/src/applications, and ``map_graph`` in keras/src/ops/function.py, of Keras 3.

A backbone that ``torch.fx`` can't trace (some of timm) has for layers its modules without children or with parameters
of their own, in the order of their definition, and no additions or paddings.
"""

import copy
import operator
from functools import partial

import torch
from torch import fx, nn

from cxrnet.models.backbones.registry import Size

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_ROWS = ("features", "blocks", "stages", "layers", "body")  # what networks call their row of blocks
_KEEP_SHAPE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)


def layers(backbone: nn.Module) -> list[nn.Module | None]:
    """List layers in forward order; an addition or a padding has no module and stands as ``None``."""
    try:
        graph = _Tracer().trace(backbone)
    except (ValueError, TypeError, RuntimeError, AttributeError):  # fx.proxy.TraceError is a ValueError
        inner = [module for module in backbone.modules() if module is not backbone]
        return [module for module in inner if _is_leaf(module) and not _is_nothing(module)]
    modules = dict(backbone.named_modules())
    found: list[tuple[int, int, nn.Module | None]] = []
    distances: dict[fx.Node, int] = {}  # layers from the output, itself included
    for place, node in reversed(list(enumerate(graph.nodes))):
        parts = _parts(node, modules)
        distance = max((distances[user] for user in node.users), default=0)
        for part in parts:
            distance += 1
            found.append((distance, place, part))
        distances[node] = distance
    # Of two at the same distance the one called later is the shortcut: PyTorch runs it after the convolutions.
    return [part for _, _, part in sorted(found, key=lambda entry: entry[:2], reverse=True)]


def stages(backbone: nn.Module) -> dict[str, nn.Module]:
    """List the parts of a backbone in forward order, by the names that ``trainable: {from: ...}`` takes.

    ResNet50: ``conv1, bn1, relu, maxpool, layer1 ... layer4``; MobileNetV2: ``features.0 ... features.18``;
    VGG: ``features.0 ...``; custom CNN: ``block1, block2, block3``; timm: the children, and in place of ``blocks``,
    ``stages``, ``layers``, ``features`` and ``body`` their children (``blocks.0 ...``).
    """
    found: dict[str, nn.Module] = {}
    for name, part in backbone.named_children():
        inner = dict(part.named_children()) if name in _ROWS else {}
        found |= {f"{name}.{child}": module for child, module in inner.items()} or {name: part}
    return found


def output_shapes(backbone: nn.Module, size: Size) -> dict[str, torch.Size]:
    """Find the output shapes of a backbone's parts for one image, without any arithmetic, on torch's meta device.

    Returns:
        Shapes by the names of :func:`stages`, for parts that give one tensor; the whole backbone's under ``""``.

    Raises:
        RuntimeError, AssertionError, ValueError: the backbone can't work on such an image.
    """
    shapes: dict[str, torch.Size] = {}

    def note(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            shapes[name] = output.shape

    shadow = copy.deepcopy(backbone).to("meta").eval()
    for name, part in list(shadow.named_modules()):
        if type(part) in _KEEP_SHAPE:  # torch takes milliseconds to tell the shape of each, and a network has a hundred
            shadow.set_submodule(name, nn.Identity())
    for name, part in {**stages(shadow), "": shadow}.items():
        part.register_forward_hook(partial(note, name))
    with torch.no_grad():
        shadow(torch.empty(1, 3, *size, device="meta"))
    return shapes


def stage_groups(backbone: nn.Module, size: Size) -> list[list[nn.Module]]:
    """Group the parts of a backbone (:func:`stages`) into stages of one resolution, for images of a size.

    ResNet50: the stem, then ``layer1`` (with the max pool) to ``layer4``; VGG: five blocks, each begun by the pooling
    before it; MobileNetV2: five, one for each stride; custom CNN: its three blocks. Where there are no maps but rows of
    tokens (N, L, C), every part of ``blocks``, ``stages`` or ``layers`` is a stage, and what comes before them another.
    Parts that give features (N, F) and stages without parameters belong to the stage before.
    """
    shapes = output_shapes(backbone, size)
    groups: list[list[nn.Module]] = []
    current: object = None
    for name, part in stages(backbone).items():
        shape = shapes.get(name, ())
        key = shape[2:] if len(shape) == 4 else name if "." in name and len(shape) != 2 else current
        if key != current or not groups:
            groups.append([])
            current = key
        groups[-1].append(part)
    merged: list[list[nn.Module]] = []
    for group in groups:
        if merged and not any(list(part.parameters()) for part in group):
            merged[-1] += group
        else:
            merged.append(group)
    return merged


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)


def _is_leaf(module: nn.Module) -> bool:
    # What has parameters of its own is one layer, whatever else is in it: a batch norm with an activation, attention.
    return not list(module.children()) or bool(list(module.parameters(recurse=False)))


def _is_nothing(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity | nn.Sequential)  # a Sequential that is a leaf is empty


def _parts(node: fx.Node, modules: dict[str, nn.Module]) -> list[nn.Module | None]:
    """List the layers that a step of the forward pass stands for, the last first."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        before = modules.get(str(node.all_input_nodes[0].target)) if node.all_input_nodes else None
        if _is_nothing(module) or (_is_activation(module) and isinstance(before, nn.Conv2d)):
            return []
        return [module, None] if _is_padded_apart(module) else [module]
    if node.op == "call_function" and node.target in _ADDITIONS and len(node.all_input_nodes) == 2:
        return [None]
    return []


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__ and not list(module.parameters())


def _is_padded_apart(module: nn.Module) -> bool:
    if isinstance(module, nn.MaxPool2d):
        return module.padding not in (0, (0, 0))
    if not isinstance(module, nn.Conv2d) or module.stride == (1, 1) or module.padding in ((0, 0), "valid"):
        return False
    return module.groups == module.in_channels or max(module.kernel_size) > 3
