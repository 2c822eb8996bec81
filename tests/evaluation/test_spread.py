import pandas as pd
import pytest

from cxrnet.evaluation.spread import Moments, moments_of


def test_moments_by_hand():
    spread = pd.DataFrame({"seed": [0, 1, 2], "accuracy": [0.5, 0.7, 0.9], "roc_auc_macro": [None, 0.8, None]})
    moments = moments_of(spread)
    assert list(moments) == ["accuracy", "roc_auc_macro"]
    assert moments["accuracy"] == Moments(3, pytest.approx(0.7), pytest.approx(0.2), 0.5, 0.9)
    # A figure that one run alone has: its mean is of that run, and there is no spread to state.
    assert moments["roc_auc_macro"] == Moments(1, 0.8, None, 0.8, 0.8)


def test_a_figure_that_no_run_has_is_left_out():
    assert moments_of(pd.DataFrame({"accuracy": [None, None]}, dtype=float)) == {}


def test_folds_of_several_seeds_differ_within_a_seed():
    spread = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 1], "fold": [1, 2, 3] * 2, "accuracy": [1, 2, 3, 11, 12, 13]})
    # Both seeds have a spread of 1; over all six it would be 5.6.
    assert moments_of(spread)["accuracy"] == Moments(6, 7.0, pytest.approx(1.0), 1.0, 13.0)
    assert moments_of(spread[spread["seed"] == 0])["accuracy"].sd == pytest.approx(1.0)
    seeds = pd.DataFrame({"seed": [0, 1], "fold": [None, None], "accuracy": [1.0, 3.0]})
    assert moments_of(seeds)["accuracy"].sd == pytest.approx(2**0.5)
