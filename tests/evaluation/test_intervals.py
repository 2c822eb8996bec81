import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest

from cxrnet.evaluation.confidence_intervals import newcombe, of_gaps, of_mean, on_log_odds, percentile, wilson


@pytest.mark.parametrize(("part", "whole"), [(0, 1), (0, 26), (3, 10), (26, 26), (700, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_equals_scipy(part, whole, level):
    expected = binomtest(part, whole).proportion_ci(level, method="wilson")
    assert wilson(part, whole, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_newcombe_is_a_score_interval():
    low, high = newcombe(0.9, 30, 50)
    inner = 39

    def distance(truth):
        spread = 1 + inner * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return abs(0.9 - truth) / np.sqrt(truth * (1 - truth) * spread / 1500)

    assert low < 0.9 < high
    assert [distance(low), distance(high)] == pytest.approx([1.959964, 1.959964], abs=1e-5)


def test_newcombe_at_the_ends():
    low, high = newcombe(1.0, 20, 40)
    assert high == 1.0
    assert 0.9 < low < 0.95
    assert newcombe(0.0, 20, 40) == pytest.approx((0.0, 1 - low))
    assert newcombe(1.0, 200, 400)[0] > 0.99
    assert newcombe(1.0, 1, 40)[0] < 0.5  # one positive


def test_newcombe_holds_the_truth():
    rng, truth = np.random.default_rng(0), 0.9761  # of normal scores 2.8 apart
    hits = 0
    for _ in range(400):
        positives, negatives = rng.normal(2.8, 1, 12), rng.normal(0, 1, 20)
        low, high = newcombe(float((positives[:, None] > negatives).mean()), 12, 20)
        hits += low <= truth <= high
    assert hits / 400 > 0.93


def test_percentiles_lie_further_out_for_few_clusters():
    drawn = np.random.default_rng(0).normal(size=20_000)
    many, few = percentile(drawn, 100_000), percentile(drawn, 5)
    assert many == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-3)
    # The t quantile of 4 degrees of freedom is 2.776; a sample of 5 has 4/5 of the variance.
    assert few == pytest.approx((-2.776 * np.sqrt(5 / 4), 2.776 * np.sqrt(5 / 4)), abs=0.15)
    assert percentile(drawn, 50, level=0.5)[1] < 0.75


def test_on_log_odds_by_hand():
    drawn = np.random.default_rng(0).normal(0.9, 0.02, 20_000)
    half = 1.959964 * drawn.std() / (0.9 * 0.1)
    assert on_log_odds(0.9, drawn, 10**6) == pytest.approx(expit(logit(0.9) + np.array([-half, half])), abs=1e-5)
    # Of few clusters the t quantile of 4 degrees of freedom, and 4/5 of the variance.
    few = 2.776445 * np.sqrt(5 / 4) * drawn.std() / (0.9 * 0.1)
    assert on_log_odds(0.9, drawn, 5) == pytest.approx(expit(logit(0.9) + np.array([-few, few])), abs=1e-4)


def test_on_log_odds_keeps_to_the_range():
    drawn = np.random.default_rng(0).normal(size=1000)  # as spread out as can be
    assert on_log_odds(0.99, drawn, 2) == pytest.approx((0, 1))
    assert on_log_odds(1.5, drawn, 2, (0.0, 2.0)) == pytest.approx((0, 2))
    low, high = on_log_odds(0.5, 0.05 * drawn, 10**6, (0.0, np.inf))
    assert low * high == pytest.approx(0.25)  # on a scale of logarithms


def test_on_log_odds_mirrors():
    drawn = np.random.default_rng(0).beta(20, 2, 1000)
    low, high = on_log_odds(0.95, drawn, 30)
    assert on_log_odds(0.05, 1 - drawn, 30) == pytest.approx((1 - high, 1 - low))
    assert 0.95 - low > high - 0.95


def test_interval_of_gaps_holds_the_value_and_reaches_zero_where_chance_does():
    drawn = np.array([0.3, 0.4, 0.5])  # above the value, as resamples are
    low, high = of_gaps(0.2, drawn, moved=np.array([0.05, 0.1, 0.15]))
    assert (low, high) == pytest.approx((0.2 - 0.1475, 0.2 + 0.4 - 0.305))
    assert of_gaps(0.1, drawn, moved=np.array([0.1, 0.2, 0.3]))[0] == 0.0


def test_interval_of_a_mean():
    values, ends, half = np.array([1.0, 0.8]), np.array([[0.9, 1.0], [0.5, 0.9]]), np.array([0.5, 0.5])
    assert of_mean(values, ends, half, independent=False) == pytest.approx((0.7, 0.95))
    low, high = of_mean(values, ends, half, independent=True)
    assert (low, high) == pytest.approx((0.9 - np.hypot(0.05, 0.15), 0.9 + 0.05))
