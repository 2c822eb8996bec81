import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import (
    brier_decomposition,
    error_by_chance,
    error_of_table,
    reliability_table,
    top_label,
)
from cxrnet.evaluation.metrics import label_codes
from cxrnet.evaluation.predictions import classes_of, probabilities_of
from cxrnet.reporting.sentences import calibration_text


def outcomes(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(size=n)
    return confidence, rng.uniform(size=n) < confidence**2


@pytest.mark.parametrize(("kind", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_bins_are_those_of_scikit_learn(kind, strategy, bins) -> None:
    confidence, correct = outcomes(bins)
    table = reliability_table(confidence, correct, bins, kind)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=bins, strategy=strategy)
    np.testing.assert_allclose(table["accuracy"], accuracy, atol=1e-12)
    np.testing.assert_allclose(table["confidence"], mean, atol=1e-12)
    assert table["n"].sum() == 300
    error = error_of_table(reliability_table(confidence, correct, bins, kind))
    assert error == pytest.approx(np.sum(table["n"] / 300 * np.abs(accuracy - mean)), abs=1e-12)


def test_equal_mass_divides_the_images_and_keeps_equals_together() -> None:
    confidence, correct = outcomes(0, n=100)
    assert reliability_table(confidence, correct, 10, "equal_mass")["n"].tolist() == [10] * 10
    tied, right = np.array([0.9] * 8 + [0.3, 0.4]), np.array([True] * 6 + [False] * 4)
    table = reliability_table(tied, right, 5, "equal_mass")
    assert table["n"].tolist() == [2, 8]
    order = np.random.default_rng(0).permutation(10)
    pd.testing.assert_frame_equal(reliability_table(tied[order], right[order], 5, "equal_mass"), table)


def test_error_of_a_small_case_by_hand() -> None:
    # (0.4, 0.6]: two at 0.6, one right: 0.1 apart; (0.8, 1]: two at 0.9 and 1.0, both right: 0.05 apart.
    confidence, correct = np.array([0.6, 0.6, 0.9, 1.0]), np.array([True, False, True, True])
    assert error_of_table(reliability_table(confidence, correct, 5, "equal_width")) == pytest.approx(0.075)
    assert reliability_table(confidence, correct, 5, "equal_width")["high"].tolist() == pytest.approx([0.6, 1])


def test_top_label_is_the_most_probable_class(make_table) -> None:
    table = make_table()
    confidence, correct = top_label(probabilities_of(table), label_codes(table))
    assert (correct == (table["label"] == table["predicted"])).all()
    assert (confidence == table.filter(like="prob_").max(axis=1)).all()


@pytest.mark.parametrize("classes", [("Normal", "Covid"), ("Viral Pneumonia", "Covid", "Normal")])
def test_brier_score_is_the_sum_of_those_of_scikit_learn(make_table, classes) -> None:
    table = make_table(classes=classes)
    probabilities, codes = probabilities_of(table), label_codes(table)
    each = [brier_score_loss(codes == index, probabilities[:, index]) for index in range(len(classes))]
    parts = brier_decomposition(probabilities, codes, classes, 10, "equal_width")
    assert parts["class"].tolist() == [*classes, "all"]
    np.testing.assert_allclose(parts["brier"], [*each, sum(each)], atol=1e-12)


@pytest.mark.parametrize("kind", ["equal_width", "equal_mass"])
def test_parts_of_the_brier_score_make_up_the_whole(make_table, kind) -> None:
    table = make_table(n=200)
    parts = brier_decomposition(probabilities_of(table), label_codes(table), classes_of(table), 10, kind)
    total = parts["reliability"] - parts["resolution"] + parts["uncertainty"] + parts["within_bins"]
    np.testing.assert_allclose(parts["brier"], total, atol=1e-12)
    assert (parts[["reliability", "resolution", "uncertainty"]] >= 0).all(axis=None)


def test_decomposition_of_a_small_case_by_hand() -> None:
    # Five forecasts of 0.2 with one event, five of 0.8 with three: base rate 0.4.
    probability = np.repeat([0.2, 0.8], 5)
    codes = np.array([1, 0, 0, 0, 0, 1, 1, 1, 0, 0])
    parts = brier_decomposition(
        np.stack([1 - probability, probability], axis=1), codes, ("no", "yes"), 10, "equal_width"
    )
    expected = {"brier": 0.22, "reliability": 0.02, "resolution": 0.04, "uncertainty": 0.24, "within_bins": 0.0}
    assert parts[parts["class"] == "yes"].iloc[0][list(expected)].to_dict() == pytest.approx(expected)
    assert parts.iloc[2]["brier"] == pytest.approx(0.44)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": 0}, "calibration.bins: 0 is no number of bins"),
        ({"bins": 2.5}, "calibration.bins: 2.5 is no number of bins"),
        ({"kind": "even"}, "calibration.kind: 'even' is unknown; give equal_width or equal_mass"),
        ({"confidence": np.array([]), "correct": np.array([], bool)}, "calibration: no images"),
    ],
)
def test_what_makes_no_table_is_refused(change, message) -> None:
    good = {"confidence": np.array([0.5]), "correct": np.array([True]), "bins": 10, "kind": "equal_width"}
    with pytest.raises(CxrnetError, match=message):
        reliability_table(**{**good, **change})


@pytest.mark.parametrize("kind", ["equal_width", "equal_mass"])
def test_the_ece_by_chance_is_what_calibrated_images_show(kind) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1.0, size=32)
    shown = [
        error_of_table(reliability_table(confidence, rng.uniform(size=32) < confidence, 15, kind)) for _ in range(2000)
    ]
    expected = error_by_chance(reliability_table(confidence, confidence > 0, 15, kind))
    assert expected == pytest.approx(np.mean(shown), abs=0.005)
    assert expected > 0.1  # on so few images perfect calibration doesn't look like it


def test_certain_images_leave_nothing_to_chance() -> None:
    assert error_by_chance(reliability_table(np.ones(20), np.ones(20, bool), 15, "equal_width")) == 0


def test_the_text_says_what_of_an_ece_is_chance() -> None:
    confidence, correct = outcomes(0, n=40)
    (said,) = calibration_text(confidence, correct, 15)
    chance = error_by_chance(reliability_table(confidence, correct, 15, "equal_mass"))
    assert "on 40 images as certain as these about" in said
    assert f"and {chance:.3f} in 15 bins of equally many images" in said
