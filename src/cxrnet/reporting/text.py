"""The figures as plain text: ``classification_report.txt``, ``roc_auc.txt``, and the reports of several runs."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import pandas as pd

from cxrnet.evaluation.metrics import Evaluation, Metric, evaluate, mean_over_classes

# Of several runs side by side, in characters: a line, the names of the rows, and the least and most of a column.
LINE, NAMES, LEAST, MOST = 100, 22, 12, 24
PER_CLASS = ("precision", "sensitivity", "specificity", "f1")


def classification_report_text(predictions: pd.DataFrame) -> str:
    """Write the figures of one split in the look of scikit-learn's ``classification_report``.

    Specificity and NPV join its columns; what cannot be computed is ``n/a``, with the reason below the table.
    """
    figures = evaluate(predictions)
    columns = ("precision", "sensitivity", "specificity", "npv", "f1")
    return _table(figures, columns, accuracy=figures["accuracy"])


def roc_auc_text(predictions: pd.DataFrame) -> str:
    """Write the one-vs-rest ROC-AUC of each class, their macro mean and their mean weighted by support."""
    return "ROC-AUC, each class against the rest\n\n" + _table(evaluate(predictions), ("roc_auc",))


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> str:
    """Write the classification reports of several runs beside each other, one column a run.

    Args:
        tables: name of a run to its predictions of one split. A class that a run doesn't know is ``-`` in its column;
            what cannot be computed is ``n/a``.

    Returns:
        A table of lines of at most 100 characters; runs that don't fit beside the others follow below, with the rows
        repeated. Where the runs were not evaluated on the same images with the same labels, the text ends with that.
    """
    columns = {name: _column(table) for name, table in tables.items()}
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    rows.sort(key=lambda row: row[0] == "")  # what holds for all classes stands below every class
    width = min(max(LEAST, *(len(word) for name in columns for word in name.split())), MOST)
    fitting = (LINE - NAMES) // (width + 2)
    names = list(columns)
    parts = [names[start : start + fitting] for start in range(0, len(names), fitting)]
    blocks = [_block({name: columns[name] for name in part}, rows, width) for part in parts]
    return "\n".join([*blocks, *_different_images(tables)])


def _column(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """The figures of one run by class and name; the class of what holds for all of them is empty."""
    figures = evaluate(table)
    n = figures["accuracy"]["n"]
    cells: dict[tuple[str, str], str] = {}
    for name, metrics in figures["per_class"].items():
        cells |= {(name, figure): _number(metrics[figure]) for figure in PER_CLASS}
        cells[name, "support"] = str(metrics["sensitivity"]["n"])
    cells["", "accuracy"] = _number(figures["accuracy"])
    for figure in PER_CLASS:
        cells["", f"macro {figure}"] = _number(mean_over_classes(figures["per_class"], figure, n))
    cells["", "macro ROC-AUC"] = _number(figures["roc_auc_macro"])
    return cells | {("", "images"): f"{_splits(table)} {n}".strip()}


def _block(columns: Mapping[str, Mapping[tuple[str, str], str]], rows: Sequence[tuple[str, str]], width: int) -> str:
    """Lay out a table of as many runs as fit on a line, the names of the runs wrapped above it."""

    def line(name: str, cells: Sequence[str]) -> str:
        return (f"{name:<{NAMES}}" + "".join(f"  {cell:>{width}}" for cell in cells)).rstrip()

    wrapped = [textwrap.wrap(name, width)[::-1] for name in columns]
    lines = [line("", cells) for cells in list(zip_longest(*wrapped, fillvalue=""))[::-1]]
    section = None
    for row in rows:
        if row[0] != section:
            section = row[0]
            lines += ["", section or "all classes"]
        lines.append(line(f"  {row[1]}", [column.get(row, "-") for column in columns.values()]))
    return "\n".join(lines) + "\n"


def _different_images(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Which runs share their images, where not all do."""
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for name, table in tables.items():
        groups.setdefault(frozenset(zip(table["image_id"], table["label"], strict=True)), []).append(name)
    if len(groups) == 1:
        return []
    lines = [f"  {_splits(tables[names[0]])} {len(images)}: {'; '.join(names)}" for images, names in groups.items()]
    text = "The runs were not evaluated on the same images; compare only columns that share them:"
    return ["\n".join([text, *lines]) + "\n"]


def _splits(table: pd.DataFrame) -> str:
    return ", ".join(sorted(table["split"].dropna().unique()))


def _table(figures: Evaluation, columns: Sequence[str], accuracy: Metric | None = None) -> str:
    """Lay out one line a class, then the means over classes, then why figures are missing."""
    per_class, n = figures["per_class"], figures["accuracy"]["n"]
    support = [metrics["sensitivity"]["n"] for metrics in per_class.values()]
    width = max(map(len, (*per_class, "weighted avg")))

    def line(name: str, cells: Sequence[str], images: int | str) -> str:
        return f"{name:>{width}} " + "".join(f"{cell:>12}" for cell in (*cells, str(images)))

    def means(weights: Sequence[int] | None) -> list[str]:
        return [_number(mean_over_classes(per_class, column, n, weights)) for column in columns]

    lines = [line("", columns, "support"), ""]
    for (name, metrics), images in zip(per_class.items(), support, strict=True):
        lines.append(line(name, [_number(metrics[column]) for column in columns], images))
    lines.append("")
    if accuracy:
        lines.append(line("accuracy", [*[""] * (len(columns) - 1), _number(accuracy)], n))
    lines += [line("macro avg", means(None), n), line("weighted avg", means(support), n)]
    cells = [metrics[column] for metrics in per_class.values() for column in columns]
    reasons = list(dict.fromkeys(f"n/a: {cell['reason']}" for cell in cells if "reason" in cell))
    return "\n".join([*lines, *([""] if reasons else []), *reasons]) + "\n"


def _number(metric: Metric) -> str:
    return "n/a" if metric["value"] is None else f"{metric['value']:.4f}"
