import pytest

from cxrnet.errors import CxrnetError
from cxrnet.training.schedule import Phase, Schedule

SCRATCH = Phase("scratch", "all", 1, 1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "phase 'head': 0 epochs; give at least one"),
        ({"epochs": -1}, "phase 'head': -1 epochs"),
        ({"epochs": 1.5}, "phase 'head': 1.5 epochs"),
        ({"patience": 0}, "phase 'head': patience 0"),
        ({"name": "a/b"}, "phase 'a/b': the name becomes a folder"),
    ],
)
def test_a_phase_that_cannot_be_trained(changes, message):
    with pytest.raises(CxrnetError, match=message):
        Phase(**{"name": "head", "trainable": "head", "epochs": 1, "lr": 1e-3, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scratch": None}, "schedule.scratch: there is none"),
        ({"views": -1}, "schedule.views: -1"),
        ({"max_epochs": 0}, "schedule.max_epochs: 0"),
    ],
)
def test_what_is_no_schedule(changes, message):
    settings = {"phases": (SCRATCH,), "scratch": SCRATCH, "monitor": "val_loss", "mode": "min", "views": 1}
    with pytest.raises(CxrnetError, match=message):
        Schedule(**{**settings, **changes})
