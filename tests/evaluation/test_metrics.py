import json

import numpy as np
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import clusters_of
from cxrnet.evaluation.metrics import evaluate, evaluate_resampled


def test_absent_class_is_a_stated_gap(make_table):
    metrics = evaluate(make_table(labels=["Covid", "Normal"] * 10))
    gap = {"value": None, "n": 0, "reason": "no image is labelled Viral Pneumonia"}
    absent = metrics["per_class"]["Viral Pneumonia"]
    assert absent["specificity"]["n"] == 20
    assert all(absent[name] == gap for name in ("sensitivity", "precision", "npv", "f1", "roc_auc", "pr_auc"))
    macros = ("balanced_accuracy", "macro_f1", "roc_auc_macro", "roc_auc_weighted", "pr_auc_macro")
    assert all(metrics[name] == gap for name in macros)
    assert metrics["accuracy"]["n"] == metrics["log_loss"]["n"] == 20
    assert metrics["per_class"]["Covid"]["roc_auc"]["value"] is not None


def test_class_that_is_never_predicted(make_table):
    table = make_table().assign(predicted="Normal")
    metrics = evaluate(table)
    assert metrics["per_class"]["Covid"]["precision"] == {
        "value": None,
        "n": 0,
        "reason": "no image was predicted as Covid",
    }
    assert metrics["per_class"]["Normal"]["npv"]["reason"] == "every image was predicted as Normal"
    assert metrics["per_class"]["Covid"]["sensitivity"]["value"] == 0
    assert metrics["macro_f1"]["value"] is not None


@pytest.mark.parametrize("resamples", [0, 100])
def test_metrics_are_plain_json_without_nan(make_table, resamples):
    metrics = evaluate(make_table(labels=["Covid", "Normal"] * 3), resamples)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def every(metrics):
    yield from (metric for name, metric in metrics.items() if name != "per_class")
    yield from (metric for of_class in metrics["per_class"].values() for metric in of_class.values())


def test_intervals_change_no_value(make_table):
    table = make_table()
    plain, with_intervals = evaluate(table), evaluate(table, 100)
    for metric, same in zip(every(plain), every(with_intervals), strict=True):
        assert set(metric) == {"value", "n"}
        assert metric.items() <= same.items()
        assert same["interval"][0] <= same["value"] <= same["interval"][1]


def test_tables_of_the_same_images_are_drawn_alike(make_table):
    table = make_table(n=200, strength=1.0)
    better = make_table(n=200, strength=1.5)
    clusters = clusters_of(table)
    _, first = evaluate_resampled(table, clusters, 200, 0)
    _, second = evaluate_resampled(better, clusters, 200, 0)
    alone = np.var(first["", "accuracy"]) + np.var(second["", "accuracy"])
    assert np.var(first["", "accuracy"] - second["", "accuracy"]) < 0.5 * alone
    assert first["Covid", "roc_auc"].shape == (200,)


@pytest.mark.parametrize(
    ("changes", "message"), [({"resamples": 5}, "resamples: 5"), ({"level": 95}, "level: 95 is no")]
)
def test_settings_that_give_no_interval(make_table, changes, message):
    with pytest.raises(CxrnetError, match=message):
        evaluate(make_table(), **{"resamples": 100, **changes})


def test_empty_and_unlabelled_tables_are_refused(make_table):
    with pytest.raises(CxrnetError, match="no rows"):
        evaluate(make_table().iloc[:0])
    table = make_table(n=5)
    table.loc[:1, "label"] = None
    with pytest.raises(CxrnetError, match="2 of 5 images have no label"):
        evaluate(table)
