import pytest

from cxrnet.evaluation.comparison import compare
from cxrnet.reporting.comparison_tables import fact_text, leaderboard, printed_tables, title_of


@pytest.fixture(scope="module")
def gaps(make_table):
    tables = {name: make_table(labels=["Covid", "Normal"] * 20, seed=i) for i, name in enumerate("ab")}
    return compare(tables, ["macro_f1", "accuracy"], "accuracy", 100, 0, 0.95, 15)


def test_printed_leaderboard(two_runs, facts_of_runs):
    table = printed_tables(two_runs, facts_of_runs)["leaderboard"]
    assert list(table.rows.columns) == ["Run", "Backbone", "Parameters", "Training", "F1, macro"]
    row = leaderboard(two_runs, facts_of_runs).iloc[0]
    assert table.lines()[0] == [
        "a",
        "resnet50",
        "23\u202f514\u202f179",
        "3\u00a0min 12\u00a0s",
        f"{row['macro_f1']:.3f}\n({row['macro_f1_low']:.3f}–{row['macro_f1_high']:.3f})",
    ]
    assert table.lines()[1][3] == "–"
    assert table.note == (
        "The best first, by F1, macro. 60 images; each figure with its 95% interval. The same for all runs: data one."
    )


def test_figures_that_are_not_tested_and_those_of_classes_have_tables_of_their_own(two_runs, facts_of_runs):
    tables, numbers = printed_tables(two_runs, facts_of_runs), leaderboard(two_runs, facts_of_runs)
    assert list(tables["further"].rows.columns) == ["Run", "ECE (lower is better)"]
    assert [line[0] for line in tables["further"].lines()] == ["a", "b"]
    assert tables["further"].note == "Not tested. Each figure with its 95% interval. ECE in 15 bins."
    classes = tables["class_figures"]
    assert list(classes.rows.columns) == ["Class", "Run", "Sensitivity", "NPV"]
    assert [name for name, _ in classes.groups()] == two_runs.classes
    (pneumonia, covid, _) = (rows for _, rows in classes.groups())
    assert covid[0][1].startswith(f"{numbers['sensitivity_Covid'][0]:.3f}\n(")
    assert pneumonia[0][1] == ""  # that of Covid alone was asked for
    assert covid[1][2].startswith(f"{numbers['npv_Covid'][1]:.3f}\n(")


def test_tables_without_figures_are_left_out(gaps):
    assert list(printed_tables(gaps, {})) == ["leaderboard", "tests", "class_reports"]


def test_two_tests_of_an_auc_are_explained(make_table):
    labels = [str(label) for label in make_table()["label"]]
    tables = {name: make_table(labels=labels, seed=i) for i, name in enumerate("ab")}
    both = compare(tables, ["roc_auc_macro", "roc_auc"], "roc_auc_macro", 100, 0, 0.95, 15)
    assert "mean over the classes is left to the bootstrap" in printed_tables(both, {})["tests"].note
    alone = compare(tables, ["roc_auc_Covid", "accuracy"], "accuracy", 100, 0, 0.95, 15)
    assert "left to the bootstrap" not in printed_tables(alone, {})["tests"].note


def test_printed_tests(two_runs):
    table = printed_tables(two_runs, {})["tests"]
    test = two_runs.tests.iloc[0]
    (group, [row]), (second, _) = table.groups()
    assert (group, second) == ("F1, macro: paired bootstrap", "Sensitivity, Covid: paired bootstrap")
    assert row[0] == "a\nagainst b"
    assert row[1].startswith(f"+{test['difference']:.3f}\n(+")
    assert row[2:] == [f"{test['p']:.3f}", f"{test['p_holm']:.3f}"]
    assert "corrected for 1 pair of runs" in table.note


def test_a_group_is_named_once(two_runs):
    lines = printed_tables(two_runs, {})["class_reports"].lines()
    assert [line[0] for line in lines] == ["a", "", "", "", "", "b", "", "", "", ""]
    assert [line[1] for line in lines[:5]] == ["Viral Pneumonia", "Covid", "Normal", "macro avg", "accuracy"]
    assert lines[4][2:4] == ["", ""]


def test_gaps_are_named_with_their_reason(gaps):
    tables = printed_tables(gaps, {})
    reason = "Missing: no image is labelled Viral Pneumonia."
    assert all(table.note.endswith(reason) for table in tables.values())
    assert tables["leaderboard"].lines()[0][1] == "n/a"
    assert tables["tests"].lines()[0] == ["F1, macro: no test", "a\nagainst b", "n/a", "n/a", "n/a"] or (
        tables["tests"].lines()[0][1] == "b\nagainst a"
    )
    assert tables["class_reports"].lines()[0][2:] == ["n/a", "n/a", "n/a", "0"]
    assert all("nan" not in cell for table in tables.values() for line in table.lines() for cell in line)


def test_facts():
    assert [fact_text("x", value) for value in (None, True, 1234567, 0.00012345, "resnet50", ["a", "b"])] == [
        "–",
        "yes",
        "1\u202f234\u202f567",
        "0.0001234",
        "resnet50",
        "['a', 'b']",
    ]
    assert fact_text("training seconds", 48) == "48\u00a0s"


def test_titles(two_runs):
    named = {"macro_f1": "F1, macro", "sensitivity_Covid": "Sensitivity, Covid", "roc_auc_Normal": "ROC-AUC, Normal"}
    assert {name: title_of(name, two_runs) for name in named} == named
    assert title_of("cosine_similarity", two_runs) == "Cosine similarity"
