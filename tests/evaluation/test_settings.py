import copy

import pytest
from omegaconf import OmegaConf

from cxrnet.cli.app import config_folder
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import check_settings


@pytest.fixture
def standard():
    return OmegaConf.to_container(OmegaConf.load(config_folder() / "evaluation" / "standard.yaml")) | {"seed": 0}


def test_the_settings_as_they_come_will_do_and_so_will_what_is_off(standard, settings):
    check_settings(standard)
    check_settings(settings)
    standard["decision_curve"]["prevalence"] = None
    check_settings(standard | {"resamples": 0, "fewest": 0, "seed": 7})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("resamples", None, "None won't do; give a whole number from 100 on, or 0 for no intervals"),
        ("resamples", 3, "3 won't do; give a whole number from 100 on, or 0"),
        ("resamples", 2000.0, "2000.0 won't do"),
        ("level", 95, "95 won't do; give a number between 0 and 1, as 0.95"),
        ("level", "high", "high won't do"),
        ("seed", -1, "-1 won't do; give a whole number from 0 on"),
        ("calibration", None, "is not there"),
        ("calibration.bins", 0, "0 won't do; give a whole number from 1 on"),
        ("calibration.bins", True, "True won't do"),
        ("calibration.kind", "equal", "equal won't do; give equal_width or equal_mass"),
        ("prevalences", 0.05, "0.05 won't do; give a list of numbers between 0 and 1"),
        ("prevalences", [20], r"\[20\] won't do"),
        ("missed", 0, "0 won't do; give a number between 0 and 1, as 0.01"),
        ("decision_curve.thresholds", [0.5], r"\[0.5\] won't do; give two numbers from 0 on"),
        ("decision_curve.thresholds", [0.5, 0.1], r"\[0.5, 0.1\] won't do"),
        ("decision_curve.thresholds", ["a", "b"], r"\['a', 'b'\] won't do"),
        ("decision_curve.prevalence", 1, "1 won't do; give a number between 0 and 1, or null"),
        ("referral.shares", ["a"], r"\['a'\] won't do; give a list of numbers between 0 and 1"),
        ("referral.shares", None, "None won't do"),
        ("fewest", 2.5, "2.5 won't do; give a whole number from 0 on"),
    ],
)
def test_a_setting_that_wont_do_is_named_in_one_line(standard, key, value, message):
    changed = copy.deepcopy(standard)
    *folders, last = key.split(".")
    inner = changed[folders[0]] if folders else changed
    inner[last] = value
    with pytest.raises(CxrnetError, match=rf"^evaluation\.{key}.*: {message}") as error:
        check_settings(changed)
    assert "\n" not in str(error.value)


def test_a_setting_that_was_deleted_is_missed(standard):
    del standard["level"]
    with pytest.raises(CxrnetError, match=r"evaluation\.level: is not there; give a number between 0 and 1"):
        check_settings(standard)
