"""Classification reports as plain text, of one run and of several side by side."""

from collections.abc import Mapping, Sequence

import pandas as pd

from cxrnet.evaluation.metrics import Evaluation, evaluate

LINE = 100  # characters, of several runs side by side
WIDTH = 12  # of a column, at least
OVERALL_ROWS = ("accuracy", "macro f1", "macro ROC-AUC", "Cohen's kappa", "images")
REPORT = ("precision", "sensitivity", "specificity", "npv", "f1")


def classification_report_text(metrics: Evaluation) -> str:
    """Write the metrics of one split as scikit-learn's ``classification_report`` does, with specificity and NPV.

    ``n/a`` stands for a metric that can't be computed, its reason below the table.
    """
    text = _table(metrics, REPORT)
    return f"{text}\naccuracy  {_number(metrics['accuracy']['value'])}\n{_reasons(metrics, REPORT)}"


def roc_auc_text(metrics: Evaluation) -> str:
    """Write the one-vs-rest ROC-AUC of each class, their macro mean and their mean weighted by support."""
    return f"ROC-AUC, each class against the rest\n\n{_table(metrics, ['roc_auc'])}{_reasons(metrics, ['roc_auc'])}"


def _table(metrics: Evaluation, names: Sequence[str]) -> str:
    """Write one line a class, then the means over classes."""
    values = _values(metrics, names)
    support = values.pop("support")
    means = {"macro avg": values.mean(skipna=False), "weighted avg": values.T @ (support / support.sum())}
    table = pd.concat([values, pd.DataFrame(means).T])
    table["support"] = [*support.astype(int), *[int(support.sum())] * 2]
    return f"{table.to_string(float_format='%.4f', na_rep='n/a', col_space=WIDTH)}\n"


def _values(metrics: Evaluation, names: Sequence[str]) -> pd.DataFrame:
    """Tabulate the metrics of each class, one column each, and its images; NaN where one can't be computed."""
    rows = {
        label: {name: of_class[name]["value"] for name in names} | {"support": of_class["sensitivity"]["n"]}
        for label, of_class in metrics["per_class"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def _reasons(metrics: Evaluation, names: Sequence[str]) -> str:
    cells = [of_class[name] for of_class in metrics["per_class"].values() for name in names]
    reasons = dict.fromkeys(f"n/a: {cell['reason']}\n" for cell in cells if "reason" in cell)
    return "".join(["\n" * bool(reasons), *reasons])


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> str:
    """Write the classification reports of several runs beside each other, one column a run.

    Args:
        tables: name of a run to its predictions of one split. A class that a run doesn't know is ``-`` in its column;
            ``n/a`` stands for a metric that can't be computed.

    Returns:
        A table of lines of at most 100 characters; runs that don't fit beside the others follow below, with the rows
        repeated. Where the runs were not evaluated on the same images with the same labels, the text ends with that.
    """
    columns = pd.DataFrame({name: _column(table) for name, table in tables.items()})
    columns = columns.loc[sorted(columns.index, key=lambda row: row in OVERALL_ROWS)]
    text = columns.to_string(na_rep="-", line_width=LINE, col_space=WIDTH)
    lines = [line.rstrip(" \\") for line in text.splitlines()]  # pandas marks a table that goes on below
    return "\n".join([*lines, *_different_images(tables), ""])


def _column(table: pd.DataFrame) -> "pd.Series[str]":
    """Tabulate the report of one run: each class by its metrics, then the rows over all classes."""
    metrics, names = evaluate(table), ("precision", "sensitivity", "specificity", "f1")
    values = _values(metrics, names)
    cells: dict[str, str] = {}
    for label, row in values.iterrows():
        cells |= {f"{label}: {name}": _number(row[name]) for name in names}
        cells[f"{label}: support"] = f"{row['support']:.0f}"
    overall = [_number(metrics[name]["value"]) for name in ("accuracy", "macro_f1", "roc_auc_macro", "kappa")]
    images = f"{_splits(table)} {len(table)}".strip()
    return pd.Series(cells | dict(zip(OVERALL_ROWS, [*overall, images], strict=True)))


def _different_images(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Say which runs share their images, where not all do."""
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for name, table in tables.items():
        groups.setdefault(frozenset(zip(table["image_id"], table["label"], strict=True)), []).append(name)
    if len(groups) == 1:
        return []
    lines = [f"  {_splits(tables[names[0]])} {len(images)}: {'; '.join(names)}" for images, names in groups.items()]
    return ["", "The runs were not evaluated on the same images; compare only columns that share them:", *lines]


def _splits(table: pd.DataFrame) -> str:
    return ", ".join(sorted(table["split"].dropna().unique()))


def _number(value: float | None) -> str:
    return "n/a" if value is None or pd.isna(value) else f"{value:.4f}"
