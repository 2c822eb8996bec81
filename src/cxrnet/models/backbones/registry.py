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

import torch
import torchvision.models as tv
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.spec import BackboneSpec, Size, from_url

TIMM = "timm/"
_ROWS = ("features", "blocks", "stages", "layers", "body")  # what networks call their row of blocks
_KEEP_SHAPE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish)


def _features_of(model: tv.MobileNetV2 | tv.VGG) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=model.features)
    return nn.Sequential(parts)


def _resnet50() -> nn.Sequential:
    model = tv.resnet50(weights=None)
    parts = [(name, part) for name, part in model.named_children() if name not in ("avgpool", "fc")]
    return nn.Sequential(OrderedDict(parts))


def _custom_cnn() -> nn.Sequential:
    """Three blocks of convolution, batch norm, ReLU and 2 x 2 max pooling with 32, 64 and 128 channels."""
    channels = (3, 32, 64, 128)
    blocks: OrderedDict[str, nn.Module] = OrderedDict(
        (
            f"block{i + 1}",
            nn.Sequential(
                nn.Conv2d(channels[i], channels[i + 1], kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(channels[i + 1]),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ),
        )
        for i in range(3)
    )
    return nn.Sequential(blocks)


def _spec(build: Callable[[], nn.Sequential], weights: tv.WeightsEnum | None) -> BackboneSpec:
    return BackboneSpec(lambda _size: build(), from_url(weights.url) if weights is not None else None)


BACKBONES: dict[str, BackboneSpec] = {
    "mobilenet_v2": _spec(lambda: _features_of(tv.mobilenet_v2(weights=None)), tv.MobileNet_V2_Weights.IMAGENET1K_V1),
    "resnet50": _spec(_resnet50, tv.ResNet50_Weights.IMAGENET1K_V2),
    "vgg16": _spec(lambda: _features_of(tv.vgg16(weights=None)), tv.VGG16_Weights.IMAGENET1K_V1),
    "vgg19": _spec(lambda: _features_of(tv.vgg19(weights=None)), tv.VGG19_Weights.IMAGENET1K_V1),
    "custom_cnn": _spec(_custom_cnn, None),
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
    """The parts of a backbone in forward order, by the names that a phase's ``trainable: {from: ...}`` takes.

    ResNet50: ``conv1, bn1, relu, maxpool, layer1 ... layer4``; MobileNetV2: ``features.0 ... features.18``;
    VGG: ``features.0 ...``; custom CNN: ``block1, block2, block3``. Of a timm backbone the children, and in place of
    ``blocks``, ``stages``, ``layers``, ``features`` and ``body`` the children of those (``blocks.0 ...``).
    """
    found: dict[str, nn.Module] = {}
    for name, part in backbone.named_children():
        inner = dict(part.named_children()) if name in _ROWS else {}
        found |= {f"{name}.{child}": module for child, module in inner.items()} or {name: part}
    return found


def output_shapes(backbone: nn.Module, size: Size) -> dict[str, torch.Size]:
    """Shapes of what the parts of a backbone give for one image, by the names of :func:`stages`.

    Shapes are computed without any arithmetic, on torch's meta device.

    Args:
        backbone: left as it is.
        size: height and width of the image.

    Returns:
        A shape for each part that gives one tensor, and that of the backbone as a whole under ``""``.

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
