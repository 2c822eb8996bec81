"""What every contender measures when it trains a small network for a moment."""

import pytest
import torch

from cxrnet.benchmarking.contenders import ceiling, own, plain, timm_recipe
from cxrnet.benchmarking.contenders.start import starting_network
from cxrnet.benchmarking.overrides import train_overrides

TASK = {"backbone": "mobilenet_v2", "size": [32, 32], "batch_size": 8, "device": "cpu"}
LOOP = {**TASK, "augment": True, "epochs": 2, "steps": None, "lr": 1e-3, "seed": 0}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    torch.set_num_threads(1)
    for module in (plain, timm_recipe):
        monkeypatch.setattr(module, "WORKERS", 0)  # starting them takes longer than the work


@pytest.mark.parametrize("trainable", ["head", {"last": 10}])
def test_the_plain_loop(images, trainable):
    numbers = plain.train(str(images), weights="none", trainable=trainable, bf16=False, channels_last=False, **LOOP)
    assert 0 < numbers["seconds"] < 60
    assert 0 <= numbers["val_accuracy"] <= 1
    assert min(numbers["images_per_second"], numbers["memory_mb"]) > 0


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50", pytest.param("vgg16", marks=pytest.mark.slow)])
def test_the_plain_network_is_that_of_cxrnet(backbone):
    like = starting_network(backbone, "none", {"last": 5}, [32, 32], classes=3).eval()
    network = plain.torchvision_network(backbone, "none", {"last": 5}, [32, 32], classes=3).eval()
    sizes = [sum(p.numel() for p in n.parameters() if p.requires_grad) for n in (like, network)]
    assert sizes[0] == sizes[1]
    network.load_state_dict(like.backbone.state_dict(), strict=False)
    head = network.fc if backbone == "resnet50" else network.classifier[-1]
    head.load_state_dict(like.head[-1].state_dict())
    grey = torch.randint(256, (1, 1, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(network(like.normalise(grey)), like(grey), rtol=1e-4, atol=1e-5)


def test_timms_parts(images):
    numbers = timm_recipe.train(str(images), trainable="head", bf16=False, channels_last=True, **LOOP)
    assert min(numbers["seconds"], numbers["images_per_second"]) > 0


@pytest.mark.parametrize("bf16", [False, True])
def test_the_ceiling(bf16):
    task = {**TASK, "batch_size": 2, "steps": 1, "bf16": bf16, "channels_last": True}
    for numbers in (
        ceiling.train(trainable="all", compiled=False, **task),
        ceiling.train_timm(compiled=False, **task),
        ceiling.predict(fold=True, **task),
    ):
        assert numbers["images_per_second"] > 0


def test_cxrnet_itself_from_a_cold_and_a_warm_cache(images, make_plan, tmp_path):
    phase = {"trainable": "head", "epochs": 3, "lr": 1e-3}
    overrides = train_overrides(
        make_plan(), images, "mobilenet_v2", "none", phase, views=1, augment=False, bf16=False, cache=tmp_path / "cache"
    )
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "left from before").touch()
    cold, warm = (own.train(overrides, fresh=fresh) for fresh in (True, False))
    assert not (tmp_path / "cache" / "left from before").exists()
    assert cold["images"] == 18
    assert cold["val_loss"] == pytest.approx(warm["val_loss"], abs=1e-5)
    for numbers in (cold, warm):
        assert 0 < numbers["first_batch_seconds"] < numbers["seconds"]
        assert 0 <= numbers["waiting_share"] < 1


def test_steps_limit_an_epoch(images, make_plan, tmp_path):
    phase = {"trainable": "all", "epochs": 2, "lr": 1e-3}
    overrides = train_overrides(
        make_plan(), images, "mobilenet_v2", "none", phase,
        views=1, augment=True, bf16=False, cache=tmp_path / "cache", steps=1,
    )  # fmt: skip
    assert own.train(overrides, fresh=True)["images_per_second"] > 0
