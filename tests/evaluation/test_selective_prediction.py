import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import Clusters, Resampling, clusters_of, wilson
from cxrnet.evaluation.decision import DecisionRule
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import classes_of, logits_of, make_predictions, probabilities_of
from cxrnet.evaluation.selective_prediction import (
    area_under_risk_coverage,
    certainty,
    choose_deferral_threshold,
    deferral_of,
    risk_coverage,
    risk_with_band,
)

CONFIDENCE = np.array([0.9, 0.6, 0.8, 0.7])
CORRECT = np.array([True, False, True, False])


def test_curve_of_a_small_case_by_hand() -> None:
    curve = risk_coverage(CONFIDENCE, CORRECT)
    assert curve["confidence"].tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve["n"].tolist() == [1, 2, 3, 4]
    assert curve["deferred"].tolist() == [0.75, 0.5, 0.25, 0]
    assert curve["error"].tolist() == [0, 0, pytest.approx(1 / 3), 0.5]
    assert area_under_risk_coverage(CONFIDENCE, CORRECT) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)


def test_equal_confidences_stay_together_and_their_area_is_the_mean_over_orders() -> None:
    rng = np.random.default_rng(0)
    confidence, correct = rng.choice([0.5, 0.7, 0.9], 12), rng.uniform(size=12) < 0.6
    assert risk_coverage(confidence, correct)["confidence"].tolist() == [0.9, 0.7, 0.5]
    areas = []
    for _ in range(4000):
        order = np.lexsort((rng.uniform(size=12), -confidence))
        areas.append(np.mean(np.cumsum(~correct[order]) / np.arange(1, 13)))
    assert area_under_risk_coverage(confidence, correct) == pytest.approx(np.mean(areas), abs=0.005)
    assert area_under_risk_coverage(np.full(12, 0.8), correct) == pytest.approx((~correct).mean())


def weighed(table, weights, points=None, threshold=None):
    rule = DecisionRule(points or {}, dict(zip(classes_of(table), weights, strict=True)), threshold)
    return make_predictions(table, classes_of(table), logits_of(table), rule)


def test_with_decision_weights_images_at_the_border_of_the_decision_are_deferred_whatever_class_is_predicted(
    make_table,
) -> None:
    table = make_table(400, classes=("Covid", "Normal"))
    made = weighed(table, (4.0, 1.0))
    odds = 4 * table["prob_Covid"] / table["prob_Normal"]
    certain, _ = certainty(made)
    np.testing.assert_allclose(certain, np.maximum(odds, 1) / (np.maximum(odds, 1) + np.minimum(odds, 1)), rtol=1e-6)
    marked = weighed(table, (4.0, 1.0), threshold=choose_deferral_threshold(made, 0.25))
    deferred = made[marked["deferred"]]
    assert len(deferred) == 100
    assert 0.2 < (deferred["predicted"] == "Covid").mean() < 0.8
    low, high = certain[marked["deferred"]].max(), certain[~marked["deferred"]].min()
    assert low < high
    # Certainty of the raw probability would have sent away one class alone.
    raw = probabilities_of(made).max(axis=1)[(made["predicted"] == "Normal").to_numpy(bool)]
    assert raw.min() > 0.79


def test_weights_of_several_classes_change_certainty_and_those_without_effect_do_not(make_table) -> None:
    table = make_table(100)
    alike, plain = weighed(table, (3.0, 3.0, 3.0)), certainty(table)[0]
    np.testing.assert_allclose(certainty(alike)[0], plain, rtol=1e-12)
    scores = probabilities_of(table) * [1.0, 5.0, 2.0]
    np.testing.assert_allclose(certainty(weighed(table, (1.0, 5.0, 2.0)))[0], scores.max(1) / scores.sum(1), rtol=1e-12)
    # Thresholds leave one class: the weights decide nothing, the probability is what there is.
    pointed = weighed(table, (1.0, 5.0, 2.0), {"Viral Pneumonia": 0.4, "Covid": 0.3})
    assert "certainty" not in pointed
    # Rows of a fold without weights, beside those of one with them.
    pooled = pd.concat([table, alike.assign(image_id=alike["image_id"] + "b")], ignore_index=True)
    np.testing.assert_allclose(certainty(pooled)[0], np.concatenate([plain, plain]), rtol=1e-12)


@pytest.mark.parametrize(("share", "deferred"), [(0.1, 6), (0.11, 6), (0.2, 12), (0.99, 59)])
def test_the_threshold_defers_the_least_certain_share(make_table, share, deferred) -> None:
    table = make_table(60)
    confidence, _ = certainty(table)
    below = confidence < choose_deferral_threshold(table, share)
    assert below.sum() == deferred
    assert confidence[below].max() < confidence[~below].min()


def test_images_of_equal_certainty_stay_together_and_no_more_than_the_share_is_deferred(make_table) -> None:
    table = make_table(10)
    logits = np.zeros((10, 3), np.float32)
    logits[:, 0] = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6]
    tied = make_predictions(table, classes_of(table), logits)
    confidence, _ = certainty(tied)
    assert (confidence < choose_deferral_threshold(tied, 0.4)).sum() == 3
    with pytest.raises(
        CxrnetError, match=r"^defer: 0\.2 of the 10 validation images is none \(3 are the least certain\)"
    ):
        choose_deferral_threshold(tied, 0.2)


def test_the_band_has_the_metrics_of_the_predictions_that_are_kept(make_table) -> None:
    table = make_table(60)
    threshold = choose_deferral_threshold(table, 0.25)
    marked = make_predictions(table, classes_of(table), logits_of(table), DecisionRule(defer_below=threshold))
    deferral = deferral_of(marked, evaluate)
    confidence, correct = certainty(table)
    assert (marked["deferred"] == (confidence < threshold)).all()
    assert deferral.deferred == {"value": 0.25, "n": 60, "interval": list(wilson(15, 60)), "method": "wilson"}
    assert deferral.kept["accuracy"]["n"] == 45
    assert deferral.kept["accuracy"]["value"] == pytest.approx(correct[confidence >= threshold].mean())
    assert deferral_of(marked.assign(deferred=True), evaluate).kept is None


def images(n: int, resamples: int = 200) -> Resampling:
    """Every image of another patient."""
    return Resampling(Clusters(np.arange(n), np.zeros(n, int), "image"), resamples, 0, 0.95)


def test_the_error_of_all_predictions_has_the_interval_of_the_accuracy(make_table) -> None:
    table = make_table()
    confidence, correct = certainty(table)
    resampling = Resampling(clusters_of(table), 200, 3, 0.9)
    band = risk_with_band(risk_coverage(confidence, correct), confidence, correct, resampling, [])
    low, high = evaluate(table, resamples=200, seed=3, level=0.9)["accuracy"]["interval"]
    assert band[["low", "high"]].iloc[-1].to_list() == pytest.approx([1 - high, 1 - low])
    known = band[band["low"].notna()]
    assert ((known["low"] <= known["error"]) & (known["error"] <= known["high"])).all()


def test_a_long_curve_has_intervals_at_every_hundredth_and_where_they_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=2000)
    correct = rng.uniform(size=2000) < confidence
    plain = risk_coverage(confidence, correct)
    band = risk_with_band(plain, confidence, correct, images(2000, 100), [0.1015])
    known = band[band["low"].notna()]
    assert known["deferred"].to_list() == pytest.approx(sorted([*np.arange(100) / 100, 0.1015], reverse=True))
    assert band[list(plain.columns)].equals(plain)
