"""Backbones: networks that turn (N, 3, H, W) into a map of features (N, C, h, w), or into features (N, F).

A backbone of this module is an ``nn.Sequential`` that keeps the published parameter names (torchvision's
``features.0.0.weight``, ``layer1.0.conv1.weight``), so that published weight files load without renaming. To add
one, write a function that returns such a module and enter it in :data:`BACKBONES`. Every network of timm is a backbone
too, as ``timm/<name>`` (:mod:`cxrnet.models.backbones.timm`).
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torchvision.models as tv
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.spec import BackboneSpec, Size, from_url

TIMM = "timm/"
_ROWS = ("features", "blocks", "stages", "layers", "body")  # what networks call their row of blocks
_KEEP_SHAPE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)


def _without_classifier(model: nn.Module) -> nn.Sequential:
    parts = [(name, part) for name, part in model.named_children() if name not in ("avgpool", "fc", "classifier")]
    return nn.Sequential(OrderedDict(parts))


def _custom_cnn() -> nn.Sequential:
    """Build three blocks of convolution, batch norm, ReLU and 2 x 2 max pooling with 32, 64 and 128 channels."""
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(pairwise((3, 32, 64, 128)), start=1):
        convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
        blocks[f"block{number}"] = nn.Sequential(
            convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
    return nn.Sequential(blocks)


def _spec(build: Callable[[], nn.Module], weights: tv.WeightsEnum) -> BackboneSpec:
    return BackboneSpec(lambda _size: _without_classifier(build()), from_url(weights.url))


BACKBONES: dict[str, BackboneSpec] = {
    "mobilenet_v2": _spec(tv.mobilenet_v2, tv.MobileNet_V2_Weights.IMAGENET1K_V1),
    "resnet50": _spec(tv.resnet50, tv.ResNet50_Weights.IMAGENET1K_V2),
    "vgg16": _spec(tv.vgg16, tv.VGG16_Weights.IMAGENET1K_V1),
    "vgg19": _spec(tv.vgg19, tv.VGG19_Weights.IMAGENET1K_V1),
    "custom_cnn": BackboneSpec(lambda _size: _custom_cnn(), None),
}


def backbone_spec(name: str) -> BackboneSpec:
    """Look a backbone up.

    Raises:
        CxrnetError: there is no backbone of that name.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if str(name).startswith(TIMM):
        from cxrnet.models.backbones.timm import timm_spec

        return timm_spec(name.removeprefix(TIMM))
    raise CxrnetError(f"model.backbone: '{name}' is not known; choose one of {', '.join(BACKBONES)}, or {TIMM}<name>")


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
    """Find the output shapes of a backbone's parts for one image of a height and width.

    They are found without any arithmetic, on torch's meta device.

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
