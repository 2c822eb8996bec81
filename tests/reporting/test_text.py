import re

import pytest
from sklearn.metrics import classification_report

from cxrnet.evaluation.metrics import evaluate
from cxrnet.reporting.text import LINE, REPORT, class_reports, side_by_side


def classification_report_text(metrics):
    return class_reports({"test": metrics}, REPORT)


def roc_auc_text(metrics):
    return class_reports({"test": metrics}, ["roc_auc"])


def _rows(text: str) -> dict[str, list[str]]:
    found = (re.split(r"  +", line.strip()) for line in text.splitlines())
    return {name: cells for name, *cells in found}


def test_report_holds_the_metrics_of_scikit_learn(make_table):
    table = make_table()
    rows = _rows(classification_report_text(evaluate(table)))
    expected = classification_report(table["label"], table["predicted"], output_dict=True)
    for name in ("Viral Pneumonia", "Covid", "Normal", "macro avg", "weighted avg"):
        precision, sensitivity, _, _, f1, support = rows[name]
        metrics = [expected[name][key] for key in ("precision", "recall", "f1-score")]
        assert [precision, sensitivity, f1] == [f"{value:.4f}" for value in metrics]
        assert int(support) == expected[name]["support"]
    assert rows["accuracy"] == [f"{expected['accuracy']:.4f}", "60"]


def test_auc_text(make_table):
    rows = _rows(roc_auc_text(evaluate(make_table(strength=50.0))))
    assert [rows[name][0] for name in ("Covid", "macro avg", "weighted avg")] == ["1.0000"] * 3


@pytest.mark.parametrize("write", [classification_report_text, roc_auc_text])
def test_gaps_are_explained_below_the_table(make_table, write):
    text = write(evaluate(make_table(labels=["Covid", "Normal"] * 5)))
    assert "n/a" in _rows(text)["Viral Pneumonia"]
    assert text.endswith("n/a: no image is labelled Viral Pneumonia\n")
    assert "nan" not in text


def _cells(text: str, row: str) -> list[str]:
    """The cells of a row in every block of a table of runs."""
    lines = [line.removeprefix(row) for line in text.splitlines() if line.startswith(f"{row} ")]
    return [cell for line in lines for cell in re.split(r"  +", line.strip())]


def test_runs_side_by_side_show_what_each_report_shows(make_table):
    tables = {"model=a": make_table(strength=4.0), "model=b": make_table(strength=0.5)}
    text = side_by_side(tables)
    reports = [_rows(classification_report_text(evaluate(table))) for table in tables.values()]
    assert text.splitlines()[0].split() == ["model=a", "model=b"]
    assert _cells(text, "Covid: precision") == [rows["Covid"][0] for rows in reports]
    assert _cells(text, "Normal: support") == [rows["Normal"][5] for rows in reports]
    assert _cells(text, "accuracy") == [rows["accuracy"][0] for rows in reports]
    assert _cells(text, "macro f1") == [rows["macro avg"][4] for rows in reports]
    aucs = [_rows(roc_auc_text(evaluate(table)))["macro avg"][0] for table in tables.values()]
    assert _cells(text, "macro ROC-AUC") == aucs
    assert "same images" not in text


def test_many_runs_go_on_below_with_the_rows_repeated(make_table):
    tables = {f"model=a_rather_long_name_{i:02d} seed={i}": make_table(seed=i) for i in range(12)}
    text = side_by_side(tables)
    assert max(map(len, text.splitlines())) <= LINE
    assert len(_cells(text, "accuracy")) == 12
    assert [word for word in text.split() if word.startswith("seed=")][:12] == [f"seed={i}" for i in range(12)]


def test_runs_on_other_images_or_labels_are_told(make_table):
    same = [make_table(labels=["Covid", "Normal"] * 5, seed=seed) for seed in (0, 1)]
    other = make_table(labels=["Normal", "Covid"] * 5, split="val")
    text = side_by_side({"a": same[0], "b": same[1], "c": other})
    assert "The runs were not evaluated on the same images" in text
    assert text.endswith("\n  test 10: a; b\n  val 10: c\n")


def test_a_class_that_a_run_does_not_know_is_left_open(make_table):
    text = side_by_side({"a": make_table(classes=("Covid", "Normal")), "b": make_table(classes=("Covid", "Fibrosis"))})
    assert _cells(text, "Normal: support")[1] == "-"
    assert _cells(text, "Fibrosis: support")[0] == "-"
    assert text.index("Fibrosis") < text.index("accuracy")
