import numpy as np
import pytest

from cxrnet.evaluation.confidence_intervals import clusters_of, percentile
from cxrnet.evaluation.generalisation import Sides, change_interval, generalisation_table, internal_side, shared_classes
from cxrnet.evaluation.metrics import evaluate, evaluate_resampled
from cxrnet.reporting.external import drop_table, verdicts

CLASSES = ("Viral Pneumonia", "Covid", "Normal")
RESAMPLES = 400
OVER = ["Viral Pneumonia", "Covid"]


@pytest.fixture(scope="module")
def internal(make_table):
    return make_table(120, strength=3.0)


@pytest.fixture(scope="module")
def external(make_table):
    """Images of two of the three classes, on which the model is worse."""
    table = make_table(150, seed=1, strength=1.0)
    return table[table["label"] != "Normal"].reset_index(drop=True)


def sides(internal, external, resamples=RESAMPLES):
    own, evaluated = internal_side(internal, external), shared_classes(external, internal)
    return Sides(
        evaluate(external, resamples, over=evaluated),
        None if own is None else evaluate(own, resamples, over=evaluated),
        evaluated,
        {"majority": evaluate(external, over=evaluated)},
    )


@pytest.fixture(scope="module")
def table(internal, external):
    return generalisation_table({"b": sides(internal, external), "c": sides(None, internal)}, {"d": "no image is left"})


def row(table, data, metric, label=""):
    (found,) = table[(table["data"] == data) & (table["metric"] == metric) & (table["class"] == label)].to_dict(
        "records"
    )
    return found


def test_internal_images_of_other_classes_are_no_comparison(internal, external):
    own = internal_side(internal, external)
    assert set(own["label"]) == {"Viral Pneumonia", "Covid"}
    assert len(own) == internal["label"].isin(["Viral Pneumonia", "Covid"]).sum()
    assert internal_side(internal[internal["label"] == "Normal"], external) is None
    assert internal_side(None, external) is None


def test_the_change_is_external_minus_internal_with_an_interval(table):
    accuracy = row(table, "b", "accuracy")
    assert accuracy["change"] == pytest.approx(accuracy["external"] - accuracy["internal"])
    assert accuracy["change_low"] < accuracy["change"] < accuracy["change_high"] < 0
    assert accuracy["external_low"] < accuracy["external"] < accuracy["external_high"]
    assert (accuracy["majority"], np.isnan(accuracy["thumbnail"])) == (accuracy["external"], True)
    assert (accuracy["reason"], accuracy["internal_n"] > 50, accuracy["external_n"] > 80) == ("", True, True)


def test_what_is_missing_is_a_stated_gap(table):
    sensitivity = row(table, "b", "sensitivity", "Normal")
    assert np.isnan([sensitivity["external"], sensitivity["change"], sensitivity["change_low"]]).all()
    assert sensitivity["reason"] == "internal: no image is labelled Normal; external: no image is labelled Normal"
    assert row(table, "b", "specificity", "Normal")["change"] < 0
    auc = row(table, "c", "roc_auc_macro")
    assert auc["external"] > 0.9
    assert np.isnan([auc["internal"], auc["change"], auc["change_low"]]).all()
    assert auc["reason"] == "no internal result is known"
    assert row(table, "d", "roc_auc_macro")["reason"] == "no image is left"


def test_the_interval_of_the_change_is_that_of_a_bootstrap_of_the_difference(make_table):
    first, second = make_table(300, strength=2.0), make_table(300, seed=1, strength=1.0)
    (a, drawn_a), (b, drawn_b) = (
        evaluate_resampled(rows, clusters_of(rows), 4000, seed) for seed, rows in enumerate((first, second))
    )
    for name in ("accuracy", "roc_auc_macro"):
        expected = percentile(drawn_b["", name] - drawn_a["", name], 150)
        assert change_interval(a[name], b[name]) == pytest.approx(expected, abs=0.01)


def test_means_are_over_the_classes_of_both_sides(table, internal, external):
    assert shared_classes(external, internal) == shared_classes(external, None) == OVER
    for name, part in (("roc_auc_macro", "roc_auc"), ("balanced_accuracy", "sensitivity"), ("macro_f1", "f1")):
        mean = row(table, "b", name)
        parts = [row(table, "b", part, label) for label in OVER]
        assert mean["over"] == "Viral Pneumonia, Covid"
        for side in ("internal", "external"):
            assert mean[side] == pytest.approx(np.mean([each[side] for each in parts]))
            assert mean[f"{side}_low"] < mean[side] <= mean[f"{side}_high"]
    assert row(table, "b", "accuracy")["over"] == row(table, "c", "roc_auc_macro")["over"] == ""


def test_the_printed_table_begins_with_the_leading_metric(table):
    printed = drop_table(table, 0.95)
    assert list(printed.rows.columns) == ["Data", "Metric", "Internal", "External", "Change"]
    groups = dict(printed.groups())
    assert list(groups) == ["b", "c", "d"]
    metrics = [line[0] for line in groups["b"]]
    assert metrics[:2] == ["ROC-AUC, macro of Viral Pneumonia, Covid alone", "Accuracy"]
    assert {"Sensitivity, Covid", "Specificity, Covid", "ROC-AUC, Covid"} <= set(metrics)
    accuracy = row(table, "b", "accuracy")
    assert groups["b"][1][1] == "{internal:.3f}\n({internal_low:.3f}–{internal_high:.3f})".format(**accuracy)
    assert groups["b"][1][3].startswith(f"−{-accuracy['change']:.3f}\n(−")
    assert groups["d"] == [["ROC-AUC, macro", "n/a", "n/a", "n/a"]]
    assert "b: internal: no image is labelled Normal" in printed.note
    assert "c: no internal result is known" in printed.note


def test_the_verdict_says_whether_a_drop_is_shown(make_table, table):
    good, same, bad = (make_table(200, seed=seed, strength=strength) for seed, strength in ((0, 3), (1, 3), (2, 0.5)))
    results = {"same": sides(good, same), "bad": sides(good, bad), "good": sides(None, good)}
    same, bad, alone = verdicts(generalisation_table(results, {}))
    assert "is not shown to be a drop" in same
    assert bad.startswith("bad: ROC-AUC, macro drops by 0.")
    assert "from 0.9" in bad
    assert "nothing internal to compare it with" in alone
    of_some, _, gap = verdicts(table)
    assert of_some.startswith("b: ROC-AUC, macro of Viral Pneumonia, Covid alone drops by 0.")
    assert gap == "d: ROC-AUC, macro can't be computed (no image is left)."


def test_of_a_single_class_the_sensitivity_is_stated(make_table):
    internal, external = make_table(60, strength=3.0), make_table(labels=["Covid"] * 30, seed=1)
    table = generalisation_table({"a": sides(internal, external)}, {})
    assert row(table, "a", "roc_auc_macro")["reason"].endswith("external: every image is labelled Covid")
    assert row(table, "a", "sensitivity", "Covid")["external_low"] > 0
    (said,) = verdicts(table)
    assert said.startswith("a: Sensitivity, Covid drops by ")
