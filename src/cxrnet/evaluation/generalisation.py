"""The fall: how much worse a model is on other data than on its own test images.

Both are samples of different patients, so the interval of a difference follows from the intervals of its two figures
(MOVER, Zou & Donner 2008, doi:10.1002/sim.3095, for independent estimates). It holds where a figure's interval has a
closed form too, as that of 20 right of 20 has, where a bootstrap of the difference would take the figure for certain.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxrnet.evaluation.catalogue import Key, spec_of
from cxrnet.evaluation.confidence_intervals import Interval, of_mean
from cxrnet.evaluation.metrics import Evaluation, Metric, flat, gap
from cxrnet.evaluation.predictions import classes_of

LEADING = "roc_auc_macro"


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
    row: dict[str, object] = {
        "data": data,
        "class": label,
        "metric": metric,
        "over": over if spec_of(key).mean_of else "",
    }
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
