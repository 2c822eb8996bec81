"""The metrics of one split: accuracy, AUC, sensitivity, ..., each with the images behind it and its interval.

Every metric is an object, ``{"value": 0.95, "n": 66, "interval": [0.87, 0.98], "method": "bootstrap on log odds"}``.
One that cannot be computed says why, ``{"value": None, "n": 0, "reason": "no image is labelled Covid"}``: never 0 or
NaN in silence. One without an interval says why in ``interval_reason``.

An interval comes from the bootstrap's standard error on log odds of the metric within its range, which for a metric in
-1..1 is Fisher's z; on logarithms for one without a largest value; of an ECE from
:func:`cxrnet.evaluation.confidence_intervals.of_gaps`. Resamples say nothing when the images of a class are all of one
patient, when all resamples give the same value, as of 26 right of 26, and when many give none. A metric then gets the
closed form of its row in the catalogue; a mean over classes gets what follows from the intervals of the classes; all
else gets a reason.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import harmonic_mean
from typing import Any, NotRequired, TypedDict

import numpy as np
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.catalogue import (
    MOVED,
    OVERALL,
    PER_CLASS,
    Cases,
    Estimates,
    Key,
    estimates,
    keys_of,
    spec_of,
)
from cxrnet.evaluation.confidence_intervals import (
    LEAST_DEFINED,
    LEVEL,
    ROUNDING,
    BoolArray,
    Clusters,
    FloatArray,
    Interval,
    bootstrap,
    clusters_of,
    of_gaps,
    of_mean,
    on_log_odds,
)
from cxrnet.evaluation.sums import ECE_BINS, Images, Rows, rows_of, sums_of

_LOG_ODDS = "bootstrap on log odds"


class Metric(TypedDict):
    """The value of one metric."""

    value: float | None
    """None where it cannot be computed."""
    n: int
    """The images that the metric is computed on: the positives for a sensitivity, those predicted positive for a
    precision, those that are or are predicted positive for an F1."""
    reason: NotRequired[str]
    """Reason why there is no value."""
    interval: NotRequired[list[float]]
    """Low and high end of the confidence interval."""
    method: NotRequired[str]
    """``bootstrap on log odds``, ``bootstrap on logarithms``, ``bootstrap of gaps``, ``wilson``, ``newcombe``, or
    ``combined`` from those of the classes."""
    resamples: NotRequired[int]
    """Number that the interval is from, where the metric can't be computed in all of them."""
    interval_reason: NotRequired[str]
    """Reason why there is no interval."""


Evaluation = dict[str, Any]
"""All metrics of one table, ready for JSON: name to :class:`Metric` of those over all classes, and under ``per_class``
class to name to :class:`Metric` (:mod:`cxrnet.evaluation.catalogue`)."""


def measured(value: float, n: int) -> Metric:
    """State a metric and the number of images that it is computed on."""
    return {"value": float(value), "n": int(n)}


def gap(reason: str) -> Metric:
    """State that a metric cannot be computed, and why."""
    return {"value": None, "n": 0, "reason": reason}


def evaluate(
    predictions: pd.DataFrame,
    resamples: int = 0,
    seed: int = 0,
    level: float = LEVEL,
    over: Sequence[str] | None = None,
    bins: int = ECE_BINS,
) -> Evaluation:
    """Compute every metric of one split, with intervals.

    An interval holds for other patients in the same mix of classes: the split of a data set says nothing of how many
    patients elsewhere have the disease, and of that precision, NPV, PR-AUC and accuracy depend.

    Args:
        predictions: the rows of one split, every label known.
        resamples: resamples of the bootstrap; 0 for no intervals.
        seed: seed of the bootstrap; the same one gives the same intervals.
        level: level of the intervals.
        over: classes that macro metrics are means over; ``None`` for all.
        bins: bins of each ECE, at the most: those without images count for nothing.

    Returns:
        Plain Python values, ready for JSON. AUCs are one-vs-rest; ``pr_auc`` is the average precision. Macro
        metrics have no value when one of their classes has none.

    Raises:
        CxrnetError: there are no rows, labels are missing, or ``resamples`` or ``level`` won't do.
    """
    if resamples:
        return evaluate_resampled(predictions, clusters_of(predictions), resamples, seed, level, over, bins)[0]
    rows = rows_of(predictions, over, bins)
    return _nested(_metrics(rows, _of_table(rows)))


def evaluate_resampled(
    predictions: pd.DataFrame,
    clusters: Clusters,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    over: Sequence[str] | None = None,
    bins: int = ECE_BINS,
) -> tuple[Evaluation, Estimates]:
    """Compute every metric of one split, and every metric of each resample.

    Tables of the same images on the same clusters and seed are computed on the same resamples, so that their metrics
    can be compared resample by resample. Arguments and errors are those of :func:`evaluate`, ``resamples`` above 0.

    Returns:
        The metrics with intervals, and by class and name what they are in each resample, ``(resamples,)``, NaN where
        one can't be computed. The class of what holds for all classes is empty.
    """
    if not 0 < level < 1:
        raise CxrnetError(f"level: {level} is no share of intervals; give a number between 0 and 1, as 0.95")
    rows = rows_of(predictions, over, bins)
    values = _of_table(rows)
    drawn = bootstrap(clusters, lambda weights: estimates(rows, sums_of(rows, weights)), resamples, seed)
    metrics = _metrics(rows, values)
    sample = _Sample(rows, clusters, metrics, drawn, level)
    for means in (False, True):  # those of the classes first
        for key, metric in metrics.items():
            if metric["value"] is not None and bool(spec_of(key).mean_of) == means:
                (sample.state_mean if means else sample.state)(key)
    return _nested(metrics), drawn


def flat(evaluation: Evaluation) -> Iterator[tuple[str, Key, Metric]]:
    """Yield every metric with its name (``accuracy``, ..., ``sensitivity_<class>``), and its class and name apart."""
    for name in OVERALL:
        yield name, ("", name), evaluation[name]
    for label, metrics in evaluation["per_class"].items():
        for metric in PER_CLASS:
            name = f"{metric}_{label}"
            # A class may be called "macro".
            yield f"{name} (class)" if name in evaluation else name, (label, metric), metrics[metric]


def of_one_cluster(clusters: Clusters, key: Key, *tables: Rows) -> bool:
    """Tell whether a metric, or the metric of a class that it is a mean of, rests on one cluster; as :func:`behind`."""
    return min(_least(clusters.count, key, tables)) < 2


def behind(clusters: Clusters, key: Key, *tables: Rows) -> float:
    """Count the clusters behind a metric, the fewer where it weighs a class against others; an effective number.

    For a mean over classes it is the harmonic mean of theirs: variances go with 1 / clusters, and a mean adds them.

    Args:
        clusters: the clusters.
        key: class and name of the metric.
        tables: tables of the same images; those that any of them computes the metric on count.
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


class _Sample:
    """A table, its metrics without intervals, and its resamples; states the interval of each metric."""

    def __init__(
        self, rows: Rows, clusters: Clusters, metrics: dict[Key, Metric], drawn: Estimates, level: float
    ) -> None:
        self.rows, self.clusters, self.metrics, self.drawn, self.level = rows, clusters, metrics, drawn, level
        self.support = np.bincount(rows.codes, minlength=len(rows.classes))

    def state(self, key: Key) -> None:
        """State the interval of a metric, or why it has none."""
        spec, value, drawn = spec_of(key), self._value(key), self.drawn[key]
        defined = drawn[~np.isnan(drawn)]
        if reason := self._silence(key, value, defined):
            if spec.closed_form and (closed := spec.closed_form(self._cases(key, value))):
                self._set(key, *closed)
            else:
                self.metrics[key]["interval_reason"] = reason
            return
        if spec.sums_gaps:
            self._set(key, of_gaps(value, drawn, self.drawn[MOVED], self.level), "bootstrap of gaps")
            return
        clusters = behind(self.clusters, key, self.rows)
        interval = on_log_odds(value, defined, clusters, (spec.low, spec.high), self.level)
        if np.isinf(interval[1]):
            self.metrics[key]["interval_reason"] = f"nearly all images are of one {self.clusters.kind}"
            return
        self._set(key, interval, "bootstrap on logarithms" if np.isinf(spec.high) else _LOG_ODDS)
        if len(defined) < len(drawn):
            self.metrics[key]["resamples"] = len(defined)

    def state_mean(self, key: Key) -> None:
        """Combine the intervals of the classes where they are of different kinds, else take that of the mean itself."""
        spec, over = spec_of(key), self.rows.over
        keys = [(self.rows.classes[place], spec.mean_of) for place in over]
        parts = [self.metrics[part] for part in keys]
        for (label, _), part in zip(keys, parts, strict=True):
            if "interval" not in part:
                self.metrics[key]["interval_reason"] = f"{label} has none: {part['interval_reason']}"
                return
        if all(part["method"] == _LOG_ODDS for part in parts):
            self.state(key)
            return
        support = self.support[over]
        weights = support / support.sum() if spec.by_support else np.full(len(keys), 1 / len(keys))
        # Metrics of the positives alone are of different images; all else is computed on the same ones for every class.
        independent = spec_of(keys[0]).images == "positives"
        values, ends = np.array([self._value(part) for part in keys]), np.array([part["interval"] for part in parts])
        self._set(key, of_mean(values, ends, weights, independent), "combined")

    def _silence(self, key: Key, value: float, defined: FloatArray) -> str | None:
        """Say why resamples tell nothing of the error of a metric, or None; ``defined`` are those with a value."""
        label, resamples, spec = key[0], len(self.drawn[key]), spec_of(key)
        if of_one_cluster(self.clusters, key, self.rows):
            side = "" if not label else f" labelled {label}" if self._count(label)[0] < 2 else f" not labelled {label}"
            kind = self.clusters.kind
            return f"there is only one image{side}" if kind == "image" else f"all images{side} are of one {kind}"
        if len(defined) < LEAST_DEFINED * resamples:
            return f"it can't be computed in {resamples - len(defined)} of {resamples} resamples"
        if np.ptp(defined) < ROUNDING:
            return f"it is {defined[0]:.4g} in every resample"
        if not spec.sums_gaps and value in (spec.low, spec.high):
            return f"it is {value:.4g}, at the end of its range"
        return None

    def _cases(self, key: Key, value: float) -> Cases:
        positives, negatives = self._count(key[0])
        return Cases(
            value=value,
            n=self.clusters.cases(self.rows.behind(key[0], spec_of(key).images), value),
            positives=positives,
            negatives=negatives,
            one_cluster=of_one_cluster(self.clusters, key, self.rows),
            label_shares=self.support / len(self.rows.codes),
            level=self.level,
        )

    def _count(self, label: str) -> tuple[int, int]:
        """Count the clusters with images of a class, and those with images of others."""
        positives, negatives = self.rows.behind(label, "positives"), self.rows.behind(label, "negatives")
        return self.clusters.count(positives), self.clusters.count(negatives)

    def _value(self, key: Key) -> float:
        value = self.metrics[key]["value"]
        return float("nan") if value is None else value

    def _set(self, key: Key, interval: Interval, method: str) -> None:
        self.metrics[key].update({"interval": list(interval), "method": method})


def _of_table(rows: Rows) -> Estimates:
    """Compute the metrics of the table as it is, ``(1,)`` each."""
    return estimates(rows, sums_of(rows, np.ones((1, len(rows.codes)))))


def _metrics(rows: Rows, values: Estimates) -> dict[Key, Metric]:
    """State every metric with its n, or why it has no value."""
    metrics = {}
    for key in keys_of(list(rows.classes)):
        value, images = values[key][0], rows.behind(key[0], spec_of(key).images)
        metrics[key] = gap(_reason(rows, key, values)) if np.isnan(value) else measured(value, images.sum())
    return metrics


def _reason(rows: Rows, key: Key, values: Estimates) -> str:
    """Say why a metric has no value."""
    label, spec = key[0], spec_of(key)
    if spec.mean_of:
        parts = [(rows.classes[place], spec.mean_of) for place in rows.over]
        return next(_reason(rows, part, values) for part in parts if np.isnan(values[part][0]))
    if label and not rows.behind(label, "positives").any():
        return f"no image is labelled {label}"
    if label and not rows.behind(label, "negatives").any():
        return f"every image is labelled {label}"
    return spec.undefined.format(label=label) or f"{spec.title} is not defined for these images"


def _nested(metrics: dict[Key, Metric]) -> Evaluation:
    per_class: dict[str, dict[str, Metric]] = {}
    for (label, name), metric in metrics.items():
        per_class.setdefault(label, {})[name] = metric
    return {**per_class.pop(""), "per_class": per_class}
