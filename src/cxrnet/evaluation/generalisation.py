"""The performance drop: how much worse a model is on external data than on its internal test images.

Both are samples of different patients, so the confidence interval of a difference follows from those of its two metrics
(MOVER, Zou & Donner 2008, doi:10.1002/sim.3095, for independent estimates). It also holds where a metric has an
interval in closed form, such as that of 20 right of 20: a bootstrap of the difference would take it for certain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrnet.evaluation.catalogue import Key, spec_of
from cxrnet.evaluation.confidence_intervals import Interval, of_mean
from cxrnet.evaluation.metrics import Evaluation, Metric, flat
from cxrnet.evaluation.predictions import classes_of

LEADING = "roc_auc_macro"
PARTS = ("internal", "external", "change")
BASELINES = ("thumbnail", "majority")


@dataclass(frozen=True)
class Sides:
    """The metrics of one model on both sides.

    Attributes:
        external: on an external data set.
        internal: on the internal test images of the same classes; ``None`` where there are none.
        over: the classes of both sides, in order; means over classes are over these.
        baselines: on the external data set, by name of the baseline, as far as there are any.
    """

    external: Evaluation
    internal: Evaluation | None
    over: Sequence[str]
    baselines: Mapping[str, Evaluation]


def internal_side(internal: pd.DataFrame | None, external: pd.DataFrame) -> pd.DataFrame | None:
    """Take the internal test images of the classes that the external data have; ``None`` where there are none.

    Where the external data lack a class, metrics over all internal images would be of another task.
    """
    if internal is None:
        return None
    rows = internal[internal["label"].isin(external["label"].unique())].reset_index(drop=True)
    return rows if len(rows) else None


def shared_classes(*sides: pd.DataFrame | None) -> list[str]:
    """Name the classes, in order, that have images in all of these predictions; ``None`` counts for nothing."""
    known = [side for side in sides if side is not None]
    return [name for name in classes_of(known[0]) if all((side["label"] == name).any() for side in known)]


def generalisation_table(results: Mapping[str, Sides], gaps: Mapping[str, str]) -> pd.DataFrame:
    """Put the metrics on every external data set beside those on the internal test images.

    Args:
        results: by data set.
        gaps: by data set without a result, the reason; only its leading metric gets a row.

    Returns:
        One row a data set and metric: ``data, class, metric`` (``sensitivity``; ``class`` is empty for a metric of all
        classes), ``over`` (the classes of a mean over only some of them, else empty), ``<part>, <part>_low,
        <part>_high`` for the parts ``internal``, ``external`` and ``change`` (external minus internal),
        ``internal_n, external_n``, ``reason``, why something of it is missing, and the same three columns of each
        baseline on the external data.
    """
    rows = []
    for data, sides in results.items():
        own = _by_key(sides.internal)
        baselines = {name: _by_key(sides.baselines.get(name)) for name in BASELINES}
        some = ", ".join(sides.over) if len(sides.over) < len(sides.external["per_class"]) else ""
        for key, metric in _by_key(sides.external).items():
            over = some if spec_of(key).mean_of else ""
            row: dict[str, object] = {"data": data, "class": key[0], "metric": key[1], "over": over}
            row |= _numbers(own.get(key), metric)
            for name, of in baselines.items():
                row |= _columns(name, of.get(key))
            rows.append(row)
    for data, why in gaps.items():
        missing = _numbers(None, {"value": None, "n": 0}) | {"reason": why}
        rows.append({"data": data, "class": "", "metric": LEADING, "over": ""} | missing)
    return pd.DataFrame(rows)


def _by_key(evaluation: Evaluation | None) -> dict[Key, Metric]:
    return {key: metric for _, key, metric in flat(evaluation)} if evaluation else {}


def change_interval(internal: Metric, external: Metric) -> Interval | None:
    """Compute the interval of external minus internal; ``None`` where one of the two has no interval."""
    if "interval" not in internal or "interval" not in external:
        return None
    values = np.array([external["value"], -(internal["value"] or 0)], dtype=float)
    ends = np.array([external["interval"], [-end for end in reversed(internal["interval"])]])
    return of_mean(values, ends, np.ones(2), independent=True)


def _numbers(internal: Metric | None, external: Metric) -> dict[str, object]:
    """Compute the columns of one row from ``internal`` to ``reason``."""
    change: Metric | None = None
    if internal and internal["value"] is not None and external["value"] is not None:
        change = {"value": external["value"] - internal["value"], "n": 0}
        if interval := change_interval(internal, external):
            change["interval"] = list(interval)
    sides = {"internal": internal, "external": external}
    reasons = [] if internal else ["no internal result is known"]
    for side, metric in sides.items():
        if metric and (missing := [metric[key] for key in ("reason", "interval_reason") if key in metric]):
            reasons += [f"{side}: {reason}" for reason in missing]
    return {
        **_columns("internal", internal),
        **_columns("external", external),
        **_columns("change", change),
        **{f"{side}_n": metric["n"] if metric else 0 for side, metric in sides.items()},
        "reason": "; ".join(reasons),
    }


def _columns(part: str, metric: Metric | None) -> dict[str, float]:
    low, high = metric.get("interval", (np.nan, np.nan)) if metric else (np.nan, np.nan)
    value = metric["value"] if metric else None
    return {part: np.nan if value is None else value, f"{part}_low": low, f"{part}_high": high}
