import math

import pytest
import torch
from torch.optim import SGD

from cxrnet.errors import CxrnetError
from cxrnet.training.trainer import lr_schedule


def rates(spec, epochs: int, metrics=None, lr: float = 0.1, mode: str = "min") -> list[float]:
    """The rate of each epoch."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    made = lr_schedule(optimizer, spec, epochs, "val/loss", mode)
    found = []
    for epoch in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made["scheduler"].step(*([metrics[epoch]] if metrics else []))
    assert made["interval"] == "epoch"
    return found


def test_cosine_by_its_formula():
    expected = [0.1 * (1 + math.cos(math.pi * epoch / 6)) / 2 for epoch in range(6)]
    assert rates({"name": "cosine", "warmup_epochs": 0}, 6) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step()`")
def test_cosine_after_a_linear_rise():
    # A third and two thirds of the rate, then the cosine over what is left.
    expected = [0.1 / 3, 0.2 / 3, *(0.1 * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5))]
    assert rates({"name": "cosine", "warmup_epochs": 2}, 7) == pytest.approx(expected)


def test_plateau_halves_the_rate_after_its_patience():
    spec = {"name": "plateau", "factor": 0.5, "patience": 1}
    assert rates(spec, 6, [3.0, 2.0, 2.0, 2.0, 1.0, 1.0]) == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    assert rates(spec, 4, [0.5, 0.6, 0.7, 0.8], mode="max") == pytest.approx([0.1] * 4)
    assert rates(spec, 5, [0.8, 0.7, 0.6, 0.5, 0.4], mode="max") == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "step"},
        {"name": "cosine"},
        {"name": "cosine", "warmup_epochs": 5},
        {"name": "cosine", "warmup_epochs": -1},
        {"name": "cosine", "warmup_epochs": 1, "factor": 0.5},
        {"name": "plateau", "factor": 0.5},
        {"name": "plateau", "factor": "half", "patience": 2},
        {},
    ],
)
def test_bad_specifications(spec):
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(
        CxrnetError, match=r"phase: lr_schedule: .* use {name: plateau, factor: 0.5, patience: 2} or .*5"
    ):
        lr_schedule(optimizer, spec, 5, "val/loss", "min")
