"""Backbones: convolutional networks that turn (N, 3, H, W) into a map of features (N, C, h, w).

A backbone is an ``nn.Sequential`` that keeps the published parameter names (torchvision's ``features.0.0.weight``,
``layer1.0.conv1.weight``), so that published weight files load without renaming. To add one, write a function
that returns such a module and enter it in :data:`BACKBONES`.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torchvision.models as tv
from torch import nn

from cxrnet.errors import CxrnetError


@dataclass(frozen=True)
class BackboneSpec:
    """How to make a backbone and where its ImageNet weights are published.

    Attributes:
        build: makes the backbone with random weights.
        imagenet: torchvision's entry of the published weights; ``None`` where there are none.
    """

    build: Callable[[], nn.Sequential]
    imagenet: tv.WeightsEnum | None


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


BACKBONES: dict[str, BackboneSpec] = {
    "mobilenet_v2": BackboneSpec(
        lambda: _features_of(tv.mobilenet_v2(weights=None)), tv.MobileNet_V2_Weights.IMAGENET1K_V1
    ),
    "resnet50": BackboneSpec(_resnet50, tv.ResNet50_Weights.IMAGENET1K_V2),
    "vgg16": BackboneSpec(lambda: _features_of(tv.vgg16(weights=None)), tv.VGG16_Weights.IMAGENET1K_V1),
    "vgg19": BackboneSpec(lambda: _features_of(tv.vgg19(weights=None)), tv.VGG19_Weights.IMAGENET1K_V1),
    "custom_cnn": BackboneSpec(_custom_cnn, None),
}


def backbone_spec(name: str) -> BackboneSpec:
    """Look a backbone up.

    Raises:
        CxrnetError: there is no backbone of that name.
    """
    if name not in BACKBONES:
        raise CxrnetError(f"model.backbone: '{name}' is not known; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def stages(backbone: nn.Module) -> dict[str, nn.Module]:
    """The parts of a backbone in forward order, by the names that a phase's ``trainable: {from: ...}`` takes.

    ResNet50: ``conv1, bn1, relu, maxpool, layer1 ... layer4``; MobileNetV2: ``features.0 ... features.18``;
    VGG: ``features.0 ...``; custom CNN: ``block1, block2, block3``.
    """
    found: dict[str, nn.Module] = {}
    for name, part in backbone.named_children():
        if name == "features":
            found |= {f"features.{child}": module for child, module in part.named_children()}
        else:
            found[name] = part
    return found
