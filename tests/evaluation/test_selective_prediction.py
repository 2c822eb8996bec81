import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.operating_points import DecisionRule
from cxrnet.evaluation.predictions import classes_of, logits_of, make_predictions, probabilities_of
from cxrnet.evaluation.selective_prediction import (
    area_under_risk_coverage,
    band_of,
    certainty,
    choose_cutoff,
    risk_coverage,
)
from cxrnet.reporting.sentences import referral_text

CONFIDENCE = np.array([0.9, 0.6, 0.8, 0.7])
CORRECT = np.array([True, False, True, False])

CURVE = risk_coverage(CONFIDENCE, CORRECT).assign(low=[0, 0, 0.1, 0.15], high=[0.8, 0.65, 0.8, 0.85])


def test_curve_of_a_small_case_by_hand() -> None:
    curve = risk_coverage(CONFIDENCE, CORRECT)
    assert curve["confidence"].tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve["n"].tolist() == [1, 2, 3, 4]
    assert curve["referred"].tolist() == [0.75, 0.5, 0.25, 0]
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


def test_certainty_is_that_of_the_call(make_table) -> None:
    table = make_table()
    confidence, correct = certainty(table)
    assert (confidence == table.filter(like="prob_").max(axis=1)).all()
    assert (correct == (table["label"] == table["predicted"])).all()
    pointed = make_predictions(table, classes_of(table), logits_of(table), DecisionRule({"Covid": 0.01}))
    confidence, _ = certainty(pointed)
    covid = (pointed["predicted"] == "Covid").to_numpy(bool)
    assert (confidence[covid] == pointed.loc[covid, "prob_Covid"]).all()


def test_text_says_how_the_error_falls() -> None:
    half, most = referral_text(CURVE, [0.5, 0.3], 0.95)
    assert half == (
        "Where a reader takes the 50 % of images whose call is least certain, "
        "0.0 % (0 of 2, 95 % interval 0.0 to 65.0 %) of the other calls are wrong, "
        "50.0 % (2 of 4, 95 % interval 15.0 to 85.0 %) of all without."
    )
    assert "30 %" in most
    assert "0.0 % (0 of 2," in most
    (tied,) = referral_text(risk_coverage(np.full(4, 0.9), CORRECT).assign(low=np.nan), [0.1], 0.95)
    assert tied.endswith("none is left: too many are of equal certainty.")


def test_a_share_that_is_a_whole_number_of_images_is_taken_exactly() -> None:
    curve = risk_coverage(np.arange(1, 101) / 100, np.ones(100, bool)).assign(low=np.nan, high=np.nan)
    for share, left in ((0.1, 90), (0.3, 70), (0.7, 30), (0.9, 10)):
        assert f"(0 of {left})" in referral_text(curve, [share], 0.95)[0]


def test_no_images_and_no_share_are_refused() -> None:
    with pytest.raises(CxrnetError, match="referral: no images"):
        risk_coverage(np.array([]), np.array([], bool))
    with pytest.raises(CxrnetError, match=r"referral.shares: 10 is no share of the images"):
        referral_text(CURVE, [10], 0.95)


# --- the cut-off that is chosen on validation


def weighed(table, weights, points=None, cutoff=None):
    rule = DecisionRule(points or {}, dict(zip(classes_of(table), weights, strict=True)), cutoff)
    return make_predictions(table, classes_of(table), logits_of(table), rule)


def test_with_decision_weights_images_at_the_border_of_the_decision_are_deferred_whatever_class_is_predicted(
    make_table,
) -> None:
    table = make_table(400, classes=("Covid", "Normal"))
    made = weighed(table, (4.0, 1.0))
    odds = 4 * table["prob_Covid"] / table["prob_Normal"]
    certain, _ = certainty(made)
    np.testing.assert_allclose(certain, np.maximum(odds, 1) / (np.maximum(odds, 1) + np.minimum(odds, 1)), rtol=1e-6)
    marked = weighed(table, (4.0, 1.0), cutoff=choose_cutoff(made, 0.25))
    deferred = made[marked["referred"]]
    assert len(deferred) == 100
    assert 0.2 < (deferred["predicted"] == "Covid").mean() < 0.8
    low, high = certain[marked["referred"]].max(), certain[~marked["referred"]].min()
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


@pytest.mark.parametrize(("share", "referred"), [(0.1, 6), (0.11, 6), (0.2, 12), (0.99, 59)])
def test_the_cutoff_leaves_the_least_certain_share_to_a_reader(make_table, share, referred) -> None:
    table = make_table(60)
    confidence, _ = certainty(table)
    below = confidence < choose_cutoff(table, share)
    assert below.sum() == referred
    assert confidence[below].max() < confidence[~below].min()


def test_images_of_equal_certainty_stay_together_and_no_more_than_the_share_is_referred(make_table) -> None:
    table = make_table(10)
    logits = np.zeros((10, 3), np.float32)
    logits[:, 0] = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6]
    tied = make_predictions(table, classes_of(table), logits)
    confidence, _ = certainty(tied)
    assert (confidence < choose_cutoff(tied, 0.4)).sum() == 3
    with pytest.raises(
        CxrnetError, match=r"^refer: 0\.2 of the 10 validation images is none \(3 are the least certain\)"
    ):
        choose_cutoff(tied, 0.2)


def test_nothing_is_referred_unless_asked_for(make_table) -> None:
    assert "referred" not in make_table()
    assert band_of(make_table(), evaluate) is None


def test_the_band_has_the_figures_of_the_calls_that_are_left(make_table) -> None:
    table = make_table(60)
    cutoff = choose_cutoff(table, 0.25)
    marked = make_predictions(table, classes_of(table), logits_of(table), DecisionRule(refer_below=cutoff))
    band = band_of(marked, evaluate)
    confidence, correct = certainty(table)
    assert (marked["referred"] == (confidence < cutoff)).all()
    assert band.referred == {"value": 0.25, "n": 60, "interval": list(wilson(15, 60)), "method": "wilson"}
    assert band.kept["accuracy"]["n"] == 45
    assert band.kept["accuracy"]["value"] == pytest.approx(correct[confidence >= cutoff].mean())
    assert band_of(marked.assign(referred=True), evaluate).kept is None
