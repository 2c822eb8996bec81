import pytest
import torch
from torch import nn

from cxrnet.models.backbones.layers import layers, stage_groups, stages
from cxrnet.models.backbones.registry import backbone_spec


def build(name: str, size=(64, 64)) -> nn.Module:
    # Without numbers there is nothing to initialise; older releases of timm need them.
    with torch.device("cpu" if name.startswith("timm/") else "meta"):
        return backbone_spec(name).build(size)


def groups(name: str, size=(64, 64)) -> list[list[str]]:
    """The stages, by the names of their first and last parts with parameters."""
    backbone = build(name, size)
    names = {id(part): part_name for part_name, part in stages(backbone).items()}
    held = [[names[id(p)] for p in group if list(p.parameters())] for group in stage_groups(backbone, size)]
    return [[group[0], group[-1]] for group in held]


@pytest.mark.parametrize(
    ("name", "count"), [("vgg16", 18), ("vgg19", 21), ("resnet50", 174), ("mobilenet_v2", 153), ("custom_cnn", 12)]
)
def test_as_many_layers_as_in_keras(name, count):
    assert len(layers(build(name))) == count


def test_every_parameter_is_in_a_layer():
    for name in (
        "vgg16",
        "resnet50",
        "mobilenet_v2",
        "timm/tf_efficientnet_lite0",
        "timm/swin_tiny_patch4_window7_224",
    ):
        backbone = build(name, (224, 224))
        held = {id(p) for layer in layers(backbone) if layer is not None for p in layer.parameters()}
        assert held == {id(p) for p in backbone.parameters()}


def test_the_first_block_of_resnet50_stands_as_in_keras():
    # conv1_pad, conv1_conv, conv1_bn, conv1_relu, pool1_pad, pool1_pool, conv2_block1_1_conv, ..., conv2_block1_out
    backbone = build("resnet50")
    names = {id(module): name for name, module in backbone.named_modules()}
    found = [names[id(layer)] if layer is not None else None for layer in layers(backbone)[:18]]
    block = ["conv1", "bn1", "relu", "conv2", "bn2", "relu", "downsample.0", "conv3", "downsample.1", "bn3"]
    stem = [None, "conv1", "bn1", "relu", None, "maxpool"]
    assert found == [*stem, *(f"layer1.0.{name}" for name in block), None, "layer1.0.relu"]


def test_the_same_network_has_the_same_layers_in_timm():
    ours, timms = layers(build("resnet50")), layers(build("timm/resnet50"))
    assert [type(layer) for layer in timms[:174]] == [type(layer) for layer in ours]


def test_a_network_that_cannot_be_traced_has_its_modules_for_layers():
    backbone = build("timm/mobilevit_xxs")
    found = layers(backbone)
    assert None not in found
    assert found[0] is backbone.stem.conv
    assert {id(p) for layer in found for p in layer.parameters()} == {id(p) for p in backbone.parameters()}


def test_stages_are_runs_of_one_resolution():
    assert groups("custom_cnn") == [["block1"] * 2, ["block2"] * 2, ["block3"] * 2]
    assert groups("resnet50") == [["conv1", "bn1"], *([f"layer{i}"] * 2 for i in range(1, 5))]
    firsts = [int(group[0].split(".")[1]) for group in groups("vgg16")]
    assert firsts == [0, 5, 10, 17, 24]
    firsts = [int(group[0].split(".")[1]) for group in groups("mobilenet_v2")]
    assert firsts == [0, 2, 4, 7, 14]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm/resnet18", [["conv1", "bn1"], *([f"layer{i}"] * 2 for i in range(1, 5))]),
        ("timm/swin_tiny_patch4_window7_224",
         [["patch_embed", "layers.0"], ["layers.1"] * 2, ["layers.2"] * 2, ["layers.3", "norm"]]),
        ("timm/vit_tiny_patch16_224",
         [["patch_embed"] * 2, *([f"blocks.{i}"] * 2 for i in range(11)), ["blocks.11", "norm"]]),
    ],
)  # fmt: skip
def test_stages_of_timm_backbones(name, expected):
    assert groups(name, (224, 224)) == expected
