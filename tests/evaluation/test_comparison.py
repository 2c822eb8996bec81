from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.comparison import Moments, align, moments_of
from cxrnet.evaluation.metrics import evaluate, flat
from cxrnet.evaluation.predictions import check_predictions, classes_of
from cxrnet.evaluation.significance import holm, mcnemar
from cxrnet.reporting.wording import interval_meaning

METRICS = ("roc_auc_macro", "accuracy", "macro_f1", "sensitivity_Covid", "roc_auc_Covid", "log_loss")


CLASSES = ("Viral Pneumonia", "Covid", "Normal")


@pytest.fixture(scope="module")
def tables(make_table):
    labels = [str(label) for label in make_table(n=90)["label"]]
    strengths = {"weak": 0.3, "strong": 3.0, "middle": 1.2}
    return {
        name: make_table(labels=labels, seed=seed, strength=value)
        for seed, (name, value) in enumerate(strengths.items())
    }


@pytest.fixture(scope="module")
def comparison(tables, compare_runs):
    return compare_runs(tables, *METRICS, resamples=500)


def test_images_and_classes_are_put_into_one_order(make_table):
    table = make_table(n=12)
    labels = [str(label) for label in table["label"]]
    turned = make_table(labels=labels, classes=CLASSES[::-1], seed=1).sample(frac=1, random_state=0)
    aligned = align({"a": table, "b": turned})["b"]
    assert (list(aligned["image_id"]), list(aligned["label"])) == (list(table["image_id"]), labels)
    assert classes_of(aligned) == list(CLASSES)
    check_predictions(aligned, "aligned")
    before, after = evaluate(turned)["per_class"], evaluate(aligned)["per_class"]
    for name in CLASSES:
        assert after[name]["roc_auc"]["value"] == pytest.approx(before[name]["roc_auc"]["value"], abs=1e-12)


def test_runs_on_other_images_labels_or_classes_are_refused(make_table):
    table = make_table(n=12)
    relabelled, unlabelled = table.copy(), table.copy()
    relabelled.loc[[2, 5], "label"] = ["Covid" if label != "Covid" else "Normal" for label in table["label"][[2, 5]]]
    unlabelled.loc[4, "label"] = None
    for other, said in (
        (table.iloc[:-3], "3 of the 12 images of 'a' are not in 'b' (as 'test/0009.png')"),
        (table.iloc[1:].assign(image_id=[f"x{i}" for i in range(11)]), "11 of the 11 images of 'b' are not in 'a'"),
        (relabelled, f"2 of 12 images different labels ('test/0002.png': {relabelled['label'][2]}, "),
        (unlabelled, f"('test/0004.png': none, {table['label'][4]})"),
        (make_table(n=12, classes=CLASSES[1:]), "'b' has the classes Covid, Normal, 'a' has Viral Pneumonia, Covid"),
        (None, "1 given; a comparison needs at least two"),
    ):
        with pytest.raises(CxrnetError) as caught:
            align({"a": table} if other is None else {"a": table, "b": other})
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_best_run_stands_first(tables, comparison, compare_runs):
    assert comparison.runs == list(comparison.metrics["run"].unique()) == ["strong", "middle", "weak"]
    assert compare_runs(tables, "accuracy", "log_loss", by="log_loss").runs == ["strong", "middle", "weak"]


def test_metrics_are_those_of_each_run_alone(tables, comparison):
    rows = comparison.metrics.set_index(["run", "metric"])
    for run, table in tables.items():
        for name, _, metric in flat(evaluate(table)):
            assert rows.loc[(run, name), "value"] == pytest.approx(metric["value"], abs=1e-12)
            assert rows.loc[(run, name), "n"] == metric["n"]
    row = rows.loc[("strong", "macro_f1")]
    assert 0 < row["low"] < row["value"] < row["high"] <= 1


def test_every_pair_is_tested_in_every_metric(comparison):
    tests, values = comparison.tests, comparison.metrics.set_index(["run", "metric"])["value"]
    assert list(zip(tests["metric"], tests["a"], tests["b"], strict=True)) == [
        (metric, *pair) for metric in METRICS for pair in combinations(comparison.runs, 2)
    ]
    for test in tests.itertuples():
        assert test.difference == values[test.a, test.metric] - values[test.b, test.metric]
        assert test.low <= test.difference <= test.high
    assert set(tests["n"]) == {90}
    assert comparison.tested == list(METRICS)


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
    right = [(tables[name]["predicted"] == tables[name]["label"]).to_numpy(bool) for name in ("middle", "weak")]
    assert tests.loc[("accuracy", "middle", "weak"), "p"] == mcnemar(*right, comparison.clusters.of_row)


def test_holm_is_over_the_pairs_of_one_metric_and_the_classes_of_its_family(tables, comparison, compare_runs):
    for _, rows in comparison.tests.groupby("metric"):
        assert list(rows["p_holm"]) == list(holm(rows["p"].to_numpy(float)))
    found = compare_runs(tables, "roc_auc_macro", "roc_auc")
    aucs = [f"roc_auc_{name}" for name in CLASSES]
    assert found.tested == ["roc_auc_macro", *aucs]
    rows = found.tests[found.tests["metric"].isin(aucs)]
    assert (set(rows["test"]), len(rows)) == ({"DeLong"}, 3 * 3)
    assert list(rows["p_holm"]) == list(holm(rows["p"].to_numpy(float)))


def test_a_large_difference_is_shown_and_none_where_there_is_none(tables, comparison, compare_runs):
    p = comparison.tests.set_index(["metric", "a", "b"])["p_holm"]
    assert all(p[metric, "strong", "weak"] < 0.05 for metric in METRICS)
    same = compare_runs({"one": tables["weak"], "two": tables["weak"].sample(frac=1, random_state=1)}, *METRICS)
    assert (same.tests["difference"] == 0).all()
    assert same.tests["low"].isna().all()
    assert set(same.tests["reason"]) == {
        "all resamples give the same difference: no interval",
        "the error of the difference is 0: no interval",
    }
    assert (same.tests[["p", "p_holm"]] == 1).all(axis=None)


def test_runs_are_compared_on_the_same_resamples(tables, compare_runs):
    # A run that differs from another in one prediction only: the difference is known far better than each metric.
    other = tables["middle"].copy()
    wrong = np.flatnonzero(other["predicted"] != other["label"])[0]
    other.loc[wrong, "predicted"] = other.loc[wrong, "label"]
    found = compare_runs({"middle": tables["middle"], "other": other}, "accuracy", resamples=500)
    test = found.tests.iloc[0]
    metric = found.metrics[found.metrics["metric"] == "accuracy"].iloc[0]
    assert (test["a"], test["difference"]) == ("other", pytest.approx(1 / 90))
    assert test["low"] == 0
    assert test["high"] - test["low"] < (metric["high"] - metric["low"]) / 3


def test_two_classes_have_one_auc_tested_once(make_table, compare_runs):
    labels = ["Covid", "Normal"] * 30
    tables = {name: make_table(labels=labels, classes=("Normal", "Covid"), seed=i) for i, name in enumerate("ab")}
    found = compare_runs(tables, "roc_auc_macro", "roc_auc_Normal", "roc_auc_Covid")
    assert set(found.tests["test"]) == {"DeLong"}
    rows = found.tests[["difference", "low", "high", "p"]].to_numpy(float)
    assert rows == pytest.approx(np.tile(rows[:1], (3, 1)), abs=1e-9)
    found = compare_runs(tables, "roc_auc", by="roc_auc_Covid", also=["roc_auc"])
    assert found.tested == ["roc_auc_Covid"]
    assert list(found.shown) == ["roc_auc_Covid", "roc_auc_Normal"]


def test_patients_known_to_one_run_hold_for_all(tables, compare_runs):
    unknown = {name: table.assign(patient_id=pd.NA) for name, table in tables.items()}
    assert len(compare_runs(unknown, "accuracy").clusters.stratum) == 90
    assert len(compare_runs(unknown | {"middle": tables["middle"]}, "accuracy").clusters.stratum) == 45


def test_a_metric_that_says_nothing_is_not_tested(make_table, compare_runs):
    labels = ["Covid", "Normal"] * 20
    found = compare_runs({name: make_table(labels=labels, seed=i) for i, name in enumerate("abc")}, *METRICS)
    rows = found.tests[found.tests["metric"] == "roc_auc_macro"]
    assert set(rows["reason"]) == {"no image is labelled Viral Pneumonia"}
    assert rows[["difference", "low", "high", "p", "p_holm"]].isna().all(axis=None)
    rest = found.tests[found.tests["metric"].isin(["accuracy", "sensitivity_Covid", "roc_auc_Covid"])]
    assert rest["p_holm"].notna().all()
    labels = ["Viral Pneumonia"] * 2 + ["Covid", "Normal"] * 29  # patients have two images each
    found = compare_runs(
        {name: make_table(labels=labels, seed=i) for i, name in enumerate("ab")}, "accuracy", "macro_f1"
    )
    tests = found.tests.set_index("metric")
    assert tests.loc["macro_f1", "reason"] == "the images behind it are of one patient"
    assert np.isnan(tests.loc["macro_f1", "p"])
    assert tests.loc["accuracy", "low"] < tests.loc["accuracy", "high"]


def test_a_class_called_macro_is_not_taken_for_the_mean(make_table, compare_runs):
    tables = {name: make_table(classes=("macro", "b", "c"), labels=["macro", "b", "c"] * 9) for name in "xy"}
    found = compare_runs(tables, "roc_auc_macro", also=["roc_auc"])
    assert found.shown["roc_auc_macro"] == ("", "roc_auc_macro")
    assert found.shown["roc_auc_macro (class)"] == ("macro", "roc_auc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metrics": ["accuracy", "auc"]},
            r"metrics: 'auc' is no metric; the metrics are accuracy, .*sensitivity_Covid",
        ),
        ({"also": ["charm"]}, "also: 'charm' is no metric"),
        ({"by": "log_loss"}, "by: 'log_loss' is none of the metrics accuracy; choose one"),
    ],
)
def test_unknown_metrics_are_refused(tables, compare_runs, changes, message):
    with pytest.raises(CxrnetError, match=message):
        compare_runs(tables, "accuracy", **changes)


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
