import dataclasses
import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.significance import (
    AucDifference,
    accuracy_test,
    auc_test,
    bootstrap_test,
    delong_difference,
    holm,
    mcnemar,
)


def _right(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models and the images that both, only the first, only the second and neither of them gets right."""
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        # 2 * (C(6, 0) + C(6, 1)) / 2^6; statsmodels' mcnemar(exact=True) is this sum.
        (5, 1, 2 * (1 + 6) / 64),
        (1, 5, 2 * (1 + 6) / 64),
        # 2 * (1 + 10 + 45) / 2^10
        (8, 2, 2 * 56 / 1024),
        (0, 8, 2 / 256),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(first, second, p):
    right = _right(20, first, second, 7)
    assert mcnemar(*right, np.arange(len(right[0]))) == pytest.approx(p, abs=1e-15)


def test_models_change_places_in_whole_clusters():
    """Every exchange counted out, of clusters of one to nine images."""
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(9), np.arange(1, 10))
    first, second = random.random((2, 45)) < [[0.7], [0.5]]
    gains = np.bincount(clusters, first * 1.0 - second)
    sums = np.array(list(product([-1, 1], repeat=9))) @ gains
    assert mcnemar(first, second, clusters) == pytest.approx((np.abs(sums) >= abs(gains.sum())).mean())
    assert mcnemar(second, first, clusters) == mcnemar(first, second, clusters)


def test_holm_by_hand():
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1 which must not be below the one before it.
    corrected = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-15)


def test_holm_never_exceeds_one_and_leaves_gaps_out():
    assert holm(np.array([0.6, np.nan, 0.5])) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert holm(np.array([0.02])) == pytest.approx([0.02])
    assert holm(np.array([np.nan, np.nan])) == pytest.approx([np.nan, np.nan], nan_ok=True)


def test_bootstrap_by_hand():
    # Of 99 resamples 2 are not above zero: a share of (2 + 1) / (99 + 1). Of many clusters the t is the normal one.
    differences = np.r_[[-0.1, 0.0], np.linspace(0.1, 1, 97)]
    first = np.random.default_rng(0).permutation(differences) + 0.25
    test = bootstrap_test(first, np.full(99, 0.25), 10**6, 0.95)
    assert test.p == pytest.approx(2 * 0.03, abs=1e-5)
    assert (test.low, test.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])), abs=1e-4)
    turned = bootstrap_test(np.full(99, 0.25), first, 10**6, 0.95)
    assert turned[:3] == pytest.approx((-test.high, -test.low, test.p))


@pytest.mark.parametrize("clusters", [5, 30, 10**6])
def test_p_and_interval_agree(clusters):
    # At the level of the p the interval touches zero.
    first = np.random.default_rng(0).normal(1, 0.8, 9999)
    test = bootstrap_test(first, np.zeros(9999), clusters, 0.95)
    touching = bootstrap_test(first, np.zeros(9999), clusters, 1 - test.p)
    assert touching.low == pytest.approx(0, abs=0.02)
    assert touching.p == test.p


def test_equal_models_have_no_interval():
    test = bootstrap_test(np.ones(100), np.ones(100), 50, 0.95)
    assert (test.p, test.reason) == (1, "all resamples give the same difference: no interval")
    assert np.isnan([test.low, test.high]).all()


def test_resamples_without_a_value_are_left_out():
    first = np.r_[np.linspace(0.6, 0.8, 51), np.nan, np.nan]
    test = bootstrap_test(first, np.full(53, 0.5), 10**6, 0.95)
    assert test.p == pytest.approx(2 / 52, abs=1e-5)
    assert 0.1 < test.low < test.high < 0.3


def test_accuracy_has_the_p_of_mcnemar_and_the_interval_of_the_bootstrap():
    resampled = bootstrap_test(np.linspace(-0.1, 0.4, 101), np.zeros(101), 50, 0.95)
    right = _right(20, 8, 2, 7)
    test = accuracy_test(*right, np.arange(37), resampled)
    assert test == (resampled.low, resampled.high, pytest.approx(2 * 56 / 1024), "exact McNemar", "")
    assert accuracy_test(*right, np.arange(37) // 2, resampled).test == "exact cluster permutation"


def test_auc_has_the_test_of_delong():
    random = np.random.default_rng(0)
    positive = np.arange(60) < 25
    first, second = (positive * strength + random.normal(size=60) for strength in (2.0, 0.5))
    test = auc_test(positive, first, second, np.arange(60), 0.9)
    auc = delong_difference(positive, first, second)
    assert test == (*auc.interval(0.9), auc.p, "DeLong", "")
    same = auc_test(positive, first, 3 * first, np.arange(60), 0.9)
    assert (same.p, same.reason) == (1, "the error of the difference is 0: no interval")


# The 43 complete patients of DeLong, DeLong & Clarke-Pearson 1988, with ovarian cancer and an obstructed intestine:
# albumin, total protein, K-G score (the less the better) and the outcome that they shall foretell.
PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""
ALBUMIN, PROTEIN, KG, OUTCOME = np.fromstring(PATIENTS, sep=" ").reshape(-1, 4).T
OUTCOME = OUTCOME == 1


def delong(positive, score, clusters=None) -> AucDifference:
    """One ROC-AUC: that of a model that tells nothing is 0.5, without error."""
    difference = delong_difference(positive, score, np.zeros(len(score)), clusters)
    return dataclasses.replace(difference, value=0.5 + difference.value)


@pytest.mark.parametrize(
    ("score", "value", "error", "interval"),
    [
        (ALBUMIN, 0.7366, 0.0927, (0.5549, 0.9182)),
        (-KG, 0.7258, 0.1028, (0.5243, 0.9273)),
        (PROTEIN, 0.6478, 0.1000, (0.4518, 0.8439)),
    ],
)
def test_published_areas(score, value, error, interval):
    """Printed in the SAS/STAT User's Guide, LOGISTIC procedure, Comparing Receiver Operating Characteristic Curves."""
    auc = delong(OUTCOME, score)
    assert (auc.value, auc.error) == pytest.approx((value, error), abs=5e-5)
    assert auc.interval() == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(
    ("score", "value", "error", "p"), [(ALBUMIN, 0.0108, 0.0953, 0.9102), (PROTEIN, -0.0780, 0.1046, 0.4561)]
)
def test_published_differences(score, value, error, p):
    """From the K-G score; printed in the same place."""
    difference = delong_difference(OUTCOME, score, -KG)
    assert (difference.value, difference.error, difference.p) == pytest.approx((value, error, p), abs=5e-5)


def covariance_of_1988(positive, scores):
    """Equations 4 to 6 of the paper, pair by pair."""
    rows = []
    for score in scores:
        x, y = score[positive][:, None], score[~positive][None]
        rows.append((x > y) + 0.5 * (x == y))
    of_positives = np.cov([pairs.mean(axis=1) for pairs in rows])
    of_negatives = np.cov([pairs.mean(axis=0) for pairs in rows])
    return of_positives / positive.sum() + of_negatives / (~positive).sum()


@pytest.mark.parametrize("digits", [16, 1])
def test_equals_the_formula_of_all_pairs(digits):
    rng = np.random.default_rng(0)
    positive = rng.random(120) < 0.4
    first = (rng.normal(size=120) + positive).round(digits)
    second = (0.5 * first + rng.normal(size=120)).round(digits)
    covariance = covariance_of_1988(positive, (first, second))
    auc, difference = delong(positive, first), delong_difference(positive, first, second)
    assert auc.value == pytest.approx(roc_auc_score(positive, first), abs=1e-12)
    assert auc.error**2 == pytest.approx(covariance[0, 0], abs=1e-12)
    assert difference.error**2 == pytest.approx(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], abs=1e-12)
    assert difference.p == pytest.approx(2 * norm.cdf(-abs(difference.value / difference.error)))


def test_degrees_of_freedom_are_those_of_few_patients():
    """By Welch and Satterthwaite, of 3 and 12 patients of two images, and of none where each has one."""
    rng = np.random.default_rng(0)
    positive, clusters = np.arange(30) < 6, np.arange(30) // 2
    score = positive + rng.normal(size=30)
    auc = delong(positive, score, clusters)
    assert 2 < auc.free < 13
    low, high = auc.interval()
    assert high - low == pytest.approx(2 * t.ppf(0.975, auc.free) * auc.error)
    assert delong(positive, score, np.arange(30)).free == math.inf
    # One patient with 5 of the 6 positives is worth little more than one.
    one_large = delong(positive, score, np.r_[np.zeros(5, int), np.arange(1, 26)])
    assert one_large.free < auc.free
    assert delong_difference(positive, score, rng.normal(size=30), clusters).p > 0


def test_where_nothing_varies():
    positive = np.array([True, True, False, False])
    perfect, blind = np.array([0.9, 0.8, 0.2, 0.1]), np.full(4, 0.5)
    assert (delong(positive, perfect).value, delong(positive, perfect).error) == (1.0, 0.0)
    assert delong_difference(positive, perfect, perfect).p == 1.0
    assert math.isnan(delong_difference(positive, perfect, blind).p)


def test_one_patient_is_too_few():
    positive = np.array([True, True, False, False])
    with pytest.raises(CxrnetError, match="are of one patient; give images of two"):
        delong(positive, np.array([0.9, 0.8, 0.2, 0.1]), np.array([0, 0, 1, 2]))


def test_duplicates_of_an_image_add_nothing():
    single = delong(OUTCOME, ALBUMIN)
    twice = delong(np.repeat(OUTCOME, 2), np.repeat(ALBUMIN, 2), np.repeat(np.arange(43), 2))
    assert (twice.value, twice.error) == pytest.approx((single.value, single.error), abs=1e-12)
    assert delong(np.repeat(OUTCOME, 2), np.repeat(ALBUMIN, 2)).error < 0.8 * single.error
