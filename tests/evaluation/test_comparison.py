from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.comparison import compare
from cxrnet.evaluation.metrics import evaluate, flat
from cxrnet.evaluation.significance import holm, mcnemar

METRICS = ("roc_auc_macro", "accuracy", "macro_f1", "sensitivity_Covid", "roc_auc_Covid", "log_loss")


def _compare(tables, metrics=METRICS, by="roc_auc_macro", resamples=500, seed=0):
    return compare(tables, metrics, by, resamples, seed, 0.95, 15)


@pytest.fixture(scope="module")
def tables(make_table):
    labels = [str(label) for label in make_table(n=90)["label"]]
    strengths = {"weak": 0.3, "strong": 3.0, "middle": 1.2}
    return {
        name: make_table(labels=labels, seed=seed, strength=value)
        for seed, (name, value) in enumerate(strengths.items())
    }


@pytest.fixture(scope="module")
def comparison(tables):
    return _compare(tables)


def test_the_best_run_stands_first(tables, comparison):
    assert comparison.runs == ["strong", "middle", "weak"]
    assert _compare(tables, by="log_loss").runs == ["strong", "middle", "weak"]
    assert list(comparison.figures["run"].unique()) == comparison.runs


def test_figures_are_those_of_each_run_alone(tables, comparison):
    rows = comparison.figures.set_index(["run", "metric"])
    for run, table in tables.items():
        for name, _, metric in flat(evaluate(table)):
            assert rows.loc[(run, name), "value"] == pytest.approx(metric["value"], abs=1e-12)
            assert rows.loc[(run, name), "n"] == metric["n"]
    row = rows.loc[("strong", "macro_f1")]
    assert 0 < row["low"] < row["value"] < row["high"] <= 1


def test_every_pair_is_tested_in_every_metric(comparison):
    tests, values = comparison.tests, comparison.figures.set_index(["run", "metric"])["value"]
    assert list(tests.columns) == [
        "metric",
        "a",
        "b",
        "difference",
        "low",
        "high",
        "p",
        "p_holm",
        "test",
        "n",
        "reason",
    ]
    assert list(zip(tests["metric"], tests["a"], tests["b"], strict=True)) == [
        (metric, *pair) for metric in METRICS for pair in combinations(comparison.runs, 2)
    ]
    for test in tests.itertuples():
        assert test.difference == values[test.a, test.metric] - values[test.b, test.metric]
        assert test.low <= test.difference <= test.high
    assert set(tests["n"]) == {90}
    assert comparison.metrics == list(METRICS)


def test_a_class_of_one_patient_shows_nothing_of_its_means(make_table):
    labels = ["Viral Pneumonia"] * 2 + ["Covid", "Normal"] * 29  # patients have two images each
    found = _compare({name: make_table(labels=labels, seed=i) for i, name in enumerate("ab")})
    tests = found.tests.set_index("metric")
    assert tests.loc["macro_f1", "reason"] == "the images behind it are of one patient"
    assert np.isnan(tests.loc["macro_f1", "p"])
    assert tests.loc["accuracy", "low"] < tests.loc["accuracy", "high"]


def test_each_metric_has_its_test(tables, comparison):
    tests = comparison.tests.set_index(["metric", "a", "b"])
    assert dict(zip(comparison.tests["metric"], comparison.tests["test"], strict=True)) == {
        "roc_auc_macro": "paired bootstrap",
        "accuracy": "exact cluster permutation",
        "macro_f1": "paired bootstrap",
        "sensitivity_Covid": "paired bootstrap",
        "roc_auc_Covid": "DeLong",
        "log_loss": "paired bootstrap",
    }
    a, b = tables["middle"], tables["weak"]
    right = [(table["predicted"] == table["label"]).to_numpy(bool) for table in (a, b)]
    assert tests.loc[("accuracy", "middle", "weak"), "p"] == mcnemar(*right, comparison.units.of_row)


def test_holm_is_over_the_pairs_of_one_metric(comparison):
    for _, rows in comparison.tests.groupby("metric"):
        assert list(rows["p_holm"]) == list(holm(rows["p"].to_numpy(float)))
    assert (comparison.tests["p_holm"] >= comparison.tests["p"]).all()


def test_a_large_difference_is_shown_and_none_where_there_is_none(tables, comparison):
    p = comparison.tests.set_index(["metric", "a", "b"])["p_holm"]
    assert all(p[metric, "strong", "weak"] < 0.05 for metric in METRICS)
    same = _compare({"one": tables["weak"], "two": tables["weak"].sample(frac=1, random_state=1)})
    assert (same.tests["difference"] == 0).all()
    assert same.tests["low"].isna().all()
    assert set(same.tests["reason"]) == {
        "all resamples give the same difference: no interval",
        "the error of the difference is 0: no interval",
    }
    assert (same.tests[["p", "p_holm"]] == 1).all(axis=None)


def test_runs_are_compared_on_the_same_resamples(tables):
    # A run that differs from another in one call only: the difference is known far better than each figure.
    other = tables["middle"].copy()
    wrong = np.flatnonzero(other["predicted"] != other["label"])[0]
    other.loc[wrong, "predicted"] = other.loc[wrong, "label"]
    found = _compare({"middle": tables["middle"], "other": other}, metrics=["accuracy"], by="accuracy")
    test = found.tests.iloc[0]
    figure = found.figures[found.figures["metric"] == "accuracy"].iloc[0]
    assert (test["a"], test["difference"]) == ("other", pytest.approx(1 / 90))
    assert test["low"] == 0
    assert test["high"] - test["low"] < (figure["high"] - figure["low"]) / 3


def test_the_seed_decides(tables, comparison):
    pd.testing.assert_frame_equal(_compare(tables).tests, comparison.tests)
    assert not _compare(tables, seed=1).tests["low"].equals(comparison.tests["low"])


def test_two_classes_have_one_auc(make_table):
    labels = ["Covid", "Normal"] * 30
    tables = {name: make_table(labels=labels, classes=("Normal", "Covid"), seed=i) for i, name in enumerate("ab")}
    found = _compare(tables, metrics=["roc_auc_macro", "roc_auc_Normal", "roc_auc_Covid"])
    assert set(found.tests["test"]) == {"DeLong"}
    columns = ["difference", "low", "high", "p"]
    rows = found.tests[columns].to_numpy(float)
    assert rows == pytest.approx(np.tile(rows[:1], (3, 1)), abs=1e-9)


def test_patients_known_to_one_run_hold_for_all(tables):
    unknown = {name: table.assign(patient_id=pd.NA) for name, table in tables.items()}
    assert len(_compare(unknown).units.stratum) == 90
    assert len(_compare(unknown | {"middle": tables["middle"]}).units.stratum) == 45


def test_a_figure_that_is_missing_is_not_tested(make_table):
    labels = ["Covid", "Normal"] * 20
    found = _compare({name: make_table(labels=labels, seed=i) for i, name in enumerate("abc")})
    rows = found.tests[found.tests["metric"] == "roc_auc_macro"]
    assert set(rows["reason"]) == {"no image is labelled Viral Pneumonia"}
    assert rows[["difference", "low", "high", "p", "p_holm"]].isna().all(axis=None)
    rest = found.tests[found.tests["metric"].isin(["accuracy", "sensitivity_Covid", "roc_auc_Covid"])]
    assert rest["p_holm"].notna().all()
    assert set(rest["reason"]) == {""}


def test_a_figure_of_classes_is_tested_in_each_and_corrected_for_all(tables):
    found = _compare(tables, metrics=["roc_auc_macro", "roc_auc"])
    aucs = [f"roc_auc_{name}" for name in ("Viral Pneumonia", "Covid", "Normal")]
    assert found.metrics == ["roc_auc_macro", *aucs]
    rows = found.tests[found.tests["metric"].isin(aucs)]
    assert set(rows["test"]) == {"DeLong"}
    assert len(rows) == 3 * 3
    assert list(rows["p_holm"]) == list(holm(rows["p"].to_numpy(float)))
    alone = found.tests[found.tests["metric"] == "roc_auc_macro"]
    assert list(alone["p_holm"]) == list(holm(alone["p"].to_numpy(float)))


def test_of_two_classes_the_one_auc_is_tested_once(make_table):
    labels = ["Covid", "Normal"] * 30
    tables = {name: make_table(labels=labels, classes=("Normal", "Covid"), seed=i) for i, name in enumerate("ab")}
    found = compare(tables, ["roc_auc"], "roc_auc_Covid", 100, 0, 0.95, 15, also=["roc_auc"])
    assert found.metrics == ["roc_auc_Covid"]
    assert list(found.shown) == ["roc_auc_Covid", "roc_auc_Normal"]


def test_further_figures_are_shown_and_not_tested(tables):
    found = compare(tables, ["accuracy"], "accuracy", 100, 0, 0.95, 15, also=["ece", "sensitivity", "accuracy"])
    assert found.metrics == ["accuracy"]
    classes = ("Viral Pneumonia", "Covid", "Normal")
    assert found.shown == {
        "accuracy": ("", "accuracy"),
        "ece": ("", "ece"),
        **{f"sensitivity_{name}": (name, "sensitivity") for name in classes},
    }
    with pytest.raises(CxrnetError, match="also: 'charm' is no figure"):
        compare(tables, ["accuracy"], "accuracy", 100, 0, 0.95, 15, also=["charm"])


def test_unknown_metrics_are_refused(tables):
    with pytest.raises(
        CxrnetError, match=r"metrics: 'auc' is no figure; the figures are accuracy, .*sensitivity_Covid"
    ):
        _compare(tables, metrics=["accuracy", "auc"], by="accuracy")
    with pytest.raises(CxrnetError, match="by: 'log_loss' is none of the metrics accuracy, macro_f1; choose one"):
        _compare(tables, metrics=["accuracy", "macro_f1"], by="log_loss")
    with pytest.raises(CxrnetError, match="tested on different images"):
        _compare(tables | {"middle": tables["middle"].iloc[1:]})
