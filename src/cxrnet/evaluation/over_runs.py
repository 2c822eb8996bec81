"""Summarise the metrics of a run over its folds and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy.stats import t

from cxrnet.evaluation.bootstrap import ROUNDING
from cxrnet.evaluation.catalogue import shown_in, spec_named
from cxrnet.evaluation.confidence_intervals import Interval

SUMMARY = tuple(spec.name for spec in shown_in("summary"))
"""The metrics that are shown; ``repeats.csv`` has all."""


@dataclass(frozen=True)
class Moments:
    """One metric over several runs, or over the seeds of several.

    Attributes:
        runs: number of runs that have it.
        mean: over them.
        sd: their standard deviation (n - 1), of folds of several seeds that within a seed; ``None`` of a single one.
        lowest: of them.
        highest: of them.
        interval: confidence interval of the mean over seeds (Student's t): what other seeds would give on these data,
            nothing about other patients. ``None`` of a single seed, of seeds that gave the same, which tells nothing
            of others, and over folds, whose networks share most of their training images.
    """

    runs: int
    mean: float
    sd: float | None
    lowest: float
    highest: float
    interval: Interval | None


def moments_of(spread: pd.DataFrame, level: float, metrics: Sequence[str] = SUMMARY) -> dict[str, Moments]:
    """Summarise each metric over the runs.

    Args:
        spread: one row a run, one column a metric, empty where a run doesn't have it. Where there are ``fold``s they
            differ within their ``seed`` only.
        level: of the confidence intervals.
        metrics: names of columns; those that no run has are left out.
    """
    known = {name: spread[name].dropna() for name in metrics if name in spread}
    folds = "fold" in spread and bool(spread["fold"].notna().any())
    groups = spread["seed"] if folds else pd.Series(0, spread.index)
    return {
        name: _moments(name, values, groups[values.index], None if folds else level)
        for name, values in known.items()
        if len(values)
    }


def _moments(name: str, values: "pd.Series[float]", groups: "pd.Series[int]", level: float | None) -> Moments:
    gaps = values - values.groupby(groups).transform("mean")
    n, mean, free = len(values), float(values.mean()), len(values) - groups.nunique()
    sd = float(((gaps**2).sum() / free) ** 0.5) if free else None
    interval = _of_mean(name, mean, sd / n**0.5, free, level) if level is not None and sd and sd > ROUNDING else None
    return Moments(n, mean, sd, float(values.min()), float(values.max()), interval)


def _of_mean(name: str, mean: float, error: float, free: int, level: float) -> Interval:
    """Compute Student's interval, cut where the metric ends."""
    half = float(t.ppf((1 + level) / 2, free)) * error
    spec = spec_named(name)
    return max(mean - half, spec.low), min(mean + half, spec.high)
