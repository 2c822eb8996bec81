from dataclasses import replace

import numpy as np
import pytest

from cxrnet.evaluation.bootstrap import Units, units_of
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.evaluation.decision_curve import decision_band, decision_curve
from cxrnet.evaluation.metric_intervals import Resampling
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.selective_prediction import certainty, risk_band, risk_coverage

STEPS = np.linspace(0, 0.5, 11)


def images(n: int, resamples: int = 200) -> Resampling:
    """Every image of another patient."""
    return Resampling(Units(np.arange(n), np.zeros(n, int), "image"), resamples, 0, 0.95)


def test_the_error_of_all_calls_has_the_interval_of_the_accuracy(make_table) -> None:
    table = make_table()
    confidence, correct = certainty(table)
    resampling = Resampling(units_of(table), 200, 3, 0.9)
    band = risk_band(risk_coverage(confidence, correct), confidence, correct, resampling, [])
    low, high = evaluate(table, resamples=200, seed=3, level=0.9)["accuracy"]["interval"]
    assert band[["low", "high"]].iloc[-1].to_list() == pytest.approx([1 - high, 1 - low])
    known = band[band["low"].notna()]
    assert ((known["low"] <= known["error"]) & (known["error"] <= known["high"])).all()


def test_calls_that_are_all_right_are_not_certain_to_be() -> None:
    confidence, correct = np.linspace(0.5, 1, 40), np.arange(40) > 3
    band = risk_band(risk_coverage(confidence, correct), confidence, correct, images(40), [])
    kept = band[band["error"] == 0]
    assert kept["high"].to_list() == pytest.approx([wilson(0, n)[1] for n in kept["n"]])


def test_a_long_curve_has_intervals_at_every_hundredth_and_where_they_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=2000)
    correct = rng.uniform(size=2000) < confidence
    plain = risk_coverage(confidence, correct)
    band = risk_band(plain, confidence, correct, images(2000, 100), [0.1015])
    known = band[band["low"].notna()]
    assert known["referred"].to_list() == pytest.approx(sorted([*np.arange(100) / 100, 0.1015], reverse=True))
    assert band[list(plain.columns)].equals(plain)


def test_net_benefit_follows_from_sensitivity_and_specificity(make_table) -> None:
    table = make_table(classes=("Covid", "Normal"), n=200)
    probability, positive = table["prob_Covid"].to_numpy(), (table["label"] == "Covid").to_numpy(bool)
    share = float(positive.mean())
    resampling = Resampling(units_of(table), 200, 0, 0.95)
    band = decision_band(decision_curve(probability, positive, STEPS), probability, positive, resampling)
    figures = evaluate(table, resamples=200)["per_class"]["Covid"]  # of the calls, from a probability of 0.5 on
    hit, passed = ((each["value"], each["interval"]) for each in (figures["sensitivity"], figures["specificity"]))
    reach = np.hypot(share * (hit[0] - hit[1][0]), (1 - share) * (passed[0] - passed[1][0]))
    assert band["low"].iloc[-1] == pytest.approx(band["model"].iloc[-1] - reach)
    # From a probability of 0 on everybody is treated, which is no estimate.
    assert band[["low", "high"]].iloc[0].to_list() == pytest.approx([share, share])
    assert ((band["low"] < band["model"]) & (band["model"] < band["high"])).iloc[1:].all()


def test_a_perfect_model_is_not_certain_to_be_either() -> None:
    positive = np.arange(60) < 20
    curve = decision_curve(positive.astype(float), positive, STEPS[1:], 0.05)
    band = decision_band(curve, positive.astype(float), positive, images(60))
    assert band["high"].to_list() == pytest.approx([0.05] * len(band))
    assert (band["low"] < 0.05 * wilson(20, 20)[0]).all()


def test_without_resamples_there_are_no_intervals(make_table) -> None:
    confidence, correct = certainty(make_table())
    none = replace(images(60), resamples=0)
    assert risk_band(risk_coverage(confidence, correct), confidence, correct, none, [0.1])["low"].isna().all()
    assert decision_band(decision_curve(confidence, correct, STEPS), confidence, correct, none)["high"].isna().all()
