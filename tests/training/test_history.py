import math

import pytest

from cxrnet.training.history import History, metrics_of, rank


def history_of(scores, phase="head") -> History:
    history = History()
    for score in scores:
        history.add(phase, {"val/loss": score})
    return history


@pytest.mark.parametrize(
    ("scores", "mode", "epoch"),
    [
        ([3.0, 1.0, 2.0], "min", 2),
        ([3.0, 1.0, 4.0], "max", 3),
        ([2.0, 1.0, 1.0], "min", 2),  # the earlier one of two equals
        ([math.nan, 3.0, 2.0], "min", 3),
        ([2.0, math.nan, 3.0], "max", 3),
        ([math.inf, math.nan, 5.0], "min", 3),
    ],
)
def test_the_best_epoch(scores, mode, epoch):
    assert history_of(scores).best("head", "val/loss", mode)["epoch"] == epoch


def test_no_number_is_worse_than_any_number():
    assert rank(math.nan, "min") > rank(1e30, "min")
    assert rank(math.nan, "max") > rank(-1e30, "max")


def test_a_phase_begins_where_the_last_one_ended():
    history = history_of([1.0, 2.0])
    row = history.add("finetune", {"val/loss": 4.0, "train/lr": 0.1})
    assert row == {"phase": "finetune", "epoch": 3, "val/loss": 4.0, "train/lr": 0.1}
    history.add("finetune", {"val/loss": 3.0, "train/lr": 0.1})
    assert [row["epoch"] for row in history.of("finetune")] == [3, 4]
    assert history.best("finetune", "val/loss", "min")["epoch"] == 4
    assert list(history.table().columns) == ["phase", "epoch", "val/loss", "train/lr"]


def test_a_history_goes_on_and_leaves_what_it_was_given():
    rows = history_of([1.0, 2.0]).rows
    assert History(rows).add("head", {"val/loss": 3.0})["epoch"] == 3
    assert len(rows) == 2


def test_metrics_of_an_epoch():
    metrics = {"val/loss": 1.0, "train/lr": 0.1}
    assert metrics_of({"phase": "head", "epoch": 2, **metrics}) == metrics
