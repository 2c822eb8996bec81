"""The fall: how much worse a model is on other data than on its own test images.

Both are samples of different patients, so the interval of a difference follows from the intervals of its two figures
(MOVER, Zou & Donner 2008, doi:10.1002/sim.3095, for independent estimates). It holds where a figure's interval has a
closed form too, as that of 20 right of 20 has, where a bootstrap of the difference would take the figure for certain.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxrnet.evaluation.comparison_printing import Table
from cxrnet.evaluation.intervals import Interval, of_mean
from cxrnet.evaluation.metrics import Evaluation, Metric, flat, gap
from cxrnet.evaluation.predictions import classes_of
from cxrnet.evaluation.weighted import MEANS, Key
from cxrnet.evaluation.wording import HEADLINE, PER_CLASS

LEADING = "roc_auc_macro"
_PRINTED = {
    **{name: HEADLINE[name] for name in ("roc_auc_macro", "accuracy", "balanced_accuracy", "macro_f1", "log_loss")},
    "brier": "Brier score (lower is better)",
    "ece": "ECE (lower is better)",
}
_PRINTED_PER_CLASS = ("sensitivity", "specificity", "roc_auc")


def same_classes(internal: pd.DataFrame, external: pd.DataFrame) -> pd.DataFrame:
    """Take the internal test images of the classes that the external data have.

    Where the external data lack a class, figures over all internal images would be of another task.
    """
    return internal[internal["label"].isin(external["label"].unique())].reset_index(drop=True)


def shared_classes(internal: pd.DataFrame | None, external: pd.DataFrame) -> list[str]:
    """Name the classes, in order, of which both have images: those that macro figures can be compared over.

    Args:
        internal: predictions; ``None`` where there are none.
        external: predictions.
    """
    sides = [external] if internal is None else [internal, external]
    return [name for name in classes_of(external) if all((side["label"] == name).any() for side in sides)]


def generalisation_table(
    internal: Mapping[str, Evaluation],
    external: Mapping[str, Evaluation],
    over: Mapping[str, Sequence[str]],
    gaps: Mapping[str, str],
) -> pd.DataFrame:
    """Put the figures on every external data set beside those on the internal test images.

    Args:
        internal: by data set, the figures on the internal test images that it is compared with; a data set without any
            is compared with nothing.
        external: by data set.
        over: by data set, the classes that its macro figures are means over.
        gaps: by data set that has no result, why; its leading figure alone gets a row.

    Returns:
        One row a data set and figure: ``data, class, metric`` (``sensitivity``; ``class`` is empty for what holds for
        all), ``over``, the classes of a mean that is over some of them alone, else empty, ``<part>, <part>_low,
        <part>_high`` for the parts ``internal``, ``external`` and ``change``, which is external minus internal,
        ``internal_n, external_n``, and ``reason``, why something of it is missing.
    """
    rows = []
    for data, evaluation in external.items():
        own = {key: metric for _, key, metric in flat(internal[data])} if data in internal else {}
        some = ", ".join(over[data]) if len(over[data]) < len(evaluation["per_class"]) else ""
        rows += [_row(data, key, some, own.get(key), metric) for _, key, metric in flat(evaluation)]
    rows += [_row(data, ("", LEADING), "", None, gap(why)) | {"reason": why} for data, why in gaps.items()]
    return pd.DataFrame(rows)


def change_interval(internal: Metric, external: Metric) -> Interval | None:
    """Interval of external minus internal, of independent images; None where one of them has no interval."""
    if "interval" not in internal or "interval" not in external:
        return None
    values = np.array([external["value"], -(internal["value"] or 0)], dtype=float)
    ends = np.array([external["interval"], [-end for end in reversed(internal["interval"])]])
    low, high = of_mean(values, ends, np.ones(2), independent=True)
    return low, high


def _row(data: str, key: Key, over: str, internal: Metric | None, external: Metric) -> dict[str, object]:
    label, metric = key
    row: dict[str, object] = {"data": data, "class": label, "metric": metric, "over": over if metric in MEANS else ""}
    for part, figure in (("internal", internal), ("external", external)):
        row |= _cells(part, figure["value"] if figure else None, figure.get("interval") if figure else None)
    change, ends = None, None
    if internal and internal["value"] is not None and external["value"] is not None:
        change, ends = external["value"] - internal["value"], change_interval(internal, external)
    counts = {"internal_n": internal["n"] if internal else 0, "external_n": external["n"]}
    return {**row, **_cells("change", change, ends), **counts, "reason": _reason(internal, external)}


def _cells(part: str, value: float | None, ends: Sequence[float] | None) -> dict[str, float]:
    low, high = ends or (np.nan, np.nan)
    return {part: np.nan if value is None else value, f"{part}_low": low, f"{part}_high": high}


def _reason(internal: Metric | None, external: Metric) -> str:
    if internal is None:
        return "; ".join(["no internal result is known", *_gaps("external", external)])
    return "; ".join(_gaps("internal", internal) + _gaps("external", external))


def _gaps(part: str, metric: Metric) -> list[str]:
    return [f"{part}: {metric[key]}" for key in ("reason", "interval_reason") if key in metric]


def printed_generalisation(table: pd.DataFrame, level: float) -> Table:
    """The table of the fall as it is printed: the figures of each data set, each with its interval.

    Args:
        table: from :func:`generalisation_table`.
        level: of its intervals.
    """
    classes = len(set(table["class"]) - {""})
    titles = [_title(row, classes) for _, row in table.iterrows()]
    shown = table.assign(title=titles).dropna(subset="title")
    place, order = pd.factorize(shown["data"])[0], list(_PRINTED)
    rank = [order.index(metric) if metric in order else len(order) for metric in shown["metric"]]
    shown = shown.iloc[np.lexsort((rank, place))]
    rows = [
        [row["data"], row["title"], *(_number(row, part) for part in ("internal", "external", "change"))]
        for _, row in shown.iterrows()
    ]
    reasons = dict.fromkeys(f"{row['data']}: {row['reason']}" for _, row in shown.iterrows() if row["reason"])
    stated = f"Each figure with its {level:.0%} interval" if has_intervals(table) else "Without intervals"
    note = (
        f"{stated}. Internal: the bundle's own test images of the classes that the "
        "external data have, without those whose patient, or a copy, is in train or val. Change: external minus "
        "internal. Accuracy, F1, log loss, Brier score and ECE depend "
        "on the mix of classes, which the data sets don't share; ROC-AUC, sensitivity, specificity and balanced "
        "accuracy don't."
    )
    missing = f" Missing: {'; '.join(reasons)}." if reasons else ""
    columns = ["Data", "Figure", "Internal", "External", "Change"]
    return Table("The fall", pd.DataFrame(rows, columns=columns), 2, True, note + missing)


def has_intervals(table: pd.DataFrame) -> bool:
    """Whether any figure has one: none has where none were asked for."""
    return bool(table["external_low"].notna().any())


def verdicts(table: pd.DataFrame) -> list[str]:
    """What becomes of the leading figure on each data set, a sentence each; of a single class, of its sensitivity."""
    leading = [_leading(rows) for _, rows in table.groupby("data", sort=False)]
    return [_verdict(str(row["data"]), str(_title(row, 0)), row) for row in leading]


def _leading(rows: pd.DataFrame) -> pd.Series:
    """The row of one data set that its verdict is of."""
    (leading,) = (row for _, row in rows[rows["metric"] == LEADING].iterrows())
    known = rows[(rows["metric"] == "sensitivity") & rows["external"].notna()]
    return known.iloc[0] if np.isnan(leading["external"]) and len(known) == 1 else leading


def _verdict(data: str, title: str, row: pd.Series) -> str:
    if np.isnan(row["external"]):
        return f"{data}: {title} can't be computed ({row['reason']})."
    if np.isnan(row["change"]):
        return f"{data}: {title} is {_inline(row, 'external')}; there is nothing internal to compare it with."
    between = f"from {_inline(row, 'internal')} on the internal test images to {_inline(row, 'external')}"
    if row["change_high"] < 0:
        fall = f"{-row['change']:.3f} ({-row['change_high']:.3f} to {-row['change_low']:.3f})"
        return f"{data}: {title} falls by {fall}, {between}."
    return f"{data}: {title} goes {between}; the change of {_inline(row, 'change')} is not shown to be a fall."


def _title(row: pd.Series, classes: int) -> str | None:
    """Name of a figure that is printed; of two classes each has the AUC of the other."""
    metric, label = str(row["metric"]), row["class"]
    if not label:
        over = f" of {row['over']} alone" if row["over"] else ""
        return f"{_PRINTED[metric]}{over}" if metric in _PRINTED else None
    if metric not in _PRINTED_PER_CLASS or (metric == "roc_auc" and classes == 2):
        return None
    return f"{PER_CLASS[metric]}, {label}"


def _number(row: pd.Series, part: str) -> str:
    """A figure, and its interval on a second line."""
    return "\n(".join(_inline(row, part).split(" (", 1))


def _inline(row: pd.Series, part: str) -> str:
    """A figure and its interval; changes carry their sign."""
    sign, between = ("+", " to ") if part == "change" else ("", "–")
    value, low, high = (row[part + end] for end in ("", "_low", "_high"))
    if np.isnan(value):
        return "n/a"
    ends = "" if np.isnan(low) else f" ({low:{sign}.3f}{between}{high:{sign}.3f})"
    return f"{value:{sign}.3f}{ends}".replace("-", "−")
