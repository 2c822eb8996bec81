import pytest
import torch
from torch import nn

from cxrnet.models import fusion
from cxrnet.models.fusion import fused, fuses_activations


@pytest.fixture
def learned(make_network):
    """A network whose batch norms have statistics, scales and shifts that matter."""

    def make(**changes):
        network = make_network(size=(64, 64), **changes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
        return network

    return make


def batch_norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


IMAGES = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("backbone", "before"),
    [
        ("custom_cnn", 3),
        ("mobilenet_v2", 52),
        ("resnet50", 53),
        ("timm/resnet18", 20),
        ("timm/efficientnet_b0", 49),  # its batch norms have the activation in them
    ],
)
def test_the_output_is_the_same_without_the_batch_norms(learned, backbone, before):
    network = learned(backbone=backbone, pool="own" if backbone.startswith("timm/") else "average")
    state = {name: value.clone() for name, value in network.state_dict().items()}
    copied = fused(network)
    assert (batch_norms(network), batch_norms(copied)) == (before, 0)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.inference_mode():
        expected, features = network.eval().features(IMAGES), copied.features(IMAGES)
        assert (features - expected).norm() < 1e-4 * expected.norm()
        torch.testing.assert_close(copied(IMAGES), network(IMAGES), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "mobilevit_xxs",  # can't be traced
        "resnetv2_50",  # the last convolution of a block is added to the shortcut before the next batch norm
        "nf_resnet26",  # its convolutions standardise their weights
    ],
)
def test_what_cannot_be_fused_is_left(learned, name):
    network = learned(backbone=f"timm/{name}", pool="own")
    with torch.inference_mode():
        expected, features = network.eval().features(IMAGES), fused(network).features(IMAGES)
    assert (features - expected).norm() < 1e-4 * expected.norm()


def test_a_convolution_that_others_use_too_is_left():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.again, self.last = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            x = x + self.norm(x)
            x = self.last(self.again(x))
            return torch.cat([x, self.last(x)], dim=1)

    module, x = Shared().eval(), torch.randn(2, 1, 8, 8)
    for norm in (module.norm, module.last):
        nn.init.normal_(norm.running_mean)
    assert batch_norms(fused(module)) == 2
    with torch.inference_mode():
        torch.testing.assert_close(fused(module)(x), module(x))


def test_the_copy_is_for_evaluation_and_keeps_its_layout(learned):
    copied = fused(learned(dropout=0.5).train())
    assert not any(module.training for module in copied.modules())
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    conv = next(module for module in copied.backbone.block2.modules() if isinstance(module, nn.Conv2d))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert copied.backbone(copied.normalise(IMAGES)).is_contiguous(memory_format=torch.channels_last)


def activated(module: nn.Module) -> int:
    return sum(isinstance(part, fusion._ActivatedConv2d) for part in module.modules())


@pytest.fixture
def both(learned, monkeypatch):
    """A copy whose convolutions do the activations, and one whose don't."""

    def make(backbone: str) -> tuple[nn.Module, nn.Module]:
        network = learned(backbone=backbone)
        with monkeypatch.context() as without:
            without.setattr(fusion, "fuses_activations", lambda: False)
            plain = fused(network)
        return fused(network), plain

    return make


@pytest.mark.skipif(not fuses_activations(), reason="neither Intel nor AMD")
@pytest.mark.parametrize(
    ("backbone", "count"),
    [
        ("custom_cnn", 3),
        ("mobilenet_v2", 35),
        ("vgg16", 13),
        ("resnet50", 1),  # a block has one activation, which it calls three times
    ],
)
def test_convolutions_do_the_activations_with_the_same_result(both, backbone, count):
    activating, plain = both(backbone)
    assert (activated(activating), activated(plain)) == (count, 0)
    with torch.inference_mode():
        features, expected = activating.features(IMAGES), plain.features(IMAGES)
    assert (features - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.skipif(not fuses_activations(), reason="neither Intel nor AMD")
def test_gradients_and_mixed_precision_go_through_the_activations_too(both):
    activating, plain = both("mobilenet_v2")
    gradients = []
    for network in (activating, plain):
        images = IMAGES.float().requires_grad_()
        network(images).sum().backward()
        gradients.append(images.grad)
    assert torch.equal(*gradients)
    assert gradients[0].abs().sum() > 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(activating(IMAGES), plain(IMAGES))


@pytest.mark.parametrize("name", ["backbone.block1.0.weight", "backbone.block1.1.running_var"])
def test_a_network_that_diverged_still_says_so(learned, name):
    network = learned()
    network.state_dict()[name].fill_(torch.nan)
    with torch.inference_mode():
        assert fused(network)(IMAGES).isnan().any()
