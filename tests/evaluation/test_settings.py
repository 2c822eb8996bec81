import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import Calibration, DecisionCurve, DeferralSettings, Evaluation


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        (Evaluation, "resamples", 3),
        (Evaluation, "level", 95),
        (Evaluation, "prevalences", (20,)),
        (Evaluation, "missed", 0),
        (Evaluation, "fewest", -1),
        (Calibration, "bins", 0),
        (DecisionCurve, "thresholds", (0.5, 0.1)),
        (DecisionCurve, "prevalence", 1),
        (DeferralSettings, "shares", (0.1, 1.0)),
    ],
)
def test_a_setting_out_of_range_is_named_in_one_line(settings, key, value):
    with pytest.raises(CxrnetError, match=rf"^evaluation\.(\w+\.)?{key}: .* is out of range; give ") as error:
        settings(**{key: value})
    assert "\n" not in str(error.value)


def test_what_is_off_will_do():
    Evaluation(resamples=0, fewest=0, prevalences=(), decision_curve=DecisionCurve(prevalence=None))
