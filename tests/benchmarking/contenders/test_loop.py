"""The loop that the plain contender and timm's share, on a set that a small network learns in moments."""

import pytest
import torch
from torch import nn

from cxrnet.benchmarking.contenders import instruments
from cxrnet.benchmarking.contenders.loop import Parts, Training, fit, run

TASK = {
    "root": "", "backbone": "", "trainable": "all", "size": [8, 8], "batch_size": 6, "augment": False, "epochs": 8,
    "steps": None, "lr": 0.05, "bf16": False, "channels_last": True, "seed": 0, "device": "cpu",
}  # fmt: skip


class Batches:
    """Images whose brightness is their class; drawing one lets a clock run on, by epoch."""

    def __init__(self, count: int, clock: list[float] | None = None, *takes: float) -> None:
        self.count, self.clock, self.takes = count, clock, list(takes)
        self.drawn: list[torch.Tensor] = []

    def __iter__(self):
        takes = self.takes.pop(0) if len(self.takes) > 1 else sum(self.takes)
        for _ in range(self.count):
            if self.clock is not None:
                self.clock[0] += takes
            labels = torch.arange(6) % 3
            self.drawn.append(labels)
            yield torch.rand(6, 3, 8, 8) * 0.1 + labels.view(-1, 1, 1, 1).float(), labels


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=0.05)


@pytest.mark.parametrize("bf16", [False, True])
def test_it_learns_and_leaves_alone_what_is_frozen(bf16):
    network = small_network()
    network[0].requires_grad_(False)
    before = [p.clone() for p in network.parameters()]
    parts = Parts(network, Batches(4), Batches(1), adam)
    numbers = run(Training(**{**TASK, "bf16": bf16}), lambda _: parts)
    assert numbers["val_accuracy"] == 1.0
    assert numbers["images"] == 24
    same = [torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True)]
    assert same == [True, True, False, False]


def test_the_rate_leaves_out_validation_and_the_first_epoch(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(instruments.time, "perf_counter", lambda: clock[0])
    train, val = Batches(5, clock, 9.0, 2.0), Batches(5, clock, 100.0)
    network = small_network()
    watch, _ = fit(network, train, val, adam(network), Training(**{**TASK, "epochs": 3, "steps": 2}))
    assert watch.seconds == [18.0, 4.0, 4.0]
    assert watch.rate == 12 / 4
    assert (len(train.drawn), len(val.drawn)) == (3 * 2, 3 * 1)  # with a limit one validation batch is enough
