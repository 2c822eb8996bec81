"""A comparison as it stands on a console of 100 columns."""

import numpy as np
import pandas as pd
import pytest
from rich import get_console

from cxrnet.evaluation.comparison import Comparison, compare
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.reporting.comparison import say_comparison

METRICS = ["roc_auc_macro", "accuracy", "balanced_accuracy", "macro_f1", "pr_auc_macro", "brier"]


def compared(*names: str, images: int = 40) -> Comparison:
    rng = np.random.default_rng(0)
    labels = np.arange(images) % 2
    rows = pd.DataFrame(
        {"image_id": [f"{i}" for i in range(images)], "path": "x", "label": np.array(["a", "b"])[labels]}
    )
    rows = rows.assign(split="test", source="s", patient_id=rows["image_id"])
    tables = {
        name: make_predictions(rows, ("a", "b"), rng.normal(np.eye(2)[labels], 1 + place).astype(np.float32))
        for place, name in enumerate(names)
    }
    return compare(tables, METRICS, "roc_auc_macro", 100, 0, 0.95, 15)


@pytest.fixture
def console(monkeypatch):
    monkeypatch.setattr(get_console(), "_width", 100)


@pytest.mark.usefixtures("console")
def test_all_figures_and_tests_are_shown_and_no_number_is_torn(capsys):
    comparison = compared("model=mobilenet_v2 lr=0.001", "model=resnet50 [b]lr=0.01[/b]")
    say_comparison(comparison, {run: {"backbone": run[6:14], "seed": 0} for run in comparison.runs}, {})
    said = capsys.readouterr().out
    board, tests = said.split("\nLeaderboard\n")[1].split("\nDifferences\n")
    for words in ("ROC-AUC, macro", "Brier", "Backbone", "[b]lr=0.01[/b]", "The same for all runs: seed 0."):
        assert words in board
    for _, row in comparison.figures[comparison.figures["metric"].isin(METRICS)].iterrows():
        assert f"({row['low']:.3f}–{row['high']:.3f})" in board
    for _, row in comparison.tests.iterrows():
        assert f"{row['p']:.3f}" in tests or row["p"] < 0.0005
    tables = [line for line in said.splitlines() if not line.startswith(("  note", "  result", "  warning"))]
    assert max(map(len, tables)) <= 100


@pytest.mark.usefixtures("console")
def test_of_many_tests_those_of_the_first_figure_are_shown(capsys):
    say_comparison(compared("one", "two", "three", "four"), {}, {})
    tests = capsys.readouterr().out.split("\nDifferences\n")[1]
    assert "all 36 are in tests.csv" in tests
    assert tests.count("against") == 6
    assert "ROC-AUC, macro: DeLong" in tests
    assert "McNemar" not in tests
