"""Classification reports as plain text, of one run and of several side by side."""

from collections.abc import Mapping, Sequence

import pandas as pd

from cxrnet.evaluation.metrics import Evaluation, evaluate
from cxrnet.reporting.rendering import Table, text_of

LINE = 100  # characters, of several runs side by side
REPORT = ("precision", "sensitivity", "specificity", "npv", "f1")
_OVERALL = {"accuracy": "accuracy", "macro f1": "macro_f1", "macro ROC-AUC": "roc_auc_macro", "Cohen's kappa": "kappa"}


def class_reports(metrics: Mapping[str, Evaluation], names: Sequence[str]) -> str:
    """Write the metrics of each class as plain text, split by split, test first, in the form of scikit-learn's report.

    ``n/a`` stands for a metric that can't be computed, its reason below the table.
    """
    parts = []
    for split, each in reversed(list(metrics.items())):
        values = _values(each, names)
        support = values.pop("support")
        means = {"macro avg": values.mean(skipna=False), "weighted avg": values.T @ (support / support.sum())}
        table = pd.concat([values, pd.DataFrame(means).T]).map(_number)
        table["support"] = [f"{n:.0f}" for n in (*support, support.sum(), support.sum())]
        if "f1" in names:
            table.loc["accuracy"] = {
                **dict.fromkeys(table, ""),
                "f1": _number(each["accuracy"]["value"]),
                "support": f"{support.sum():.0f}",
            }
        cells = [of_class[name] for of_class in each["per_class"].values() for name in names]
        reasons = dict.fromkeys(f"n/a: {cell['reason']}\n" for cell in cells if "reason" in cell)
        note = "".join(["\n" * bool(reasons), *reasons])
        text = text_of(Table("", table.reset_index(names=""), 1, False, note))
        parts.append(f"{split} (n = {each['accuracy']['n']})\n\n{text}")
    return "\n".join(parts)


def _values(metrics: Evaluation, names: Sequence[str]) -> pd.DataFrame:
    """Tabulate the metrics of each class, one column each, and its images; NaN where one can't be computed."""
    rows = {
        label: {name: of_class[name]["value"] for name in names} | {"support": of_class["sensitivity"]["n"]}
        for label, of_class in metrics["per_class"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def _number(value: float | None) -> str:
    return "n/a" if value is None or pd.isna(value) else f"{value:.4f}"


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> str:
    """Write the classification reports of several runs beside each other, one column a run.

    Args:
        tables: name of a run to its predictions of one split. A class that a run doesn't know is ``-`` in its column;
            ``n/a`` stands for a metric that can't be computed.

    Returns:
        A table of lines of at most 100 characters; runs that don't fit beside the others follow below, with the rows
        repeated. Where the runs were not evaluated on the same images with the same labels, the text ends with that.
    """

    def splits(table: pd.DataFrame) -> str:
        return ", ".join(sorted(table["split"].dropna().unique()))

    columns: dict[str, dict[str, str]] = {}
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for run, table in tables.items():
        metrics = evaluate(table)
        column = columns[run] = {}
        for label, row in _values(metrics, ("precision", "sensitivity", "specificity", "f1")).iterrows():
            column |= {f"{label}: {name}": _number(value) for name, value in row.items() if name != "support"}
            column[f"{label}: support"] = f"{row['support']:.0f}"
        column |= {title: _number(metrics[name]["value"]) for title, name in _OVERALL.items()}
        column["images"] = f"{splits(table)} {len(table)}".strip()
        groups.setdefault(frozenset(zip(table["image_id"], table["label"], strict=True)), []).append(run)
    rows = pd.DataFrame(columns).fillna("-")
    rows = rows.loc[sorted(rows.index, key=lambda row: row in (*_OVERALL, "images"))]
    note = ""
    if len(groups) > 1:
        lines = [f"  {splits(tables[names[0]])} {len(ids)}: {'; '.join(names)}\n" for ids, names in groups.items()]
        note = "\nThe runs were not evaluated on the same images; compare only columns that share them:\n"
        note += "".join(lines)
    return text_of(Table("", rows.reset_index(names=""), 1, False, note), LINE)
