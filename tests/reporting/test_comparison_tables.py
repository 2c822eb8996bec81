import pytest
from sklearn.metrics import classification_report

from cxrnet.reporting.comparison_tables import class_reports, leaderboard, shared_facts


def test_leaderboard_is_numbers(two_runs, facts_of_runs):
    table = leaderboard(two_runs, facts_of_runs)
    facts = ["backbone", "parameters", "training_seconds", "data"]
    shown = ("macro_f1", "sensitivity_Covid", "ece", *(f"npv_{name}" for name in two_runs.classes))
    ends = [f"{name}{end}" for name in shown for end in ("", "_low", "_high")]
    assert list(table.columns) == ["run", *facts, *ends]
    assert list(table["run"]) == ["a", "b"]
    assert list(table["parameters"]) == [23514179, 14716227]
    assert table["training_seconds"].isna().tolist() == [False, True]
    figures = two_runs.figures.set_index(["run", "metric"])
    assert table["macro_f1_low"][1] == figures.loc[("b", "macro_f1"), "low"]
    assert list(leaderboard(two_runs, {}).columns) == ["run", *ends]


def test_reports_are_those_of_scikit_learn(two_runs):
    rows = class_reports(two_runs).set_index(["run", "class"])
    for run, table in two_runs.tables.items():
        expected = classification_report(table["label"], table["predicted"], output_dict=True)
        for name in (*two_runs.classes, "macro avg"):
            figures = [expected[name][key] for key in ("precision", "recall", "f1-score", "support")]
            assert list(rows.loc[(run, name), ["precision", "recall", "f1", "support"]]) == pytest.approx(figures)
        assert rows.loc[(run, "accuracy"), "f1"] == pytest.approx(expected["accuracy"])
        assert rows.loc[(run, "accuracy"), "support"] == 60


def test_facts_that_all_runs_share(facts_of_runs):
    assert shared_facts(facts_of_runs) == {"data": "one"}
    assert shared_facts({}) == {}
