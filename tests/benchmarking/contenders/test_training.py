"""What every contender measures when it trains a small network for a moment."""

import time
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

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


@pytest.fixture
def optimizer_steps() -> Iterator[list[int]]:
    """Holds how often any optimizer has taken a step."""
    count = [0]

    def step(*_args: object) -> None:
        count[0] += 1

    hook = register_optimizer_step_post_hook(step)
    yield count
    hook.remove()


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


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50"])
def test_timms_network_has_a_head_for_the_classes(backbone):
    network = timm_recipe.timm_network(backbone, classes=3).eval()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_all_do_the_same_steps(images, make_plan, tmp_path, optimizer_steps, trainable):
    loop = {**LOOP, "steps": 2, "trainable": trainable, "bf16": False, "channels_last": False}
    phase = {"trainable": trainable, "epochs": 2, "lr": 1e-3}
    overrides = train_overrides(
        make_plan(), images, "mobilenet_v2", "none", phase,
        views=0, augment=True, bf16=False, cache=tmp_path / "cache", steps=2,
    )  # fmt: skip
    for train in (
        partial(plain.train, root=str(images), weights="none", **loop),
        partial(timm_recipe.train, root=str(images), **loop),
        partial(own.train, overrides, fresh=True),
    ):
        numbers = train()
        assert numbers["images"] == 2 * 8  # of an epoch
        assert optimizer_steps == [2 * 2]
        assert 0 <= numbers["val_accuracy"] <= 1
        optimizer_steps[0] = 0


def test_all_images_are_seen_where_no_steps_are_given(images):
    numbers = plain.train(root=str(images), weights="none", trainable="head", bf16=False, channels_last=True, **LOOP)
    assert numbers["images"] == 18


@pytest.mark.parametrize("bf16", [False, True])
def test_the_ceiling_trains_after_a_warm_up(bf16, optimizer_steps):
    task = {**TASK, "batch_size": 2, "steps": 2, "bf16": bf16, "channels_last": True}
    for measure in (partial(ceiling.train, compiled=False), ceiling.train_timm):
        assert measure(**task)["images"] == 2 * 2
        assert optimizer_steps == [ceiling.WARM_UP + 2]
        optimizer_steps[0] = 0
    for fold in (False, True):
        assert ceiling.predict(fold=fold, **task)["images"] == 2 * 2
    assert optimizer_steps == [0]


def test_bf16_arithmetic_moves_logits_where_the_processor_has_it_and_never_far():
    before = torch.backends.mkldnn.conv.fp32_precision
    try:
        numbers = ceiling.train_in_bf16_arithmetic(**TASK, steps=1, bf16=False, channels_last=True)
        assert 0 <= numbers["logits_moved"] < 0.5
        assert torch.backends.mkldnn.conv.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before


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
        assert abs(numbers["warm_up_seconds"]) < numbers["seconds"]


def test_the_clock_of_cxrnet_tells_steps_from_waiting_and_leaves_out_the_first_epoch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock, module = own._Clock(), SimpleNamespace(device=torch.device("cpu"))
    for waiting, step, validation in ((5.0, 50.0, 500.0), (1.0, 3.0, 7.0), (1.0, 3.0, 7.0)):
        clock.on_train_epoch_start(None, module)
        for last in (False, True):
            now[0] += waiting
            clock.on_train_batch_start(None, module, {"label": [0] * 6}, 0)
            now[0] += step
            clock.on_train_batch_end(SimpleNamespace(is_last_batch=last))
        now[0] += validation
    clock.on_train_end(None, module)
    assert clock.first_batch == 5.0
    assert clock.watch.seconds == [110.0, 8.0, 8.0]
    assert clock.watch.rate == 12 / 8
    assert clock.waiting_share == 2 / 8
    assert clock.warm_up == 610 - 15


def test_without_a_later_epoch_no_warm_up_can_be_told(images, make_plan, tmp_path):
    phase = {"trainable": "head", "epochs": 1, "lr": 1e-3}
    overrides = train_overrides(
        make_plan(), images, "mobilenet_v2", "none", phase, views=0, augment=False, bf16=False, cache=tmp_path / "cache"
    )
    assert own.train(overrides, fresh=True)["warm_up_seconds"] is None
