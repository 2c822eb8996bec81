import dataclasses
import html
import re

import numpy as np
import pandas as pd
import pytest
from rich import get_console

from cxrnet.evaluation.predictions import make_predictions
from cxrnet.reporting.comparison import (
    ComparedRuns,
    leaderboard,
    printed_tables,
    say_comparison,
    verdict,
    warnings_of,
    write_comparison,
)

METRICS = ["roc_auc_macro", "accuracy", "macro_f1", "sensitivity_Covid", "log_loss"]
NASTY = "a|b_50% & <b>*x*</b> $#{y}~^\\"  # markup of Markdown, LaTeX and HTML
FACTS = {
    "a": {"backbone": "resnet50", "parameters": 23514179, "training_seconds": 192.0, "data": "one"},
    "b": {"backbone": "vgg16", "parameters": 14716227, "data": "one"},
}


@pytest.fixture(scope="module")
def two_runs(make_table, compare_runs):
    """Two runs on the same 60 images, ``a`` better than ``b``; an ECE and the NPV of each class aren't tested."""
    labels = [str(label) for label in make_table()["label"]]
    tables = {"b": make_table(labels=labels, strength=0.5), "a": make_table(labels=labels, seed=1, strength=4.0)}
    return ComparedRuns(compare_runs(tables, "macro_f1", "sensitivity_Covid", also=["ece", "npv"]), FACTS, {})


@pytest.fixture(scope="module")
def said(make_table, compare_runs):
    """Verdict and warnings on runs of these strengths, which had these images leaked."""
    labels = [str(label) for label in make_table(n=90)["label"]]

    def make(strengths, leaked=None, labels=labels, metric="roc_auc_macro", resamples=500):
        tables = {
            name: make_table(labels=labels, seed=seed, strength=value)
            for seed, (name, value) in enumerate(strengths.items())
        }
        runs = ComparedRuns(compare_runs(tables, metric, resamples=resamples), {}, leaked or {})
        return verdict(runs), warnings_of(runs)

    return make


def test_the_verdict_says_what_is_shown_and_what_is_not(said):
    text, _ = said({"weak": 0.0, "strong": 3.0, "twin": 3.0})
    assert re.match(r"(strong|twin) is the best by ROC-AUC, macro: 0\.9\d+ \(95 % confidence interval 0\.", text)
    assert text.endswith(("to be better than weak, but not than twin.", "better than weak, but not than strong."))
    assert said({"weak": 0.0, "strong": 3.0})[0].endswith("The tests show it to be better than weak.")
    assert "The tests do not show it to be better than" in said({"strong": 3.0, "twin": 3.0})[0]
    assert said({f"run {i}": 1.0 for i in range(6)} | {"best": 9.0})[0].endswith("better than 6 others.")
    no_value, _ = said({"a": 1.0, "b": 1.0}, labels=["Covid", "Normal"] * 10)
    assert no_value == "No run has a value of ROC-AUC, macro: no image is labelled Viral Pneumonia."


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"weak": set()}, "into whose training not all of these were leaked."),
        ({"weak": {"0"}}, "into whose training not all of these were leaked."),
        ({}, "of which that is not known."),
    ],
)
def test_a_run_with_more_leaked_images_is_not_found_better(said, others, words):
    text, warnings = said({"weak": 0.0, "strong": 3.0}, {"strong": {"0", "1"}, **others})
    assert "But 2 of the 90 images were leaked into its training" in text
    assert text.endswith(f"it is not shown to be better than weak, {words}")
    assert warnings[0].startswith("strong: 2 of the 90 images were leaked")


def test_the_tests_stand_for_those_with_as_many_leaked_images(said):
    leak = {"0", "1"}
    text, _ = said({"weak": 0.0, "strong": 3.0, "clean": 0.1}, {"strong": leak, "weak": leak, "clean": set()})
    assert "better than clean, into whose training" in text
    assert text.endswith("The tests show it to be better than weak.")


def test_better_is_what_the_p_and_the_interval_show(make_table, compare_runs):
    labels = [str(label) for label in make_table(n=90)["label"]]
    tables = {name: make_table(labels=labels, seed=int(name), strength=3.0 * int(name)) for name in "01"}
    comparison = compare_runs(tables, "accuracy", resamples=500)
    assert verdict(ComparedRuns(comparison, {}, {})).endswith("The tests show it to be better than 0.")
    wide = dataclasses.replace(comparison, tests=comparison.tests.assign(low=-0.01))
    assert (wide.tests["p_holm"] < 0.001).all()
    assert verdict(ComparedRuns(wide, {}, {})).endswith("The tests do not show it to be better than 0.")


def test_too_few_resamples_for_the_runs_are_a_warning(said):
    runs = {f"run {i}": 1.0 for i in range(4)}
    assert said(runs, resamples=100)[1][1].startswith("No paired bootstrap can show a difference: with 100 resamples")
    assert len(said(runs, resamples=1000)[1]) == len(said(runs, resamples=100, metric="roc_auc_Covid")[1]) == 1


def test_the_leaderboard_is_numbers(two_runs):
    table = leaderboard(two_runs)
    shown = ("macro_f1", "sensitivity_Covid", "ece", *(f"npv_{name}" for name in two_runs.comparison.classes))
    ends = [f"{name}{end}" for name in shown for end in ("", "_low", "_high")]
    assert list(table.columns) == ["run", "backbone", "parameters", "training_seconds", "data", *ends]
    assert list(table["run"]) == ["a", "b"]
    assert list(table["parameters"]) == [23514179, 14716227]
    assert table["training_seconds"].isna().tolist() == [False, True]
    values = two_runs.comparison.metrics.set_index(["run", "metric"])
    assert table["macro_f1_low"][1] == values.loc[("b", "macro_f1"), "low"]


def test_printed_tables(two_runs):
    tables, numbers = printed_tables(two_runs), leaderboard(two_runs)
    board = tables["leaderboard"]
    assert list(board.rows.columns) == ["Run", "Backbone", "Parameters", "Training", "F1, macro", "ECE"]
    row = numbers.iloc[0]
    f1 = f"{row['macro_f1']:.3f}\n({row['macro_f1_low']:.3f}–{row['macro_f1_high']:.3f})"
    assert board.lines()[0][:-1] == ["a", "resnet50", "23\u202f514\u202f179", "3\u00a0min 12\u00a0s", f1]
    assert board.lines()[1][3] == "–"
    assert board.note.startswith("The best first, by F1, macro. 60 images;")
    assert board.note.endswith("The same for all runs: data one.")
    assert "ECE in 15 bins." in board.note
    classes = tables["class_metrics"]
    assert list(classes.rows.columns) == ["Class", "Run", "Sensitivity", "NPV", "Images"]
    (pneumonia, covid, _) = (rows for _, rows in classes.groups())
    assert covid[0][1].startswith(f"{numbers['sensitivity_Covid'][0]:.3f}\n(")
    assert pneumonia[0][1] == ""  # that of Covid alone was asked for
    labels = two_runs.comparison.tables["a"]["label"]
    assert covid[0][-1] == str((labels == "Covid").sum())
    (group, [first]), (second, _) = tables["tests"].groups()
    assert (group, second) == ("F1, macro: paired bootstrap", "Sensitivity, Covid: paired bootstrap")
    test = two_runs.comparison.tests.iloc[0]
    assert first[0] == "a\nagainst b"
    assert first[1].startswith(f"+{test['difference']:.3f}\n(+")
    assert first[2:] == [f"{test['p']:.3f}", f"{test['p_holm']:.3f}"]
    assert "corrected for 1 pair of runs" in tables["tests"].note


def test_gaps_are_named_with_their_reason(make_table, compare_runs):
    tables = {name: make_table(labels=["Covid", "Normal"] * 20, seed=i) for i, name in enumerate("ab")}
    printed = printed_tables(ComparedRuns(compare_runs(tables, "macro_f1", "accuracy", by="accuracy"), {}, {}))
    assert list(printed) == ["leaderboard", "tests"]
    assert all(table.note.endswith("Missing: no image is labelled Viral Pneumonia.") for table in printed.values())
    assert printed["leaderboard"].lines()[0][1] == "n/a"
    line = printed["tests"].lines()[0]
    assert [line[0], *line[2:]] == ["F1, macro: no test", "n/a", "n/a", "n/a"]


@pytest.fixture(scope="module")
def nasty(make_table, compare_runs):
    labels = [str(label) for label in make_table()["label"]]
    names = ["2026-11-22_17-05-40_mobilenet_v2_covid19_image", "strong", NASTY]
    tables = {name: make_table(labels=labels, seed=i, strength=i) for i, name in enumerate(names)}
    comparison = compare_runs(tables, *METRICS, also=["ece", "specificity"])
    facts = {run: {"backbone": f"net_{i}", "seed": 7} for i, run in enumerate(comparison.runs)}
    return ComparedRuns(comparison, facts, {comparison.runs[1]: {f"{i}" for i in range(9)}})


@pytest.fixture(scope="module")
def folder(nasty, tmp_path_factory):
    place = tmp_path_factory.mktemp("comparison") / "new"
    files = write_comparison(nasty, place)
    assert set(files) == set(place.iterdir())
    return place


def test_csv_holds_the_same_numbers(nasty, folder):
    names = {file.name for file in folder.iterdir()}
    assert names == {
        *("comparison.html", "comparison.md", "comparison.tex", "leaderboard.csv", "metrics.csv", "tests.csv"),
        *("confusion_matrices.png", "roc_overlay.png"),
    }
    tests = pd.read_csv(folder / "tests.csv", keep_default_na=False)
    assert list(tests["a"]) == list(nasty.comparison.tests["a"])
    assert tests["p_holm"].to_list() == pytest.approx(nasty.comparison.tests["p_holm"].to_list())
    assert pd.read_csv(folder / "leaderboard.csv")["run"].to_list() == nasty.comparison.runs
    assert len(pd.read_csv(folder / "metrics.csv")) == len(nasty.comparison.metrics)


def test_markdown_tables_keep_their_columns(folder):
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    # Leaderboard (the shared fact is no column), metrics of each class, tests.
    assert list(dict.fromkeys(widths)) == [len(METRICS) + 3, 6]
    assert r"a\|b_50% & &lt;b>\*x\*&lt;/b> \$#{y}\~^" in text
    assert "(roc_overlay.png)" in text.splitlines()[-1]


def test_latex_is_escaped(folder):
    text = (folder / "comparison.tex").read_text(encoding="utf-8")
    assert r"a$|$b\_50\% \& $<$b$>$*x*$<$/b$>$ \$\#\{y\}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 3
    assert text.isascii()


def test_the_page_says_what_the_tables_say(nasty, folder, check_standalone, phone):
    page = (folder / "comparison.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", page.split("<body>")[1])))
    for words in ("3 runs on the same 60 images", "9 of the 60 images were leaked", "Metrics of each class", NASTY):
        assert words in text
    for row in nasty.comparison.tests.itertuples():
        assert f"{abs(row.difference):.3f}" in text
    assert "<b>*" not in page
    check_standalone(page)
    assert phone(page) == "hidden 0 px, seen 2 of 2"


@pytest.fixture
def printed(compare_runs, monkeypatch, capsys):
    """A comparison of runs of these names on a console of 100 columns."""
    monkeypatch.setattr(get_console(), "_width", 100)

    def call(*names):
        rng, labels = np.random.default_rng(0), np.arange(40) % 2
        rows = pd.DataFrame({"image_id": [f"{i}" for i in range(40)], "path": "x", "split": "test", "source": "s"})
        rows = rows.assign(label=np.array(["a", "b"])[labels], patient_id=rows["image_id"])
        tables = {
            name: make_predictions(rows, ("a", "b"), rng.normal(np.eye(2)[labels], 1 + place).astype(np.float32))
            for place, name in enumerate(names)
        }
        comparison = compare_runs(tables, "roc_auc_macro", "accuracy", "balanced_accuracy", "macro_f1", "brier")
        say_comparison(ComparedRuns(comparison, {run: {"seed": 0} for run in names}, {}))
        return comparison, capsys.readouterr().out

    return call


def test_the_console_shows_all_metrics_and_tests_and_no_number_is_torn(printed):
    comparison, said = printed("model=mobilenet_v2 lr=0.001", "model=resnet50 [b]lr=0.01[/b]")
    board, tests = said.split("\nLeaderboard\n")[1].split("\nDifferences\n")
    for words in ("ROC-AUC, macro", "Brier", "[b]lr=0.01[/b]", "The same for all runs: seed 0."):
        assert words in board
    for row in comparison.metrics[comparison.metrics["metric"].isin(comparison.tested)].itertuples():
        assert f"({row.low:.3f}–{row.high:.3f})" in board
    for row in comparison.tests.itertuples():
        assert f"{row.p:.3f}" in tests or row.p < 0.0005
    tables = [line for line in said.splitlines() if not line.startswith(("  note", "  result", "  warning"))]
    assert max(map(len, tables)) <= 100


def test_of_many_runs_the_console_shows_the_metric_that_ranks_them(printed):
    _, said = printed(*(f"run {i}" for i in range(7)))
    board, tests = said.split("\nLeaderboard\n")[1].split("\nDifferences\n")
    assert board.count("run ") >= 7
    assert "Accuracy" not in board
    assert "all 105 are in tests.csv" in " ".join(tests.split())
    assert (tests.count("against"), "ROC-AUC, macro: DeLong" in tests, "McNemar" in tests) == (21, True, False)
