"""The tables of a result: metrics over all classes, of each class and subgroup, for pages and cards."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from cxrnet.evaluation.metrics import Evaluation, Metric
from cxrnet.evaluation.subgroups import METRICS
from cxrnet.reporting.rendering import Table
from cxrnet.reporting.results import Analysis, Results
from cxrnet.reporting.wording import (
    BASELINES,
    HEADLINE,
    PER_CLASS,
    SPLIT_NAMES,
    grouped,
    interval_gaps,
    metric_text,
    percent,
    value_gaps,
)

_FRACTIONS = {PER_CLASS[name] for name in ("sensitivity", "specificity", "precision", "npv")}


class Row(NamedTuple):
    """One row of a table of metrics."""

    texts: Sequence[str]
    metrics: Mapping[str, Metric | str]
    """By title of the column."""
    around: tuple[str, str]
    """Words before and after the title of a column that name a metric, where the note says why it is missing."""


def metric_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    text: int = 1,
    is_grouped: bool = False,
    fractions: Collection[str] = (),
    note: str = "",
) -> Table:
    """Lay out metrics with their confidence intervals; the note says which are missing and why.

    Args:
        title: title of the table.
        columns: titles of the columns before the metrics.
        rows: all with the same columns.
        text: how many of the first columns hold text.
        is_grouped: the first column names a group of rows.
        fractions: titles of the metrics that stand with their counts, as 63/66.
        note: note that stands first.
    """
    names = list(rows[0].metrics) if rows else []

    def cell(metric: Metric | str, fraction: bool) -> str:
        if isinstance(metric, str):
            return metric
        counts = "" if metric["value"] is None else f"\n{round(metric['value'] * metric['n'])}/{metric['n']}"
        return metric_text(metric, "\n") + counts * fraction

    cells = [[*row.texts, *(cell(row.metrics[name], name in fractions) for name in names)] for row in rows]
    known = [
        (name.join(row.around), metric)
        for row in rows
        for name, metric in row.metrics.items()
        if not isinstance(metric, str)
    ]
    missing = [("n/a", value_gaps(known)), ("No confidence interval", interval_gaps(known))]
    notes = [note, *(f"{what}: {'; '.join(reasons)}." for what, reasons in missing if reasons)]
    frame = pd.DataFrame(cells, columns=[*columns, *names])
    return Table(title, frame, text, is_grouped, "\n".join(filter(None, notes)))


def columns_of(results: Results) -> dict[str, Evaluation]:
    """Return the columns of the result table, by title."""
    columns = {"Network": results.metrics[results.headline]}
    if results.without_leaked is not None:
        columns["Network, without leaked images"] = results.without_leaked
    columns |= {title: results.baselines[name] for name, title in BASELINES.items()}
    if results.headline == "test" and "val" in results.metrics:
        columns["Network, validation"] = results.metrics["val"]
    return columns


def result_table(results: Results, titles: Mapping[str, str] = HEADLINE, note: str = "") -> Table:
    """Put the network beside the trivial baselines."""
    columns = columns_of(results)
    rows = [
        Row([title], {name: each[key] for name, each in columns.items()}, (f"{title} (", ")"))
        for key, title in titles.items()
    ]
    images = Row(["Images"], {name: grouped(each["accuracy"]["n"]) for name, each in columns.items()}, ("", ""))
    return metric_table(f"Result, {SPLIT_NAMES[results.headline].lower()} images", [""], [*rows, images], note=note)


def class_table(metrics: Evaluation, split: str, fractions: Collection[str] = _FRACTIONS) -> Table:
    """Tabulate the metrics of each class against the rest."""
    rows = [
        Row(
            [name, grouped(of_class["sensitivity"]["n"])],
            {title: of_class[key] for key, title in PER_CLASS.items()},
            ("", f" of {name}"),
        )
        for name, of_class in metrics["per_class"].items()
    ]
    title = f"Each class against the rest, {SPLIT_NAMES[split].lower()} images"
    return metric_table(title, ["Class", "Images"], rows, fractions=fractions)


def predictive_table(analysis: Analysis, classes: Collection[str]) -> Table:
    """Tabulate the predictive values of each class at the stated prevalences."""
    names = {"ppv": "Positive predictive value (PPV)", "npv": "Negative predictive value (NPV)"}
    rows = [
        Row([name, percent(row["prevalence"])], {title: row[key] for key, title in names.items()}, ("", f" of {name}"))
        for name in classes
        for row in analysis.predictive[name].to_dict("records")
    ]
    return metric_table("Predictive values at a prevalence", ["Class", "Prevalence"], rows, is_grouped=True, text=2)


def subgroup_table(analyses: Mapping[str, Analysis]) -> Table | None:
    """Tabulate the metrics in each subgroup; ``None`` without groups.

    Args:
        analyses: by data set, which a column says; of an empty name, without one.
    """
    rows = []
    for data, analysis in analyses.items():
        for row in analysis.subgroups.to_dict("records"):
            attribute, group, label = str(row["attribute"]), str(row["group"]), str(row["class"])
            first = [data, f"{attribute} {group}"] if data else [attribute.capitalize(), group]
            cells = {PER_CLASS[name]: row[name] for name in METRICS}
            texts = [*first, label, grouped(row["n"]), grouped(row["positives"])]
            rows.append(Row(texts, cells, ("", f" of {label} ({attribute} {group})")))
    if not rows:
        return None
    warnings = [f"{data}: {text}" if data else text for data, each in analyses.items() for text in each.warnings]
    columns = ["Attribute" if "" in analyses else "Data", "Group", "Class", "Images", "Positives"]
    return metric_table("Subgroups", columns, rows, text=3, is_grouped=True, note=" ".join(warnings))


def deferral_table(results: Results, splits: Sequence[str]) -> Table:
    """Tabulate what deferring predictions to a reader leaves; a split without a prediction left has n/a."""
    rows, none = [], Metric(value=None, n=0, reason="no other prediction is left")
    for split in splits:
        deferral, all_of = results.analyses[split].deferral, results.metrics[split]
        if deferral is not None:
            kept = deferral.kept or {"accuracy": none, "balanced_accuracy": none}
            cells = {
                "Deferred": deferral.deferred,
                "Accuracy of the others": kept["accuracy"],
                "Balanced accuracy of the others": kept["balanced_accuracy"],
                "Accuracy of all": all_of["accuracy"],
            }
            name = SPLIT_NAMES[split]
            rows.append(Row([name, grouped(all_of["accuracy"]["n"])], cells, ("", f" ({name.lower()})")))
    fractions = ("Deferred", "Accuracy of the others", "Accuracy of all")
    return metric_table("Deferral to a reader", ["", "Images"], rows, fractions=fractions)
