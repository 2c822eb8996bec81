"""A comparison on the console and as files: CSV, Markdown, LaTeX, plots and one page."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import pandas as pd
from rich import get_console
from rich.table import Table as ConsoleTable

from cxrnet.core import console
from cxrnet.core.atomic import write_text
from cxrnet.core.spreadsheet import to_csv
from cxrnet.evaluation.comparison import Comparison
from cxrnet.evaluation.significance import smallest_p
from cxrnet.reporting.comparison_tables import Facts, class_reports, leaderboard, printed_tables, title_of
from cxrnet.reporting.plots.comparison import MOST_RUNS, save_comparison_figures
from cxrnet.reporting.rendering import Table, bullets, data_uri, latex_tables, markdown, paragraph, plain, render_page
from cxrnet.reporting.wording import grouped

Seen = Mapping[str, Set[str]]
"""By run, the images that it had seen before it was tested on them: its figures are flattered by them. A run of which
that isn't known is left out."""


@dataclass(frozen=True)
class Text:
    """The words of a comparison."""

    title: str
    verdict: str
    """Which run is the best, and which of the others it is shown to be better than."""
    warnings: list[str]
    """What a reader must know before the numbers, a sentence each."""


def text_of(comparison: Comparison, seen: Seen) -> Text:
    """Say what a comparison found; what the runs had seen comes before what is to be said of the numbers."""
    return Text(
        title=f"{len(comparison.runs)} runs on the same {grouped(comparison.n)} images",
        verdict=_verdict(comparison, seen),
        warnings=[*_seen_warnings(comparison, seen), *_warnings(comparison)],
    )


def _verdict(comparison: Comparison, seen: Seen) -> str:
    """The best run, with the tests of it against each other run that is not less flattered than it.

    Better is what the corrected p and the confidence interval of the difference both show: they may be of two tests.
    """
    best, title = comparison.runs[0], title_of(comparison.by, comparison)
    figures = comparison.figures
    figure = figures[(figures["run"] == best) & (figures["metric"] == comparison.by)].iloc[0]
    if pd.isna(figure["value"]):
        return f"No run has a figure for {title}: {figure['reason']}."
    interval = f" ({comparison.level:.0%} interval {figure['low']:.3f}–{figure['high']:.3f})"
    ends = "" if pd.isna(figure["low"]) else interval
    tests = comparison.tests[(comparison.tests["metric"] == comparison.by) & (comparison.tests["a"] == best)]
    says = f"{best} has the best figure for {title}: {figure['value']:.3f}{ends}."
    less = tests["b"].map(lambda run: _less_flattered(run, best, seen)).to_numpy(bool)
    if less.any():
        says = f"{says} {_flattered(comparison, best, list(tests['b'][less]), seen)}"
    if less.all():
        return says
    tests = tests[~less]
    shown = (tests["p_holm"] < 1 - comparison.level) & ~((tests["low"] <= 0) & (tests["high"] >= 0))
    better, others = (_names(list(tests["b"][rows])) for rows in (shown, ~shown))
    if not better:
        return f"{says} The tests do not show it to be better than {others}."
    return f"{says} The tests show it to be better than {better}{f', but not than {others}' if others else ''}."


def _less_flattered(run: str, best: str, seen: Seen) -> bool:
    """Whether the best run had seen images that this one had not, as far as is known."""
    return not seen.get(best, frozenset()) <= seen.get(run, frozenset())


def _flattered(comparison: Comparison, best: str, others: list[str], seen: Seen) -> str:
    not_they = "which had not seen all of these" if all(run in seen for run in others) else "of which that is not known"
    return (
        f"But it had seen {_images(comparison, seen[best])} before it was tested on them (their patient, or a copy), "
        f"which flatters it: it is not shown to be better than {_names(others)}, {not_they}."
    )


def _images(comparison: Comparison, seen: Set[str]) -> str:
    return f"{grouped(len(seen))} of the {grouped(comparison.n)} images"


def _seen_warnings(comparison: Comparison, seen: Seen) -> list[str]:
    """Say of which runs how many images were seen before; those of which it is the same number share a sentence."""
    found: dict[str, list[str]] = {}
    for run in comparison.runs:
        if images := seen.get(run):
            found.setdefault(_images(comparison, images), []).append(run)
    return [
        f"{', '.join(runs) if len(runs) < len(comparison.runs) else 'All runs'}: {images} were seen before: their "
        "patient, or a copy, is among those that the weights were made or chosen on. The figures are flattered."
        for images, runs in found.items()
    ]


def _names(runs: list[str]) -> str:
    return ", ".join(runs) if len(runs) <= 4 else f"{len(runs)} others"


def _warnings(comparison: Comparison) -> list[str]:
    sentences = [
        f"The best of {len(comparison.runs)} runs is in part the luckiest one on these images: "
        "choose a run by its validation images, and use this page to say how it compares."
    ]
    units, used = len(comparison.units.stratum), set(comparison.tests["test"])
    least = comparison.pairs * smallest_p(comparison.resamples, units)
    if least >= 1 - comparison.level and "paired bootstrap" in used:
        sentences.append(
            f"No paired bootstrap can show a difference: with {grouped(comparison.resamples)} resamples and "
            f"{comparison.pairs} pairs of runs its p is {min(least, 1):.3f} or more after Holm's correction. "
            "Give more resamples, or fewer runs."
        )
    return sentences


CAPTIONS = {
    "confusion_matrices": f"Confusion matrices, of the best {MOST_RUNS} runs at most: number of images, "
    "and share of the images of each label.",
    "roc_overlay": f"ROC curves, of the best {MOST_RUNS} runs at most: each class against the rest, with the AUC.",
}


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
    parts = [f"# {plain(text.title)}", paragraph(text.verdict), bullets(text.warnings)]
    for table in tables.values():
        parts += [f"## {plain(table.title)}", markdown(table).rstrip(), paragraph(table.note)]
    parts += [f"![{plain(CAPTIONS[name])}]({file.name})" for name, file in pictures.items()]
    return "\n\n".join(parts) + "\n"


FIGURE = 16  # columns of the console for "(0.912–0.987)" and the gap beside it
MOST_TESTS = 30


def say_comparison(comparison: Comparison, facts: Facts, seen: Seen) -> None:
    """Show what was found; of many tests, those of the metric by whose value the runs stand.

    Further figures and those of each class stand in the files. Arguments as for
    :func:`cxrnet.reporting.comparison.write_comparison`.
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


def _say_leaderboard(comparison: Comparison, board: Table) -> None:
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


def _say_tests(comparison: Comparison, tests: Table) -> None:
    rows = tests.lines()
    if len(rows) > MOST_TESTS:
        rows = rows[: comparison.pairs * (comparison.metrics.index(comparison.by) + 1)][-comparison.pairs :]
        console.say("shown", f"the tests by which the runs stand; all {len(tests.rows)} are in tests.csv")
    columns = list(tests.rows.columns)
    _show(columns, rows, range(len(columns)), text=2)
    console.say("note", tests.note)


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]], places: Sequence[int], text: int) -> None:
    """Some columns of a table; the first ones hold text, the others numbers."""
    table = ConsoleTable(box=None, pad_edge=False, padding=(0, 1, 0, 2))
    for place in places:
        table.add_column(columns[place], justify="left" if place < text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(row[place] for place in places))
    console.show(table)
    print()
