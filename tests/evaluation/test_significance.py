from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from cxrnet.evaluation.confidence_intervals import delong_difference
from cxrnet.evaluation.significance import accuracy_test, auc_test, bootstrap_test, holm, mcnemar


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


def test_mcnemar_of_the_published_table():
    # Agresti, Categorical Data Analysis: approval of the prime minister, 150 against 86 changed their mind; the
    # exact p is twice the binomial tail, as statsmodels' mcnemar(exact=True) computes it.
    assert mcnemar(*_right(794, 150, 86, 570), np.arange(1600)) == pytest.approx(2 * binom.cdf(86, 236, 0.5), rel=1e-12)


def test_models_change_places_in_whole_clusters():
    """Every exchange counted out, of clusters of one to nine images."""
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(9), np.arange(1, 10))
    first, second = random.random((2, 45)) < [[0.7], [0.5]]
    gains = np.bincount(clusters, first * 1.0 - second)
    sums = np.array(list(product([-1, 1], repeat=9))) @ gains
    assert mcnemar(first, second, clusters) == pytest.approx((np.abs(sums) >= abs(gains.sum())).mean())
    assert mcnemar(second, first, clusters) == mcnemar(first, second, clusters)


def test_images_of_a_patient_are_worth_one():
    """Five times the images of the same patients show nothing more."""
    right = _right(20, 8, 2, 7)
    many = [np.repeat(of_one, 5) for of_one in right]
    assert mcnemar(*many, np.repeat(np.arange(37), 5)) == pytest.approx(mcnemar(*right, np.arange(37)))
    assert mcnemar(*many, np.arange(185)) < 1e-4


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


def test_few_clusters_show_less():
    first = np.random.default_rng(0).normal(1, 0.5, 1999)
    few, many = (bootstrap_test(first, np.zeros(1999), clusters, 0.95) for clusters in (5, 500))
    assert few.p > many.p
    assert few.high - few.low > many.high - many.low


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
