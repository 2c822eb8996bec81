import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from cxrnet.errors import CxrnetError
from cxrnet.models.network import Network, NetworkConfig

CLASSES = ("Covid", "Normal", "Viral Pneumonia")


def grey(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_custom_cnn_as_configured(make_network):
    network = make_network(pool="flatten", hidden=(128, 64, 64, 64), size=(64, 48))
    dense = [(layer.in_features, layer.out_features) for layer in network.head if isinstance(layer, nn.Linear)]
    assert dense == [(128 * 8 * 6, 128), (128, 64), (64, 64), (64, 64), (64, 3)]
    assert network(grey(2, 1, 64, 48)).shape == (2, 3)


@pytest.mark.parametrize(("backbone", "features"), [("mobilenet_v2", 1280), ("resnet50", 2048), ("vgg19", 512)])
def test_every_backbone_takes_images_that_are_not_square(make_network, backbone, features):
    network = make_network(backbone=backbone, size=(64, 32)).eval()
    with torch.inference_mode():
        assert network.features(grey(2, 1, 64, 32)).shape == (2, features)
        assert network(grey(2, 1, 64, 32)).shape == (2, 3)


@pytest.mark.parametrize("pool", ["average", "max"])
def test_pooling_makes_the_head_independent_of_the_size(make_network, pool):
    network = make_network(pool=pool, size=(32, 32)).eval()
    assert network(grey(1, 1, 40, 56)).shape == (1, 3)


def test_pools_are_what_they_say(make_network):
    images = grey(3, 1, 32, 32)
    average, largest, flat = (make_network(pool=pool).eval() for pool in ("average", "max", "flatten"))
    with torch.inference_mode():
        maps = average.backbone(average.normalise(images))
        torch.testing.assert_close(average.features(images), maps.mean(dim=(2, 3)))
        torch.testing.assert_close(largest.features(images), maps.amax(dim=(2, 3)))
        torch.testing.assert_close(flat.features(images), maps.flatten(1))


def test_normalisation_is_torchvisions_on_three_equal_channels(make_network):
    images = grey(2, 1, 32, 32)
    expected = v2.functional.normalize(
        images.float().expand(-1, 3, -1, -1) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(make_network().normalise(images), expected)


def test_uint8_and_float_images_give_the_same_logits(make_network):
    network, images = make_network().eval(), grey(4, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network(images), network(images.float()))


def test_the_layout_in_memory_is_channels_last(make_network):
    network = make_network()
    assert network.backbone.block2[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert network.normalise(grey(2, 1, 32, 32)).is_contiguous(memory_format=torch.channels_last)


def test_an_image_gets_the_same_logits_alone_and_among_others(make_network):
    network, images = make_network().eval(), grey(5, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(images)[2:3], network(images[2:3]), atol=1e-6, rtol=1e-6)


def test_config_survives_json(make_network):
    config = make_network(hidden=(8,)).config
    as_json = {name: list(value) if isinstance(value, tuple) else value for name, value in config.to_dict().items()}
    assert NetworkConfig.from_dict(as_json) == config


def test_a_model_can_be_trained_in_plain_pytorch(make_network):
    network, images, labels = make_network(dropout=0.0), grey(12, 1, 32, 32), torch.arange(12) % 3
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("backbone", "size"), [("custom_cnn", (7, 32)), ("vgg16", (31, 32))])
def test_too_small_images_are_told_with_the_size(make_network, backbone, size):
    with pytest.raises(
        CxrnetError, match=rf"data.size: {size[0]} x 32 pixels are too few for {backbone}; take at leas"
    ):
        make_network(backbone=backbone, size=size)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": "median"}, "model.pool: 'median' is not known; choose average, max or flatten"),
        ({"backbone": "alexnet"}, "model.backbone: 'alexnet' is not known"),
        ({"mean": (0.5,)}, "model.mean, model.std: .* give three numbers each"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"hidden": 256}, r"model.hidden: 256 is no list of widths; give one, as \[256\], or \[\]"),
        ({"dropout": 1.5}, "model.dropout: 1.5 is no probability"),
    ],
)
def test_settings_that_cannot_be_built(make_network, changes, message):
    with pytest.raises(CxrnetError, match=message):
        make_network(**changes)


def test_an_unknown_setting_is_named():
    with pytest.raises(CxrnetError, match="model: 'atention' is not known; a network has backbone, classes, size"):
        NetworkConfig.from_dict({"backbone": "custom_cnn", "atention": True})


def test_the_normalisation_is_no_parameter_and_not_in_the_state(make_network):
    network = make_network()
    assert isinstance(network, Network)
    assert not {"mean", "std"} & set(network.state_dict())
    assert not {"mean", "std"} & {name for name, _ in network.named_parameters()}
