import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from cxrnet.evaluation.over_runs import Moments, moments_of
from cxrnet.reporting.sentences import interval_meaning


def test_moments_by_hand():
    spread = pd.DataFrame({"seed": [0, 1, 2], "accuracy": [0.5, 0.7, 0.9], "roc_auc_macro": [None, 0.8, None]})
    moments = moments_of(spread, 0.95)
    assert list(moments) == ["accuracy", "roc_auc_macro"]
    assert moments["accuracy"] == Moments(
        3, pytest.approx(0.7), pytest.approx(0.2), 0.5, 0.9, (pytest.approx(0.7 - 4.3027 * 0.2 / 3**0.5, abs=1e-4), 1.0)
    )
    # A metric that one run alone has: its mean is of that run, and there is no spread to state.
    assert moments["roc_auc_macro"] == Moments(1, 0.8, None, 0.8, 0.8, None)


def test_a_metric_that_no_run_has_is_left_out():
    assert moments_of(pd.DataFrame({"accuracy": [None, None]}, dtype=float), 0.95) == {}


def test_folds_of_several_seeds_differ_within_a_seed():
    spread = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 1], "fold": [1, 2, 3] * 2, "accuracy": [1, 2, 3, 11, 12, 13]})
    # Both seeds have a spread of 1; over all six it would be 5.6.
    assert moments_of(spread, 0.95)["accuracy"] == Moments(6, 7.0, pytest.approx(1.0), 1.0, 13.0, None)
    assert moments_of(spread[spread["seed"] == 0], 0.95)["accuracy"].sd == pytest.approx(1.0)
    seeds = pd.DataFrame({"seed": [0, 1], "fold": [None, None], "accuracy": [1.0, 3.0]})
    assert moments_of(seeds, 0.95)["accuracy"].sd == pytest.approx(2**0.5)


def test_the_interval_of_a_mean_over_seeds_is_that_of_scipy():
    values = [0.81, 0.84, 0.82, 0.85]
    (moments,) = moments_of(pd.DataFrame({"seed": range(4), "accuracy": values}), 0.9).values()
    assert moments.interval == pytest.approx(ttest_1samp(values, 0).confidence_interval(0.9))
    assert "(Student's t, n = 4): it says what other seeds would give" in interval_meaning({"accuracy": moments}, 0.9)


def test_an_interval_ends_where_its_metric_does_and_folds_and_equal_runs_have_none():
    spread = pd.DataFrame({"seed": [0, 1], "accuracy": [0.9, 1.0], "log_loss": [0.5, 0.9]})
    moments = moments_of(spread, 0.95, ["accuracy", "log_loss"])
    assert moments["accuracy"].interval[1] == 1
    assert moments["log_loss"].interval[0] == 0
    assert moments["log_loss"].interval[1] > 2
    same = moments_of(pd.DataFrame({"seed": [0, 1], "accuracy": [0.9, 0.9]}), 0.95)
    assert (same["accuracy"].sd, same["accuracy"].interval) == (0, None)
    folds = moments_of(pd.DataFrame({"seed": 0, "fold": [1, 2, 3], "accuracy": [0.8, 0.9, 0.7]}), 0.95)
    assert folds["accuracy"].interval is None
    assert interval_meaning(folds, 0.95) == ""
