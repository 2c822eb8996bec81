import dataclasses
import math

import pytest
from omegaconf import OmegaConf

from cxrnet.errors import CxrnetError
from cxrnet.training.schedule import Phase, Schedule, check_finetune, enabled_phases

SCRATCH = Phase("scratch", "all", 1, 1e-3)
HEAD = Phase("head", "head", 1, 1e-3)
ALL = Phase("all", "all", 1, 1e-4)


def schedule(*phases: Phase, **changes) -> Schedule:
    settings = {"scratch": SCRATCH, "monitor": "val/loss", "views": 1, "features_gb": 0, "best_from": 100}
    return Schedule(phases, **{**settings, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "phase 'head': epochs: 0"),
        ({"patience": 0}, "phase 'head': patience: 0"),
        ({"decay": -1}, "phase 'head': decay: -1"),
        ({"name": "a/b"}, "phase 'a/b': the name becomes a folder"),
    ],
)
def test_a_phase_that_cannot_be_trained(changes, message):
    with pytest.raises(CxrnetError, match=message):
        Phase(**{"name": "head", "trainable": "head", "epochs": 1, "lr": 1e-3, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scratch": None}, "schedule.scratch: there is none; .* instead of 'head'"),
        ({"views": -1}, "schedule.views: -1"),
        ({"features_gb": math.nan}, "schedule.features_gb: nan"),
        ({"best_from": -1}, "schedule.best_from: -1"),
        ({"max_epochs": 0}, "schedule.max_epochs: 0"),
    ],
)
def test_what_is_no_schedule(changes, message):
    with pytest.raises(CxrnetError, match=message):
        schedule(HEAD, ALL, **changes)


def test_the_head_comes_first():
    assert enabled_phases(schedule(ALL, head=HEAD), pretrained=True) == (HEAD, ALL)
    assert enabled_phases(schedule(ALL, head=HEAD), pretrained=False) == (SCRATCH, ALL)


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val/loss", "min"), ("train/loss", "min"), ("val/accuracy", "max"), ("val/sensitivity/loss of volume", "max")],
)
def test_the_direction_belongs_to_the_metric(monitor, mode):
    assert schedule(HEAD, monitor=monitor).mode == mode


@pytest.mark.parametrize(
    ("keep", "validation", "last"), [("last", 1000, True), ("best", 100, False), ("best", 99, True)]
)
def test_few_validation_images_choose_no_epoch(keep, validation, last):
    assert schedule(HEAD).keeps_last(dataclasses.replace(HEAD, keep=keep), validation) is last


def unfrozen(*phases: Phase, **changes) -> list[str]:
    """Names of the phases that random weights go through."""
    found = enabled_phases(schedule(*phases, **changes), pretrained=False)
    assert all(phase.trainable == "all" for phase in found)
    return [phase.name for phase in found]


def test_random_weights_need_no_scratch_where_no_phase_trains_the_head_alone():
    assert unfrozen(ALL, scratch=None) == unfrozen(ALL) == ["all"]


def test_random_weights_skip_the_stations_on_the_way_to_the_last_phase():
    stages = [Phase(f"stage{n}", {"from": f"layer{n}"}, 1, 1e-4) for n in (4, 3)]
    assert unfrozen(HEAD, *stages, ALL) == ["scratch", "all"]
    assert unfrozen(HEAD, *stages) == ["scratch", "stage3"]
    assert unfrozen(HEAD) == ["scratch"]
    assert unfrozen(stages[0], scratch=None) == ["stage4"]


def test_random_weights_skip_no_phase_that_trains_everything():
    slow = dataclasses.replace(ALL, name="slow", lr=1e-5)
    assert unfrozen(ALL, slow, scratch=None) == ["all", "slow"]


def config(enabled) -> OmegaConf:
    return OmegaConf.create({"finetune": None, "schedule": {"phases": [{"name": "x", "enabled": enabled}]}})


@pytest.mark.parametrize("finetune", [None, True, False])
def test_finetune_where_a_phase_waits_for_it(finetune):
    check_finetune(finetune, config("${finetune}").schedule)


def test_finetune_where_no_phase_waits_for_it():
    check_finetune(None, config(True).schedule)
    with pytest.raises(
        CxrnetError, match=r"finetune=true: no phase of this schedule is 'enabled: \${finetune}'; leave"
    ):
        check_finetune(True, config(True).schedule)
    with pytest.raises(CxrnetError, match=r"^finetune=false: no phase .* or take schedule=transfer$"):
        check_finetune(False, config(True).schedule)
