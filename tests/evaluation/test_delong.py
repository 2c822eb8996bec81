import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import Auc, delong_difference

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


def delong(positive, score, clusters=None) -> Auc:
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


def test_duplicates_of_an_image_add_nothing():
    single = delong(OUTCOME, ALBUMIN)
    twice = delong(np.repeat(OUTCOME, 2), np.repeat(ALBUMIN, 2), np.repeat(np.arange(43), 2))
    assert (twice.value, twice.error) == pytest.approx((single.value, single.error), abs=1e-12)
    assert delong(np.repeat(OUTCOME, 2), np.repeat(ALBUMIN, 2)).error < 0.8 * single.error


def test_error_of_patients_is_that_of_many_repetitions():
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(300):  # 30 patients, 4 images each, some of which show the disease
        clusters = np.repeat(np.arange(30), 4)
        positive = rng.random(120) < 0.5
        score = rng.normal(size=30)[clusters] + 0.5 * rng.normal(size=120) + positive
        auc = delong(positive, score, clusters)
        values.append(auc.value)
        errors.append(auc.error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.1)


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
