import pytest
from sklearn.metrics import classification_report

from cxrnet.evaluation.text import classification_report_text, roc_auc_text


def _rows(text: str) -> dict[str, list[str]]:
    return {line[:15].strip(): line[15:].split() for line in text.splitlines() if line[:15].strip()}


def test_report_holds_the_figures_of_scikit_learn(make_table):
    table = make_table()
    rows = _rows(classification_report_text(table))
    expected = classification_report(table["label"], table["predicted"], output_dict=True)
    for name in ("Viral Pneumonia", "Covid", "Normal", "macro avg", "weighted avg"):
        precision, sensitivity, _, _, f1, support = rows[name]
        figures = [expected[name][key] for key in ("precision", "recall", "f1-score")]
        assert [precision, sensitivity, f1] == [f"{value:.4f}" for value in figures]
        assert int(support) == expected[name]["support"]
    assert rows["accuracy"] == [f"{expected['accuracy']:.4f}", "60"]


def test_auc_text(make_table):
    rows = _rows(roc_auc_text(make_table(strength=50.0)))
    assert [rows[name][0] for name in ("Covid", "macro avg", "weighted avg")] == ["1.0000"] * 3


@pytest.mark.parametrize("write", [classification_report_text, roc_auc_text])
def test_gaps_are_explained_below_the_table(make_table, write):
    text = write(make_table(labels=["Covid", "Normal"] * 5))
    assert "n/a" in _rows(text)["Viral Pneumonia"]
    assert text.endswith("n/a: no image is labelled Viral Pneumonia\n")
    assert "nan" not in text
