import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrnet.evaluation.point_estimates import areas, rank


@pytest.mark.parametrize("digits", [16, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_scikit_learn(seed, digits):
    rng = np.random.default_rng(seed)
    positive = rng.random(90) < 0.3
    score = (rng.random(90) + 0.4 * positive).round(digits)  # fewer digits, more ties
    weights = rng.integers(0, 4, (5, 90)).astype(float)
    roc_auc, average_precision = areas(rank(positive, score), weights)
    for row, weight in enumerate(weights):
        assert roc_auc[row] == pytest.approx(roc_auc_score(positive, score, sample_weight=weight), abs=1e-12)
        expected = average_precision_score(positive, score, sample_weight=weight)
        assert average_precision[row] == pytest.approx(expected, abs=1e-12)


def test_scores_that_are_all_the_same():
    positive = np.arange(10) < 4
    roc_auc, average_precision = areas(rank(positive, np.full(10, 0.5)), np.ones((1, 10)))
    assert (roc_auc[0], average_precision[0]) == (0.5, 0.4)


def test_without_one_side_there_is_no_area():
    positive = np.array([True, False, True, False])
    weights = np.array([[1, 0, 2, 0], [0, 1, 0, 1], [1, 1, 1, 1]], float)
    roc_auc, average_precision = areas(rank(positive, np.array([0.9, 0.1, 0.8, 0.2])), weights)
    assert np.isnan(roc_auc).tolist() == np.isnan(average_precision).tolist() == [True, True, False]
