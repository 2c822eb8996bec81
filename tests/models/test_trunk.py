import pytest
import torch
from torch import nn

from cxrnet.models.freezing import set_trainable
from cxrnet.models.trunk import split_network

IMAGES = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def halves(make_network):
    """A network in evaluation mode and its cut."""

    def make(trainable, **changes):
        network = make_network(size=(64, 64), **changes)
        set_trainable(network, trainable)
        return network.eval(), split_network(network)

    return make


@pytest.mark.parametrize(
    ("backbone", "trainable", "shape"),
    [
        ("custom_cnn", "head", (128,)),
        ("custom_cnn", {"from": "block3"}, (64, 16, 16)),
        ("custom_cnn", {"last": 3}, (128, 16, 16)),  # a batch norm, without the convolution before it
        ("mobilenet_v2", {"from": "features.14"}, (96, 4, 4)),
        ("resnet50", {"last": 20}, (2048, 2, 2)),  # the last two blocks of layer4
        ("vgg16", {"from": "features.24"}, (512, 4, 4)),
        ("timm/resnet18", "head", (512,)),
    ],
)
def test_the_two_parts_make_the_network(halves, backbone, trainable, shape):
    network, parts = halves(trainable, backbone=backbone, pool="own" if backbone.startswith("timm/") else "average")
    assert parts.shape((64, 64)) == shape
    assert parts.whole_backbone is (trainable == "head")
    with torch.no_grad():
        features = parts.trunk(IMAGES)
        assert features.shape == (4, *shape)
        torch.testing.assert_close(parts.trainable_part(features), network(IMAGES), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "trainable"),
    [("custom_cnn", "all"), ("timm/resnet18", {"from": "layer4"}), ("timm/resnet18", "all")],
)
def test_what_cannot_be_cut(halves, backbone, trainable):
    assert halves(trainable, backbone=backbone, pool="own" if "timm" in backbone else "average")[1] is None


def test_nothing_trainable_is_in_the_trunk_and_all_of_it_is_in_the_trainable_part(halves):
    network, parts = halves({"last": 40}, backbone="mobilenet_v2")
    assert not any(parameter.requires_grad for parameter in parts.trunk.parameters())
    part = {id(parameter) for parameter in nn.ModuleList(parts.modules).parameters()}
    trainable = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    assert trainable
    assert trainable <= part


def test_the_trainable_part_follows_the_network_and_the_trunk_does_not(halves):
    network, parts = halves({"from": "block2"})
    before = parts.trunk(IMAGES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(parts.trunk(IMAGES), before)
        assert not parts.trainable_part(before).any()
