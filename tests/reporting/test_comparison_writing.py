import html
import re

import pandas as pd
import pytest

from cxrnet.evaluation.comparison import compare
from cxrnet.reporting.comparison import write_comparison
from cxrnet.reporting.rendering import latex, markdown

METRICS = ["roc_auc_macro", "accuracy", "macro_f1", "sensitivity_Covid", "log_loss"]
# What Markdown, LaTeX and HTML would each read as markup.
NASTY = "a|b_50% & <b>*x*</b> $#{y}~^\\"
FILES = {
    "page": "comparison.html",
    "markdown": "comparison.md",
    "latex": "comparison.tex",
    "leaderboard": "leaderboard.csv",
    "figures": "figures.csv",
    "tests": "tests.csv",
    "class_reports": "class_reports.csv",
    "confusion_matrices": "confusion_matrices.png",
    "roc_overlay": "roc_overlay.png",
}


@pytest.fixture(scope="module")
def comparison(make_table):
    labels = [str(label) for label in make_table()["label"]]
    names = ["2026-11-22_17-05-40_mobilenet_v2_covid19_image", "strong", NASTY]
    tables = {name: make_table(labels=labels, seed=i, strength=i) for i, name in enumerate(names)}
    return compare(tables, METRICS, "roc_auc_macro", 100, 0, 0.95, 15, also=["ece", "specificity"])


@pytest.fixture(scope="module")
def files(comparison, tmp_path_factory):
    facts = {run: {"backbone": f"net_{i}", "seed": 7} for i, run in enumerate(comparison.runs)}
    return write_comparison(
        comparison,
        facts,
        tmp_path_factory.mktemp("comparison") / "new",
        {comparison.runs[1]: {f"{i}" for i in range(9)}},
    )


@pytest.fixture(scope="module")
def page(files):
    return files["page"].read_text(encoding="utf-8")


def test_every_file_is_written_and_nothing_else(files):
    folder = files["page"].parent
    assert files == {name: folder / file for name, file in FILES.items()}
    assert {path.name for path in folder.iterdir()} == set(FILES.values())


def test_csv_holds_the_same_numbers(comparison, files):
    tests = pd.read_csv(files["tests"], keep_default_na=False)
    assert list(tests["a"]) == list(comparison.tests["a"])
    assert tests["p_holm"].to_list() == pytest.approx(comparison.tests["p_holm"].to_list())
    assert pd.read_csv(files["leaderboard"])["run"].to_list() == comparison.runs
    assert len(pd.read_csv(files["figures"])) == len(comparison.figures)
    assert len(pd.read_csv(files["class_reports"])) == 3 * 5


def test_markdown_tables_keep_their_columns(files):
    lines = files["markdown"].read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    # Leaderboard (the shared fact is no column), further figures, those of each class, tests, reports.
    assert list(dict.fromkeys(widths)) == [len(METRICS) + 2, 3, 5, 6]
    assert widths[-1] == 7
    assert any(line.endswith("The same for all runs: seed 7.") for line in lines)
    assert r"a\|b_50% & &lt;b>\*x\*&lt;/b> \$#{y}\~^" in files["markdown"].read_text(encoding="utf-8")
    assert "![" in lines[-1]
    assert "(roc_overlay.png)" in lines[-1]


def test_latex_is_escaped(files):
    text = files["latex"].read_text(encoding="utf-8")
    escaped = r"a$|$b\_50\% \& $<$b$>$*x*$<$/b$>$ \$\#\{y\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert escaped in text
    assert r"each figure with its 95\% interval" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 5
    assert text.count(r"\midrule") == 5
    assert text.isascii()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(METRICS), 1, 3, 4, 5}


def test_latex_has_the_facts_that_all_runs_share_and_fits_the_page(files):
    text = files["latex"].read_text(encoding="utf-8")
    (caption,) = re.findall(r"\\caption\{Leaderboard.*", text)
    assert caption.endswith("The same for all runs: seed 7.}")
    assert text.count(r"\resizebox{\ifdim\width>\linewidth") == text.count(r"\end{tabular}}") == 5


def test_one_table_alone(comparison):
    from cxrnet.reporting.comparison_tables import printed_tables

    table = printed_tables(comparison, {})["class_reports"]
    assert markdown(table).splitlines()[:2] == [
        "| Run | Class | Precision | Recall (sensitivity) | F1 | Images |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    assert latex(table, "tab:x").startswith("\\begin{table}[htbp]\n\\centering\n\\caption{Classification reports. ")


def test_page_says_what_the_tables_say(comparison, page):
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", page.split("<body>")[1])))
    assert "3 runs on the same 60 images" in text
    assert "Research use only" in text
    assert f"{comparison.runs[1]}: 9 of the 60 images were seen before: their patient, or a copy, is" in text
    assert "Further figures" in text
    assert "Figures of each class" in text
    assert NASTY in text
    for row in comparison.tests.itertuples():
        assert f"{abs(row.difference):.3f}" in text
    assert page.count("data:image/png;base64,") == 2


def test_page_needs_nothing_from_outside(page, check_standalone):
    check_standalone(page)
    assert "<b>*" not in page


def test_phone_does_not_scroll_sideways(page, phone):
    assert phone(page) == "hidden 0 px, seen 2 of 2"


def test_page_prints(files, browser, tmp_path):
    browser(f"--print-to-pdf={tmp_path / 'page.pdf'}", files["page"].as_uri())
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes()))
    assert 2 <= pages <= 5
