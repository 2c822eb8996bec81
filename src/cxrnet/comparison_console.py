"""A comparison on the console: leaderboard, facts of the runs, paired tests."""

from collections.abc import Sequence
from math import ceil

from rich import get_console
from rich.table import Table

from cxrnet import console
from cxrnet.evaluation import comparison_printing
from cxrnet.evaluation.comparison import Comparison
from cxrnet.evaluation.comparison_printing import printed_tables
from cxrnet.evaluation.comparison_tables import Facts
from cxrnet.evaluation.comparison_text import Seen, text_of

FIGURE = 16  # columns of the console for "(0.912–0.987)" and the gap beside it
MOST_TESTS = 30


def say_comparison(comparison: Comparison, facts: Facts, seen: Seen) -> None:
    """Show what was found; of many tests, those of the metric by whose value the runs stand.

    Further figures and those of each class stand in the files. Arguments as for
    :func:`cxrnet.evaluation.comparison_writing.write_comparison`.
    """
    text, tables = text_of(comparison, seen), printed_tables(comparison, facts)
    console.heading(text.title)
    console.say("result", text.verdict)
    for warning in text.warnings:
        console.warn(warning)
    console.heading(tables["leaderboard"].title)
    _say_leaderboard(comparison, tables["leaderboard"])
    if "further" in tables or "class_figures" in tables:
        console.say("more", "further figures and those of each class are in leaderboard.csv and on the page")
    console.heading(tables["tests"].title)
    _say_tests(comparison, tables["tests"])


def _say_leaderboard(comparison: Comparison, board: comparison_printing.Table) -> None:
    """As many figures beside the names as there is room for, the others below, and the facts at last."""
    columns, rows = list(board.rows.columns), board.lines()
    figures = sum(not comparison.shown[metric][0] for metric in comparison.metrics)
    first = len(columns) - figures
    names = max(len(run) for run in comparison.runs) + 4
    blocks = max(1, ceil(figures / max(1, (get_console().width - names) // FIGURE)))
    size = max(1, ceil(figures / blocks))
    for start in range(first, len(columns), size):
        _show(columns, rows, [0, *range(start, min(start + size, len(columns)))], text=1)
    if first > 1:
        _show(columns, rows, range(first), text=1)
    console.say("note", board.note)


def _say_tests(comparison: Comparison, tests: comparison_printing.Table) -> None:
    rows = tests.lines()
    if len(rows) > MOST_TESTS:
        rows = rows[: comparison.pairs * (comparison.metrics.index(comparison.by) + 1)][-comparison.pairs :]
        console.say("shown", f"the tests by which the runs stand; all {len(tests.rows)} are in tests.csv")
    columns = list(tests.rows.columns)
    _show(columns, rows, range(len(columns)), text=2)
    console.say("note", tests.note)


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]], places: Sequence[int], text: int) -> None:
    """Some columns of a table; the first ones hold text, the others numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 2))
    for place in places:
        table.add_column(columns[place], justify="left" if place < text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(row[place] for place in places))
    console.show(table)
    print()
