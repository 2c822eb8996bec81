"""Attribution: maps of every kind of backbone, that point at what a network learned from."""

import sys

import numpy as np
import pytest
import torch

from cxrnet.errors import CxrnetError
from cxrnet.models.attribution import colours, grad_cam, occlusion, overlay, randomised
from cxrnet.models.fusion import fused

OWN = ("custom_cnn", "mobilenet_v2", "resnet50", "vgg16")
TIMM = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_mambaout", "test_byobnet")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)


@pytest.fixture
def learned(make_network):
    """A network that learned that a bright square is Covid, at a place of its own in every image; and such images."""
    random = np.random.default_rng(1)
    images, places = random.integers(0, 90, (48, 32, 32), np.uint8), random.integers(2, 22, (48, 2))
    labels = np.arange(48) % 2
    for image, (row, column), label in zip(images, places, labels, strict=True):
        if label == 0:
            image[row : row + 8, column : column + 8] = 255
    network = make_network(classes=("Covid", "Normal"), dropout=0.0).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(network(torch.from_numpy(images)[:, None]), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    return network.eval().requires_grad_(False), images, places


@pytest.mark.parametrize("explain", [grad_cam, occlusion])
def test_a_map_points_at_what_tells_the_class(learned, explain):
    network, images, places = learned
    maps = explain(network, images[::2], [0] * 24)
    highest = np.stack(np.unravel_index(maps.reshape(24, -1).argmax(axis=1), (32, 32)), axis=1)
    near = np.abs(highest - (places[::2] + 4)).max(axis=1) <= 8  # the map of Grad-CAM has 4 x 4 cells
    assert near.mean() > 0.75  # by chance a fourth


@pytest.mark.parametrize("name", [*OWN, *(f"timm/{name}" for name in TIMM)])
def test_every_backbone_has_maps(make_network, pictures, name):
    network = make_network(backbone=name, size=(64, 64), pool="own" if "/" in name else "average").eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    slow = name in ("resnet50", "vgg16")  # occlusion knows nothing of a backbone's layers
    for explain, some in ((grad_cam, pictures), (occlusion, pictures[: 0 if slow else 1])):
        if not len(some):
            continue
        maps = explain(network, some, [0] * len(some))
        assert maps.shape == some.shape
        assert maps.dtype == np.float32
        highest = maps.max(axis=(1, 2))
        assert set(highest.round(6)) <= {0.0, 1.0}  # empty, or as large as its maximum
        assert maps.min() >= 0
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert grad_cam(network, pictures, [0, 1, 2]).max() == 1


def test_a_map_has_the_height_and_width_of_the_tokens(make_network):
    """A transformer for images that are wider than high: the map is laid out as the picture is."""
    network = make_network(backbone="timm/test_vit", size=(64, 96), pool="own").eval()
    images = np.random.default_rng(2).integers(0, 256, (1, 64, 96), np.uint8)
    assert grad_cam(network, images, [0]).shape == (1, 64, 96)


def test_channels_that_stand_last_are_found(make_network):
    network = make_network(backbone="timm/swin_tiny_patch4_window7_224", size=(64, 64), pool="own").eval()
    maps = grad_cam(network, np.random.default_rng(2).integers(0, 256, (1, 64, 64), np.uint8), [0])
    assert maps.shape == (1, 64, 64)
    assert len(np.unique(maps)) > 4  # a map of 2 x 2, made larger


def test_a_fused_network_has_the_same_map(learned):
    network, images, _ = learned
    quick = fused(network)
    with torch.inference_mode():
        of_fused = grad_cam(quick, images[:4], [0] * 4)
    np.testing.assert_allclose(of_fused, grad_cam(network, images[:4], [0] * 4), atol=1e-3)


def test_one_sigmoid_has_a_map_of_either_class(make_network, pictures):
    network = make_network(classes=("a", "b"), output="sigmoid", size=(64, 64)).eval()
    first, second = (grad_cam(network, pictures, [index] * 3) for index in (0, 1))
    assert (first.any(axis=(1, 2)) | second.any(axis=(1, 2))).all()  # what speaks for one speaks against the other
    assert not (first * second).any()


def test_a_random_network_is_another_one_and_the_same_each_time(make_network):
    network = make_network().eval()
    state = torch.random.get_rng_state()
    one, same, other = (randomised(network, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [each.head[-1].weight for each in (network, one, same, other)]
    assert torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[3])


def test_a_picture_stays_where_the_map_is_nothing(pictures):
    heat = np.zeros((64, 64), np.float32)
    heat[:, 32:] = 1
    drawn = np.asarray(overlay(pictures[0], heat))
    assert (drawn[:, :32] == pictures[0][:, :32, None]).all()
    assert not (drawn[:, 32:] == pictures[0][:, 32:, None]).all()
    assert colours(np.array([0.0, 1.0])).shape == (2, 3)


def test_what_is_not_installed_is_named(make_network, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(CxrnetError, match=r"pip install 'cxrnet\[audit\]'"):
        grad_cam(make_network(size=(64, 64)).eval(), pictures, [0, 0, 0])
