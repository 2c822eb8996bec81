import math

import pytest

from cxrnet.training.history import History, rank


def history_of(scores, phase="head") -> History:
    history = History(None)
    history.begin(phase)
    history.rows = [{"phase": phase, "epoch": i + 1, "val_loss": score} for i, score in enumerate(scores)]
    return history


@pytest.mark.parametrize(
    ("scores", "mode", "epoch"),
    [
        ([3.0, 1.0, 2.0], "min", 2),
        ([3.0, 1.0, 4.0], "max", 3),
        ([2.0, 1.0, 1.0], "min", 2),  # the earlier one of two equals, as the checkpoint has it
        ([math.nan, 3.0, 2.0], "min", 3),
        ([2.0, math.nan, 3.0], "max", 3),
        ([math.inf, math.nan, 5.0], "min", 3),
    ],
)
def test_the_best_epoch(scores, mode, epoch):
    assert history_of(scores).best(1, "val_loss", mode)["epoch"] == epoch


def test_the_best_epoch_of_a_later_phase():
    assert history_of([1.0, 5.0, 4.0]).best(2, "val_loss", "min")["epoch"] == 3


def test_no_number_is_worse_than_any_number():
    assert rank(math.nan, "min") > rank(1e30, "min")
    assert rank(math.nan, "max") > rank(-1e30, "max")


def test_a_phase_begins_where_the_last_one_ended():
    history = history_of([1.0, 2.0])
    assert history.begin("finetune") == 3
    assert list(history.table().columns) == ["phase", "epoch", "val_loss"]
