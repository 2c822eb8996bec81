"""How the figures of a run differ over its repetitions."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc_macro")
"""Those that are shown; ``repeats.csv`` has all."""


@dataclass(frozen=True)
class Moments:
    """One figure over several runs, or over the seeds of several.

    Attributes:
        runs: that have it.
        mean: over them.
        sd: their standard deviation (n - 1), of folds of several seeds that within a seed; ``None`` of a single one.
        lowest: of them.
        highest: of them.
    """

    runs: int
    mean: float
    sd: float | None
    lowest: float
    highest: float


def moments_of(spread: pd.DataFrame, figures: Sequence[str] = FIGURES) -> dict[str, Moments]:
    """Summarise each figure over the runs.

    Args:
        spread: one row a run, one column a figure, empty where a run doesn't have it. Where there are ``fold``s they
            differ within their ``seed`` only.
        figures: names of columns; those that no run has are left out.
    """
    known = {name: spread[name].dropna() for name in figures if name in spread}
    groups = spread["seed"] if "fold" in spread and spread["fold"].notna().any() else pd.Series(0, spread.index)
    return {name: _moments(values, groups[values.index]) for name, values in known.items() if len(values)}


def _moments(values: "pd.Series[float]", groups: "pd.Series[int]") -> Moments:
    gaps = values - values.groupby(groups).transform("mean")
    free = len(values) - groups.nunique()
    sd = float(((gaps**2).sum() / free) ** 0.5) if free else None
    return Moments(len(values), float(values.mean()), sd, float(values.min()), float(values.max()))
