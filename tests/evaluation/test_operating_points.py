import numpy as np
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.operating_points import check_operating_points, decide

CLASSES = ("COVID", "Normal", "Pneumonia")


def predict(probabilities: list[float], points: dict[str, float]) -> str:
    return CLASSES[decide(np.array([probabilities]), CLASSES, points)[0]]


def test_without_a_threshold_the_largest_probability_decides() -> None:
    table = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    assert decide(table, CLASSES, {}).tolist() == [1, 0, 2]


def test_a_class_is_predicted_when_its_probability_reaches_its_threshold() -> None:
    assert predict([0.2, 0.5, 0.3], {"COVID": 0.2}) == "COVID"
    assert predict([0.19, 0.51, 0.3], {"COVID": 0.2}) == "Normal"


def test_below_its_threshold_even_the_most_probable_class_is_not_predicted() -> None:
    assert predict([0.69, 0.11, 0.2], {"COVID": 0.7}) == "Pneumonia"


def test_of_two_thresholds_that_are_reached_the_first_one_counts() -> None:
    assert predict([0.3, 0.3, 0.4], {"Normal": 0.3, "COVID": 0.3}) == "Normal"
    assert predict([0.3, 0.3, 0.4], {"COVID": 0.3, "Normal": 0.3}) == "COVID"


def test_the_detectors_rule_of_two_classes() -> None:
    classes, points = ("normal", "covid"), {"covid": 0.7}
    assert decide(np.array([[0.31, 0.69], [0.3, 0.7]]), classes, points).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"covid": 0.5}, "'covid' is no class; the classes are COVID, Normal, Pneumonia"),
        ({"COVID": 0}, "operating_points.COVID: 0 is no threshold"),
        ({"COVID": 1.2}, "operating_points.COVID: 1.2 is no threshold"),
        ({"COVID": float("nan")}, "operating_points.COVID: nan is no threshold"),
        ({"COVID": "high"}, "operating_points.COVID: high is no threshold"),
        ({"COVID": True}, "operating_points.COVID: True is no threshold"),
        (dict.fromkeys(CLASSES, 0.3), "every class has a threshold"),
    ],
)
def test_what_is_no_operating_point_is_refused(points: dict[str, float], message: str) -> None:
    with pytest.raises(CxrnetError, match=message):
        check_operating_points(points, CLASSES)


def test_good_ones_come_back_as_plain_numbers() -> None:
    assert check_operating_points({"COVID": 1}, CLASSES) == {"COVID": 1.0}
    assert check_operating_points(None, CLASSES) == {}
