import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import binomtest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation import confidence_intervals as module
from cxrnet.evaluation.confidence_intervals import (
    bootstrap,
    clusters_of,
    draw,
    newcombe,
    of_gaps,
    of_mean,
    on_log_odds,
    percentile,
    wilson,
)


def make_rows(labels: str, **columns) -> pd.DataFrame:
    return pd.DataFrame({"label": list(labels), "patient_id": pd.NA, **columns})


def all_drawn(clusters, resamples=300, seed=0):
    return np.concatenate(list(draw(clusters, resamples, seed)))


def test_without_patients_images_are_drawn():
    clusters = clusters_of(make_rows("aabbb"))
    assert clusters.kind == "image"
    assert clusters.of_row.tolist() == [0, 1, 2, 3, 4]
    assert clusters.stratum.tolist() == [0, 0, 1, 1, 1]


def test_duplicate_groups_are_drawn_where_patients_are_not_known():
    clusters = clusters_of(make_rows("aabb", group_id=["x", "x", None, None]))
    assert clusters.kind == "duplicate group"
    assert clusters.of_row.tolist() == [0, 0, 1, 2]


def test_patients_who_share_an_image_are_drawn_together():
    clusters = clusters_of(make_rows("aaaa", patient_id=["1", "1", "2", None], group_id=[None, "x", "x", None]))
    assert clusters.kind == "patient"
    assert clusters.of_row.tolist() == [0, 0, 0, 1]


def test_clusters_are_stratified_by_their_labels():
    patients = ["1", "1", "2", "2", "3", "3", "4", "5"]
    clusters = clusters_of(make_rows("abababaa", patient_id=patients))
    assert clusters.stratum.tolist() == [0, 0, 0, 1, 1]
    # The sets of labels that only one patient has.
    clusters = clusters_of(make_rows("abbbaa", patient_id=["1", "1", "2", "3", "4", "4"]))
    assert clusters.stratum.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "patients", "strata"),
    [
        ("abaabb", "112345", [0, 0, 0, 1, 1]),  # one patient with both labels: as rare as each other
        ("abaabbb", "1123456", [0, 0, 0, 1, 1, 1]),  # it is drawn with those of the rarer one
        ("acababcc", "11234567", [0, 0, 1, 0, 1, 2, 2]),
        ("caabbb", "123456", [0, 1, 1, 0, 0, 0]),  # a label that one patient has: with the largest stratum
        ("dcaabbb", "1234567", [0, 0, 1, 1, 0, 0, 0]),
        ("cccaabbb", "11123456", [0, 1, 1, 0, 0, 0]),
    ],
)
def test_no_patient_is_in_every_resample(labels, patients, strata):
    clusters = clusters_of(make_rows(labels, patient_id=list(patients)))
    assert clusters.stratum.tolist() == strata
    weights = all_drawn(clusters)
    assert (weights.min(axis=0) == 0).all()


def test_the_effective_number_of_patients():
    clusters = clusters_of(make_rows("aaaaabb", patient_id=["1", "1", "1", "2", "3", "4", "4"]))
    assert clusters.effective(np.ones(7, bool)) == pytest.approx(49 / (9 + 1 + 1 + 4))
    assert clusters.effective(np.arange(7) >= 3) == pytest.approx(16 / 6)
    assert clusters.effective(np.isin(np.arange(7), [0, 3, 5])) == 3  # one image of each
    assert clusters.effective(np.zeros(7, bool)) == 0
    assert clusters.cases(np.ones(7, bool), 1.0) == 4


def test_a_resample_holds_whole_patients_and_as_many_of_each_label():
    rows = make_rows("aaabbbb", patient_id=["1", "1", "2", "3", "4", "5", "5"])
    weights = all_drawn(clusters_of(rows))
    assert weights.shape == (300, 7)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 5] == weights[:, 6]).all()
    first_images = weights[:, [0, 2, 3, 4, 5]]
    assert (first_images[:, :2].sum(axis=1) == 2).all()
    assert (first_images[:, 2:].sum(axis=1) == 3).all()
    assert set(np.unique(weights)) == {0, 1, 2, 3}


def test_a_large_table_is_drawn_in_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 12)
    clusters = clusters_of(make_rows("aabbb"))
    assert [len(weights) for weights in draw(clusters, 5, 0)] == [2, 2, 1]
    counted = bootstrap(clusters, lambda weights: {"sum": weights.sum(axis=1)}, 101, 0)
    assert counted["sum"].tolist() == [5.0] * 101


@pytest.mark.parametrize("resamples", [99, -1, 200.0])
def test_too_few_resamples(resamples):
    with pytest.raises(CxrnetError, match=f"resamples: {resamples} won't do; give a whole number from 100 on, or 0"):
        bootstrap(clusters_of(make_rows("ab")), lambda weights: {"a": weights[:, 0]}, resamples, 0)


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
