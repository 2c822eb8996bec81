import pytest
import torch
from torch import nn

from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import frozen_names, set_trainable, split_network


def trainable_names(network) -> set[str]:
    return {name for name, p in network.backbone.named_parameters() if p.requires_grad}


@pytest.fixture
def make_shape(make_network):
    """Networks without numbers, for what takes none: large ones are there at once."""

    def make(**changes):
        with torch.device("meta"):
            return make_network(**changes)

    return make


def trained(network, trainable) -> set[str]:
    """The children of the backbone's deepest named blocks that would change, after ``set_trainable``."""
    set_trainable(network, trainable)
    assert all(p.requires_grad for p in network.head.parameters())
    return trainable_names(network)


def test_head_and_all(make_network):
    network = make_network()
    assert trained(network, "head") == set()
    assert trained(network, "all") == {name for name, _ in network.backbone.named_parameters()}
    assert trained(network, "head") == set()


def test_from_a_stage_on(make_shape):
    names = trained(make_shape(backbone="resnet50"), {"from": "layer3"})
    assert {name.split(".")[0] for name in names} == {"layer3", "layer4"}
    names = trained(make_shape(backbone="mobilenet_v2"), {"from": "features.14"})
    assert {int(name.split(".")[1]) for name in names} == {14, 15, 16, 17, 18}


def test_the_last_100_layers_of_resnet50_begin_where_they_do_in_keras(make_shape):
    # Keras' ResNet50 without top has 175 layers. conv5 has 12 + 10 + 10 of them, conv4 12 + 5 * 10, so 6 are left
    # for conv3_block4: 2_bn, 2_relu, 3_conv, 3_bn, add, out. Its 2_conv is number 101 from the end and stays frozen.
    names = trained(make_shape(backbone="resnet50"), {"last": 100})
    block4 = {name.removeprefix("layer2.3.") for name in names if name.startswith("layer2")}
    assert block4 == {"bn2.weight", "bn2.bias", "conv3.weight", "bn3.weight", "bn3.bias"}
    assert {name.split(".")[0] for name in names} == {"layer2", "layer3", "layer4"}
    assert not any(name.startswith("layer2.") and not name.startswith("layer2.3.") for name in names)


@pytest.mark.parametrize(
    ("count", "convolutions"),
    [(1, set()), (2, {34}), (3, {32, 34}), (5, {28, 30, 32, 34}), (6, {28, 30, 32, 34}), (7, {25, 28, 30, 32, 34})],
)
def test_an_activation_of_vgg19_is_part_of_its_convolution(make_shape, count, convolutions):
    names = trained(make_shape(backbone="vgg19"), {"last": count})
    assert {int(name.split(".")[1]) for name in names} == convolutions


def test_stages_are_freed_from_the_end(make_shape):
    network = make_shape(backbone="resnet50")
    tops = [{name.split(".")[0] for name in trained(network, {"stages": count})} for count in (1, 3, 4)]
    assert tops == [{"layer4"}, {"layer2", "layer3", "layer4"}, {"layer1", "layer2", "layer3", "layer4"}]
    everything = {name for name, _ in network.backbone.named_parameters()}
    assert trained(network, {"stages": 5}) == trained(network, {"stages": 9}) == everything


def test_a_share_of_the_layers(make_network):
    network = make_network()  # 12 layers: three blocks of convolution, batch norm, activation, pooling
    assert {name.split(".")[0] for name in trained(network, {"fraction": 1 / 3})} == {"block3"}
    assert {name.split(".")[0] for name in trained(network, {"fraction": 1})} == {"block1", "block2", "block3"}


def train_a_little(network, steps: int = 3) -> None:
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for step in range(steps):
        images = torch.randint(0, 256, (6, 1, 32, 32), generator=torch.Generator().manual_seed(step)).float()
        loss = nn.functional.cross_entropy(network(images), torch.arange(6) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("backbone", ["custom_cnn", "mobilenet_v2"])
def test_frozen_layers_do_not_drift_while_training(make_network, backbone):
    network = make_network(backbone=backbone)
    network.train()
    set_trainable(network, "head")
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    train_a_little(network)
    network.train()  # as a training loop does every epoch
    train_a_little(network)
    after = network.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_unfreezing_sets_batch_norm_and_dropout_back_to_training(make_network):
    network = make_network(dropout=0.5).train()
    set_trainable(network, "head")
    assert network.head.training
    assert not network.backbone.block1.training
    set_trainable(network, "all")
    assert network.backbone.block1[1].training


def test_an_unknown_stage_is_answered_with_the_known_ones(make_network):
    with pytest.raises(
        CxrnetError, match="phase: trainable: no stage 'layer3' in this backbone; it has block1, block2"
    ):
        set_trainable(make_network(), {"from": "layer3"})


@pytest.mark.parametrize(
    "bad", ["Head", "last", None, 5, {}, {"last": 0}, {"last": -3}, {"last": 2.5}, {"last": "ten"}, {"fraction": 0},
            {"fraction": 1.2}, {"stages": 0}, {"stages": "two"}, {"stages": 1, "last": 3}, {"form": "layer3"},
            {"from": "block2", "last": 3}]
)  # fmt: skip
def test_bad_specifications(make_network, bad):
    with pytest.raises(CxrnetError, match=r"phase: trainable: .* is not known; use head, all, {from: STAGE}"):
        set_trainable(make_network(), bad)


def test_names_of_what_training_leaves_as_it_is(make_network):
    network = make_network()
    everything = {name for name in network.state_dict() if name.startswith("backbone")}
    for trainable, left in (
        ("all", set()),
        ("head", everything),
        ({"from": "block3"}, {name for name in everything if "block3" not in name}),
        ({"last": 3}, everything - {f"backbone.block3.1.{name}" for name in network.backbone.block3[1].state_dict()}),
    ):
        set_trainable(network, trainable)
        assert frozen_names(network) == left


# --- the trunk before it

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
