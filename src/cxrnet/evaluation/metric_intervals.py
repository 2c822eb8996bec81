"""The confidence interval of each metric, and why one has none.

It comes from the bootstrap's standard error on log odds of the metric within its range, which for a metric in -1..1 is
Fisher's z; on logarithms for one without a largest value; of an ECE from
:func:`cxrnet.evaluation.confidence_intervals.of_gaps`. Resamples say nothing when the images of a class are all of one
patient, when all resamples give the same value, as of 26 right of 26, and when many give none. A metric then gets the
closed form of its row in the catalogue; a mean over classes gets what follows from the intervals of the classes; all
else gets a reason.

The cases of a closed form are patients where images of one belong together, as if all images of one went wrong
together: a proportion of 0 or 1 can't tell how much they do, and so takes the smallest number of cases that it may be
of (the effective sample size of Korn & Graubard 1998, Survey Methodology 24, at its limit). Where patients have
unequally many images, the degrees of freedom are of Kish's effective number of them (:meth:`Clusters.effective
<cxrnet.evaluation.bootstrap.Clusters.effective>`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from cxrnet.evaluation.bootstrap import LEAST_DEFINED, ROUNDING, Clusters
from cxrnet.evaluation.catalogue import MOVED, Cases, Estimates, Key, MetricSpec, keys_of, spec_of
from cxrnet.evaluation.confidence_intervals import Interval, of_gaps, of_mean, on_log_odds
from cxrnet.evaluation.sums import Images, Rows

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LOG_ODDS = "bootstrap on log odds"


class Uncertainty(TypedDict, total=False):
    """The error of a metric."""

    interval: list[float]
    """Low and high end of the confidence interval."""
    method: str
    """``bootstrap on log odds``, ``bootstrap on logarithms``, ``bootstrap of gaps``, ``wilson``, ``newcombe``, or
    ``combined`` from those of the classes."""
    resamples: int
    """Number that the interval is from, where the metric can't be computed in all of them."""
    interval_reason: str
    """Reason why there is no interval."""


@dataclass(frozen=True)
class Sample:
    """A table and its resamples.

    Attributes:
        rows: of the table.
        clusters: the clusters that were drawn.
        values: metrics of the table, ``(1,)`` each.
        drawn: metrics of the resamples, ``(R,)`` each.
        level: of the intervals.
    """

    rows: Rows
    clusters: Clusters
    values: Estimates
    drawn: Estimates
    level: float

    def sides(self, label: str) -> tuple[int, int]:
        """Count the clusters with images of a class, and those with images of others."""
        sides: tuple[Images, Images] = ("positives", "negatives")
        positives, negatives = (self.clusters.count(self.rows.behind(label, side)) for side in sides)
        return positives, negatives


def uncertainties(sample: Sample) -> dict[Key, Uncertainty]:
    """Find the confidence intervals of all metrics that have a value."""
    keys = [key for key in keys_of(list(sample.rows.classes)) if not np.isnan(sample.values[key][0])]
    known = {key: _of_metric(sample, key) for key in keys if not spec_of(key).mean_of}
    return known | {key: _of_mean(sample, key, known) for key in keys if spec_of(key).mean_of}


def of_one_cluster(clusters: Clusters, key: Key, *tables: Rows) -> bool:
    """Tell whether a metric, or the metric of a class that it is a mean of, rests on one cluster; as :func:`behind`."""
    return min(_least(clusters.count, key, tables)) < 2


def behind(clusters: Clusters, key: Key, *tables: Rows) -> float:
    """Count the clusters behind a metric, the fewer where it weighs a class against others; an effective number.

    For a mean over classes it is the harmonic mean of theirs: variances go with 1 / clusters, and a mean adds them.

    Args:
        clusters: the clusters.
        key: class and name of the metric.
        tables: of the same images; those that any of them computes the metric on count.
    """
    return harmonic_mean(_least(clusters.effective, key, tables))


def _least(measure: Callable[[BoolArray], float], key: Key, tables: Sequence[Rows]) -> list[float]:
    """Count the fewest clusters behind a metric, by a measure of the rows ``(N,)``; of a mean, by class."""
    spec = spec_of(key)
    if spec.mean_of:
        keys = [(tables[0].classes[place], spec.mean_of) for place in tables[0].over]
        return [least for part in keys for least in _least(measure, part, tables)]
    sides: list[Images] = [spec.images, *(("positives", "negatives") if spec.sides else ())]
    some = [np.logical_or.reduce([rows.behind(key[0], images) for rows in tables]) for images in sides]
    return [min(measure(rows) for rows in some)]


def _of_metric(sample: Sample, key: Key) -> Uncertainty:
    spec, value, drawn = spec_of(key), float(sample.values[key][0]), sample.drawn[key]
    defined = drawn[~np.isnan(drawn)]
    if reason := _silence(sample, key, defined):
        closed = spec.closed_form(_cases(sample, key, value)) if spec.closed_form else None
        return _stated(*closed) if closed else {"interval_reason": reason}
    if spec.sums_gaps:
        return _stated(of_gaps(value, drawn, sample.drawn[MOVED], sample.level), "bootstrap of gaps")
    clusters = behind(sample.clusters, key, sample.rows)
    interval = on_log_odds(value, defined, clusters, (spec.low, spec.high), sample.level)
    if np.isinf(interval[1]):
        return {"interval_reason": f"nearly all images are of one {sample.clusters.kind}"}
    known = _stated(interval, "bootstrap on logarithms" if np.isinf(spec.high) else LOG_ODDS)
    return known if len(defined) == len(drawn) else known | {"resamples": len(defined)}


def _of_mean(sample: Sample, key: Key, known: Mapping[Key, Uncertainty]) -> Uncertainty:
    """Combine the intervals of the classes where they are of different kinds, else take that of the mean itself."""
    spec, over = spec_of(key), sample.rows.over
    keys = [(sample.rows.classes[place], spec.mean_of) for place in over]
    parts = [known[part] for part in keys]
    if missing := [(part[0], known[part]["interval_reason"]) for part in keys if "interval" not in known[part]]:
        label, reason = missing[0]
        return {"interval_reason": f"{label} has none: {reason}"}
    if all(part["method"] == LOG_ODDS for part in parts):
        return _of_metric(sample, key)
    values = np.array([sample.values[part][0] for part in keys])
    support = np.bincount(sample.rows.codes, minlength=len(sample.rows.classes))[over]
    weights = support / support.sum() if spec.by_support else np.full(len(keys), 1 / len(keys))
    # Metrics of the positives alone are of different images; all else is computed on the same ones for every class.
    independent = spec_of(keys[0]).images == "positives"
    return _stated(of_mean(values, np.array([part["interval"] for part in parts]), weights, independent), "combined")


def _silence(sample: Sample, key: Key, defined: FloatArray) -> str | None:
    """Say why resamples tell nothing of the error of a metric, or None; ``defined`` are those with a value."""
    label, resamples = key[0], len(sample.drawn[key])
    if of_one_cluster(sample.clusters, key, sample.rows):
        side = "" if not label else f" labelled {label}" if sample.sides(label)[0] < 2 else f" not labelled {label}"
        kind = sample.clusters.kind
        return f"there is only one image{side}" if kind == "image" else f"all images{side} are of one {kind}"
    if len(defined) < LEAST_DEFINED * resamples:
        return f"it can't be computed in {resamples - len(defined)} of {resamples} resamples"
    if np.ptp(defined) < ROUNDING:
        return f"it is {defined[0]:.4g} in every resample"
    spec: MetricSpec = spec_of(key)
    if not spec.sums_gaps and (value := sample.values[key][0]) in (spec.low, spec.high):
        return f"it is {value:.4g}, at the end of its range"
    return None


def _cases(sample: Sample, key: Key, value: float) -> Cases:
    positives, negatives = sample.sides(key[0])
    return Cases(
        value=value,
        n=sample.clusters.cases(sample.rows.behind(key[0], spec_of(key).images), value),
        positives=positives,
        negatives=negatives,
        one_cluster=of_one_cluster(sample.clusters, key, sample.rows),
        label_shares=np.bincount(sample.rows.codes, minlength=len(sample.rows.classes)) / len(sample.rows.codes),
        level=sample.level,
    )


def _stated(interval: Interval, method: str) -> Uncertainty:
    return {"interval": list(interval), "method": method}
