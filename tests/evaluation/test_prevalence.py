from dataclasses import replace

import numpy as np
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import Clusters, Resampling, clusters_of, wilson
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.prevalence import (
    at_prevalence,
    decision_band,
    decision_curve,
    predictive_table,
    predictive_values,
    rule_out_prevalence,
)
from cxrnet.evaluation.selective_prediction import certainty, risk_coverage, risk_with_band

SENSITIVITY, SPECIFICITY = {"value": 0.8, "n": 50}, {"value": 0.9, "n": 200}
STEPS = np.array([0.0, 0.1, 0.3, 0.5, 0.9])
THRESHOLDS = np.linspace(0, 0.5, 11)


def test_predictive_values_are_those_of_a_population_that_is_counted() -> None:
    # 10 000 persons, 500 sick: 400 found, 950 false alarms.
    ppv, npv = predictive_values(0.8, 0.9, 0.05)
    assert ppv == pytest.approx(400 / (400 + 950))
    assert npv == pytest.approx(8550 / (8550 + 100))


def test_nothing_predicted_has_no_value() -> None:
    assert np.isnan(predictive_values(0.0, 1.0, 0.1)[0])
    assert np.isnan(predictive_values(1.0, 0.0, 0.1)[1])
    nothing = predictive_table({"value": 0.0, "n": 5}, {"value": 1.0, "n": 9}, [0.1])
    assert nothing.loc[0, "ppv"] == {"value": None, "n": 0, "reason": "no image is predicted positive"}
    assert nothing.loc[0, "npv"] == {"value": pytest.approx(0.9), "n": 14}


def test_intervals_are_those_of_a_bootstrap() -> None:
    sensitivity = {"value": 0.8, "n": 500, "interval": [*wilson(400, 500)]}
    specificity = {"value": 0.9, "n": 2000, "interval": [*wilson(1800, 2000)]}
    rng = np.random.default_rng(0)
    drawn = rng.binomial(500, 0.8, 20_000) / 500, rng.binomial(2000, 0.9, 20_000) / 2000
    for row in predictive_table(sensitivity, specificity, [0.005, 0.05, 0.2]).itertuples():
        for metric, values in zip((row.ppv, row.npv), predictive_values(*drawn, row.prevalence), strict=True):
            low, high = np.quantile(values, [0.025, 0.975])
            assert metric["interval"] == pytest.approx([low, high], abs=0.1 * (high - low))
            assert metric["interval"][0] < metric["value"] < metric["interval"][1]
            assert metric["n"] == 2500


@pytest.mark.parametrize("prevalence", [0, 1, 1.5, True, "low", float("nan")])
def test_what_is_no_prevalence_is_refused(prevalence) -> None:
    with pytest.raises(CxrnetError, match=f"prevalences: {prevalence} is no prevalence"):
        predictive_table(SENSITIVITY, SPECIFICITY, [prevalence])


@pytest.mark.parametrize("missed", [0.001, 0.01, 0.2])
def test_at_the_limit_of_a_negative_prediction_what_is_tolerated_is_missed(missed) -> None:
    limit = rule_out_prevalence(0.8, 0.9, missed)
    assert 1 - predictive_values(0.8, 0.9, limit)[1] == pytest.approx(missed, abs=1e-12)
    assert rule_out_prevalence(0.5, 0.5, missed) == pytest.approx(missed)  # a useless prediction rules nothing out


def test_an_interval_of_a_predictive_value_ends_at_1_where_the_other_metric_may_be_perfect() -> None:
    # Wilson's interval of 20 of 20, whose upper end misses 1 by rounding.
    sensitivity = {"value": 1.0, "n": 20, "interval": [0.839, 1 - 2**-52]}
    specificity = {"value": 27 / 56, "n": 56, "interval": [0.35, 0.61]}
    for prevalence in (0.005, 0.05, 0.2):
        row = predictive_table(sensitivity, specificity, [prevalence]).iloc[0]
        assert row["npv"]["interval"][1] == pytest.approx(1.0)
        assert 0 < row["ppv"]["interval"][0] < row["ppv"]["value"] < row["ppv"]["interval"][1] < 1


@pytest.fixture
def model() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = rng.uniform(size=200) < 0.25
    return (0.3 * positive + 0.7 * rng.uniform(size=200)).round(2), positive


def test_net_benefit_is_the_formula_of_the_paper(model) -> None:
    probability, positive = model
    curve = decision_curve(probability, positive, STEPS)
    for row in curve.itertuples():
        predicted, weight = probability >= row.threshold, row.threshold / (1 - row.threshold)
        by_hand = (predicted & positive).sum() / 200 - (predicted & ~positive).sum() / 200 * weight
        assert row.model == pytest.approx(by_hand, abs=1e-12)
        assert row.treat_all == pytest.approx(positive.mean() - (1 - positive.mean()) * weight, abs=1e-12)
        assert row.treat_none == 0
    assert (curve["prevalence"] == positive.mean()).all()


def test_another_prevalence_is_that_of_images_drawn_to_it(model) -> None:
    probability, positive = model
    times = np.where(positive, 1, 6)  # six of each image without the disease
    drawn = np.repeat(positive, times)
    share = drawn.mean()
    carried = at_prevalence(probability, positive.mean(), share)
    expected = decision_curve(np.repeat(carried, times), drawn, STEPS)
    np.testing.assert_allclose(decision_curve(carried, positive, STEPS, share), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": [0.5, 1.0]}, "decision_curve.thresholds: give probabilities from 0 on, below 1"),
        ({"thresholds": [float("nan")]}, "decision_curve.thresholds"),
        ({"prevalence": 0}, "decision_curve.prevalence: 0 is no prevalence"),
        ({"positive": np.zeros(200, bool)}, "no image is of the class"),
        ({"positive": np.ones(200, bool)}, "every image is of the class"),
    ],
)
def test_what_makes_no_curve_is_refused(model, change, message) -> None:
    good = {"probability": model[0], "positive": model[1], "thresholds": STEPS}
    with pytest.raises(CxrnetError, match=message):
        decision_curve(**{**good, **change})


def images(n: int, resamples: int = 200) -> Resampling:
    """Every image of another patient."""
    return Resampling(Clusters(np.arange(n), np.zeros(n, int), "image"), resamples, 0, 0.95)


def test_net_benefit_follows_from_sensitivity_and_specificity(make_table) -> None:
    table = make_table(classes=("Covid", "Normal"), n=200)
    probability, positive = table["prob_Covid"].to_numpy(), (table["label"] == "Covid").to_numpy(bool)
    share = float(positive.mean())
    resampling = Resampling(clusters_of(table), 200, 0, 0.95)
    band = decision_band(decision_curve(probability, positive, THRESHOLDS), probability, positive, resampling)
    metrics = evaluate(table, resamples=200)["per_class"]["Covid"]  # of the predictions, from a probability of 0.5 on
    hit, passed = ((each["value"], each["interval"]) for each in (metrics["sensitivity"], metrics["specificity"]))
    reach = np.hypot(share * (hit[0] - hit[1][0]), (1 - share) * (passed[0] - passed[1][0]))
    assert band["low"].iloc[-1] == pytest.approx(band["model"].iloc[-1] - reach)
    # From a probability of 0 on everybody is treated, which is no estimate.
    assert band[["low", "high"]].iloc[0].to_list() == pytest.approx([share, share])
    assert ((band["low"] < band["model"]) & (band["model"] < band["high"])).iloc[1:].all()


def test_without_resamples_there_are_no_intervals(make_table) -> None:
    confidence, correct = certainty(make_table())
    none = replace(images(60), resamples=0)
    assert risk_with_band(risk_coverage(confidence, correct), confidence, correct, none, [0.1])["low"].isna().all()
    assert (
        decision_band(decision_curve(confidence, correct, THRESHOLDS), confidence, correct, none)["high"].isna().all()
    )
