"""A comparison as files: CSV, Markdown, LaTeX, figures and one page."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from cxrnet.evaluation.comparison import Comparison
from cxrnet.evaluation.comparison_figures import MOST_RUNS, save_comparison_figures
from cxrnet.evaluation.comparison_printing import Table, printed_tables
from cxrnet.evaluation.comparison_tables import Facts, class_reports, leaderboard
from cxrnet.evaluation.comparison_text import Seen, Text, text_of
from cxrnet.evaluation.markdown import listed, paragraph, plain
from cxrnet.evaluation.page import data_uri, render_page
from cxrnet.spreadsheet import to_csv
from cxrnet.whole_file import write_text

CAPTIONS = {
    "confusion_matrices": f"Confusion matrices, of the best {MOST_RUNS} runs at most: number of images, "
    "and share of the images of each label.",
    "roc_overlay": f"ROC curves, of the best {MOST_RUNS} runs at most: each class against the rest, with the AUC.",
}
# What LaTeX reads as markup, and what its default fonts lack.
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "–": "--", "\u202f": r"\,", "\u00a0": "~", "\n": " "}
)

# As wide as it is, but no wider than the page.
FITTING = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def write_comparison(comparison: Comparison, facts: Facts, folder: Path, seen: Seen) -> dict[str, Path]:
    """Write everything a comparison found, each file whole or not at all.

    Args:
        comparison: what was found.
        facts: of each run, plain values; may be empty.
        folder: where to write; made where it is missing.
        seen: images that the runs had seen before.

    Returns:
        Name to file: ``page`` (``comparison.html``), ``markdown`` (``comparison.md``), ``latex`` (``comparison.tex``),
        ``leaderboard, figures, tests, class_reports`` (``.csv``, plain numbers) and the two figures (``.png``).
    """
    tables = printed_tables(comparison, facts)
    numbers = {
        "leaderboard": leaderboard(comparison, facts),
        "figures": comparison.figures,
        "tests": comparison.tests,
        "class_reports": class_reports(comparison),
    }
    files = {
        name: write_text(folder / f"{name}.csv", to_csv(rows, lineterminator="\n")) for name, rows in numbers.items()
    }
    pictures = save_comparison_figures(comparison, folder)
    text = text_of(comparison, seen)
    return {
        "page": render_page(
            "comparison.html.j2",
            folder / "comparison.html",
            text=text,
            tables=tables,
            images={name: data_uri(file) for name, file in pictures.items()},
            captions=CAPTIONS,
        ),
        "markdown": write_text(folder / "comparison.md", markdown_page(text, tables, pictures)),
        "latex": write_text(folder / "comparison.tex", latex_tables(tables)),
        **files,
        **pictures,
    }


def markdown_page(text: Text, tables: Mapping[str, Table], pictures: Mapping[str, Path]) -> str:
    """Write a comparison as one page of Markdown; the figures stand beside it as files."""
    parts = [f"# {plain(text.title)}", paragraph(text.verdict), listed(text.warnings)]
    for table in tables.values():
        parts += [f"## {plain(table.title)}", markdown(table).rstrip(), paragraph(table.note)]
    parts += [f"![{plain(CAPTIONS[name])}]({file.name})" for name, file in pictures.items()]
    return "\n\n".join(parts) + "\n"


def markdown(table: Table) -> str:
    """Write a table as Markdown; what a name holds is text, not markup."""
    columns = list(table.rows.columns)
    rule = ["---" if place < table.text else "---:" for place in range(len(columns))]
    lines = [[plain(cell) for cell in line] for line in (columns, *table.lines())]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])) + "\n"


def latex_tables(tables: Mapping[str, Table]) -> str:
    """Write tables as LaTeX, one ``table`` each, in the style of booktabs; one that is too wide is made smaller."""
    blocks = [latex(table, f"tab:{name.replace('_', '-')}") for name, table in tables.items()]
    return "\n".join(["% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.", *blocks])


def latex(table: Table, label: str) -> str:
    """Write a table as LaTeX, in the style of booktabs; what a name holds is text, not markup."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cell.translate(LATEX) for cell in cells) + r" \\"

    columns = "l" * table.text + "r" * (len(table.rows.columns) - table.text)
    lines = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{f'{table.title}. {table.note}'.translate(LATEX)}}}"]
    lines += [rf"\label{{{label}}}", FITTING, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines.append(line(table.rows.columns))
    for place, row in enumerate(table.lines()):
        if place == 0 or (table.grouped and row[0]):
            lines.append(r"\midrule")
        lines.append(line(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])
