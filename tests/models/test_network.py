import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import set_trainable
from cxrnet.models.network import Network, ParameterCounts, count_parameters
from cxrnet.models.settings import NetworkConfig

CLASSES = ("Covid", "Normal", "Viral Pneumonia")


def grey(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("backbone", "features"), [("mobilenet_v2", 1280), ("resnet50", 2048), ("vgg16", 512)])
def test_every_backbone_takes_images_that_are_not_square(make_network, backbone, features):
    network = make_network(backbone=backbone, size=(64, 32)).eval()
    with torch.inference_mode():
        assert network.features(grey(2, 1, 64, 32)).shape == (2, features)
        assert network(grey(2, 1, 64, 32)).shape == (2, 3)


def test_pools_are_what_they_say(make_network):
    images = grey(3, 1, 32, 32)
    average, largest, flat = (make_network(pool=pool).eval() for pool in ("average", "max", "flatten"))
    with torch.inference_mode():
        maps = average.backbone(average.normalise(images))
        torch.testing.assert_close(average.features(images), maps.mean(dim=(2, 3)))
        torch.testing.assert_close(largest.features(images), maps.amax(dim=(2, 3)))
        torch.testing.assert_close(flat.features(images), maps.flatten(1))


def layers(module: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_every_dense_layer_has_its_batch_norm_dropout_and_activation(make_network):
    assert layers(make_network().head) == ["Dropout", "Linear"]
    made = make_network(hidden=(8, 4), batch_norm=True, dropout=(0.1, 0.5, 0.0), activation="gelu").head
    dense = ["BatchNorm1d", "Dropout", "Linear", "GELU"]
    assert layers(made) == dense + dense + dense[:3]
    assert [layer.p for layer in made if isinstance(layer, nn.Dropout)] == [0.1, 0.5, 0.0]
    assert [layer.num_features for layer in made if isinstance(layer, nn.BatchNorm1d)] == [128, 8, 4]


def test_normalisation_is_torchvisions_on_three_equal_channels(make_network):
    images = grey(2, 1, 32, 32)
    expected = v2.functional.normalize(
        images.float().expand(-1, 3, -1, -1) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(make_network().normalise(images), expected)


def test_config_survives_json(make_network):
    config = make_network(hidden=(8,), pool_window=(2, 2), dropout=(0.1, 0.2)).config
    as_json = {name: list(value) if isinstance(value, tuple) else value for name, value in config.to_dict().items()}
    assert NetworkConfig.from_dict(as_json) == config


@pytest.mark.parametrize(("backbone", "size"), [("custom_cnn", (7, 32)), ("vgg16", (31, 32))])
@pytest.mark.usefixtures("no_numbers")
def test_too_small_images_are_told_with_the_size(make_network, backbone, size):
    with pytest.raises(
        CxrnetError, match=rf"data.size: {size[0]} x 32 pixels are too few for {backbone}; take at leas"
    ):
        make_network(backbone=backbone, size=size)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": "median"}, "model.pool: 'median' is not known; choose average, max or flatten"),
        ({"pool": "own"}, "model.pool: 'own' is for timm backbones, custom_cnn has none; give average, max or flatten"),
        ({"backbone": "alexnet"}, "model.backbone: 'alexnet' is not known"),
        ({"pool_window": (5, 4)}, r"model.pool_window: \(5, 4\) is more than the 4 x 4 map .* of 32 x 32 pixels"),
        ({"pool_window": 4}, r"model.pool_window: 4; give the window's height and width, as \[4, 4\], or null"),
        ({"pool_window": (4,)}, "give the window's height"),
        ({"pool_window": (2, 2), "pool": "flatten"}, "model.pool_window: pool 'flatten' has no windows; give null"),
        ({"l2": -0.1}, "model.l2: -0.1; give a number from 0 on"),
        ({"mean": (0.5,)}, "model.mean, model.std: .* give three numbers each"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"hidden": 256}, r"model.hidden: 256; give a list of widths, as \[256\], or \[\]"),
        ({"hidden": (0,)}, "model.hidden: .*; give a list of widths"),
        ({"activation": "swish"}, "model.activation: 'swish' is not known; choose one of relu, gelu, elu, tanh, silu"),
        ({"batch_norm": "no"}, "model.batch_norm: no; give true or false"),
        ({"dropout": 1.5}, "model.dropout: 1.5; give a probability"),
        ({"dropout": ("a",)}, "model.dropout: .*; give a probability"),
        ({"hidden": (8,), "dropout": (0.2,)}, "model.dropout: 1 rates for 2 dense layers; give one for each layer"),
        ({"output": "softmin"}, "model.output: 'softmin' is not known; choose one of softmax, sigmoid"),
        ({"output": "sigmoid"}, "model.output: sigmoid tells two classes apart, the data have 3; give softmax"),
        ({"classes": ("a", "a")}, "data.classes: .*; give two or more, each once"),
        ({"size": (0, 32)}, "data.size: .*; give a height and a width in pixels"),
    ],
)
def test_settings_that_cannot_be_built(make_network, changes, message):
    with pytest.raises(CxrnetError, match=message):
        make_network(**changes)


def test_an_unknown_setting_is_named():
    with pytest.raises(CxrnetError, match="model: 'atention' is not known; a network has backbone, mean"):
        NetworkConfig.from_dict({"backbone": "custom_cnn", "atention": True})


def test_without_numbers_of_its_own_the_normalisation_is_what_the_weights_want(make_network):
    values = {**make_network().config.to_dict(), "mean": None, "std": None}
    assert Network(NetworkConfig.from_dict(values)).config == make_network().config
    mobile = Network(
        NetworkConfig.from_dict({**values, "backbone": "timm/tf_efficientnet_lite0", "pool": "own"})
    ).config
    assert (mobile.mean, mobile.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert NetworkConfig.from_dict({**values, "mean": [0, 0, 0], "std": [1, 1, 1]}).std == (1, 1, 1)


def test_pooling_in_windows_before_flattening(make_network):
    images = grey(3, 1, 40, 56)  # maps of 5 x 7: two rows of three windows, the rest is left out
    average, largest = (make_network(pool=p, pool_window=(2, 2), size=(40, 56)).eval() for p in ("average", "max"))
    with torch.inference_mode():
        maps = average.backbone(average.normalise(images))[:, :, :4, :6].reshape(3, 128, 2, 2, 3, 2)
        torch.testing.assert_close(average.features(images), maps.mean(dim=(3, 5)).flatten(1))
        torch.testing.assert_close(largest.features(images), maps.amax(dim=(3, 5)).flatten(1))


def test_one_sigmoid_is_the_probability_of_the_last_class(make_network):
    network = make_network(classes=("negative", "positive"), output="sigmoid", hidden=(8,)).eval()
    images, labels = grey(6, 1, 32, 32), torch.tensor([0, 1, 0, 1, 1, 0])
    features = network.features(images)
    assert network.head[-2].out_features == 1
    z = network.head[:-1](features).squeeze(1)
    logits = network(images)
    torch.testing.assert_close(logits.softmax(dim=1)[:, 1], z.sigmoid())
    torch.testing.assert_close(network.head(features), logits)  # what is trained on features is the same
    torch.testing.assert_close(
        nn.functional.cross_entropy(logits, labels),
        nn.functional.binary_cross_entropy_with_logits(z, labels.float()),
    )


def test_the_penalty_is_of_the_hidden_layers_weights_alone(make_network):
    network = make_network(hidden=(8, 4), l2=0.01, batch_norm=True)
    first, second, last = (layer for layer in network.head if isinstance(layer, nn.Linear))
    expected = 0.01 * (first.weight.square().sum() + second.weight.square().sum())
    torch.testing.assert_close(network.penalty(), expected)
    network.penalty().backward()
    torch.testing.assert_close(second.weight.grad, 0.02 * second.weight)
    assert last.weight.grad is first.bias.grad is network.backbone.block1[0].weight.grad is None


@pytest.fixture
def no_numbers():
    """Networks without numbers, to be counted: there is nothing to initialise."""
    with torch.device("meta"):
        yield


# What Keras prints as parameters is ours, and its convolution biases where PyTorch has none before a batch norm, and
# the running statistics of batch norms.


@pytest.mark.usefixtures("no_numbers")
def test_parameters_of_the_published_vgg19_recipe(make_network):
    network = make_network(
        backbone="vgg19", size=(320, 382), pool_window=(4, 4), hidden=(128,), dropout=0.5, output="sigmoid",
        classes=("negative", "positive"),
    )  # fmt: skip
    set_trainable(network, {"last": 3})  # block5_conv3, block5_conv4 and the pooling
    maps = (320 // 32 // 4) * (382 // 32 // 4) * 512
    head = maps * 128 + 128 + 128 + 1
    assert count_parameters(network) == ParameterCounts(20_024_384 + head, 2 * (512 * 512 * 9 + 512) + head, 0)
    assert (20_024_384 + head, 2 * (512 * 512 * 9 + 512) + head) == (20_286_785, 4_982_017)


@pytest.mark.usefixtures("no_numbers")
def test_parameters_of_the_published_resnet50_recipe(make_network):
    network = make_network(
        backbone="resnet50", hidden=(256,), batch_norm=True, classes=("COVID", "Lung_Opacity", "Normal", "Viral")
    )
    set_trainable(network, "head")
    counts, backbone = count_parameters(network), count_parameters(network.backbone)
    assert counts.trainable == 2 * 2048 + (2048 * 256 + 256) + 2 * 256 + (256 * 4 + 4) == 530_180
    biases = sum(m.out_channels for m in network.backbone.modules() if isinstance(m, nn.Conv2d))
    assert (biases, backbone.statistics, counts.statistics) == (26_560, 53_120, 53_120 + 2 * 2048 + 2 * 256)
    assert counts.total + biases + counts.statistics == 24_122_500
