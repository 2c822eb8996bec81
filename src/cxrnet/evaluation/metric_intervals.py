"""Which interval a figure gets, and why one gets none.

That of the bootstrap's standard error on log odds, on logarithms for the log loss, which has no largest value; of an
ECE as :func:`cxrnet.evaluation.confidence_intervals.of_gaps` has it. Resamples say nothing when the images of a class
are all of one patient, when all resamples give the same value, as of 26 right of 26, and when many give none. A figure
then gets the interval that has a closed form:

* accuracy, sensitivity, specificity, precision, NPV: Wilson's;
* F1: Wilson's of tp / (tp + fp + fn), of which it is a function;
* ROC-AUC: Newcombe's;
* a PR-AUC of 1: Wilson's, as if it were a proportion of the positives (Boyd, Eng & Page 2013,
  doi:10.1007/978-3-642-40994-3_29);
* a mean over classes: what follows from the intervals of the classes;
* everything else: none, but a reason.

The cases of these are patients where images of one belong together, as if all images of one went wrong together: a
proportion of 0 or 1 can't tell how much they do, and so takes the smallest number of cases that it may be of (the
effective sample size of Korn & Graubard 1998, Survey Methodology 24, at its limit). Where patients have unequally many
images, the degrees of freedom are of Kish's effective number of them (:meth:`Units.effective
<cxrnet.evaluation.bootstrap.Units.effective>`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from cxrnet.evaluation.bootstrap import Units, bootstrap
from cxrnet.evaluation.confidence_intervals import Interval, delong, newcombe, of_gaps, of_mean, on_log_odds, wilson
from cxrnet.evaluation.point_estimates import MEANS, Figures, Key, Rows, rows_behind

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PROPORTIONS = ("accuracy", "sensitivity", "specificity", "precision", "npv")
# What weighs the images of a class against the others.
WEIGHED = ("precision", "npv", "f1", "roc_auc", "pr_auc")
ECES = ("ece", "ece_equal_mass")
# Largest value of a figure, where it isn't 1.
TOPS = {("", "brier"): 2.0, ("", "log_loss"): np.inf}
# Of the resamples. With fewer the interval would be of other tables than ours: of those in which the class is called.
LEAST_DEFINED = 0.9
# Resamples that differ by less differ by rounding.
ROUNDING = 1e-9


class Uncertainty(TypedDict, total=False):
    """What is known of the error of a figure."""

    interval: list[float]
    """Low and high end."""
    method: str
    """``bootstrap on log odds``, ``bootstrap on logarithms``, ``bootstrap of gaps``, ``wilson``, ``newcombe``, or
    ``combined`` from those of the classes."""
    resamples: int
    """How many the interval is from, where the figure can't be computed in all of them."""
    interval_reason: str
    """Why there is no interval."""
    wilson: list[float]
    """Cross-check of a proportion: Wilson's interval, which takes every image for one of another patient."""
    delong: list[float]
    """Cross-check of a ROC-AUC: DeLong's interval, of patients where they are known. Missing where it has no width."""


@dataclass(frozen=True)
class Sample:
    """A table and its resamples.

    Attributes:
        rows: of the table.
        units: what was drawn.
        values: figures of the table, ``(1,)`` each.
        drawn: figures of the resamples, ``(R,)`` each.
        level: of the intervals.
    """

    rows: Rows
    units: Units
    values: Figures
    drawn: Figures
    level: float

    def sides(self, label: str) -> tuple[int, int]:
        """Units with images of a class, and units with images of others."""
        sides = (rows_behind(self.rows, (label, figure)) for figure in ("sensitivity", "specificity"))
        return self.units.count(next(sides)), self.units.count(next(sides))


def uncertainties(sample: Sample) -> dict[Key, Uncertainty]:
    """Find the intervals of all figures that have a value."""
    keys = [key for key, value in sample.values.items() if not np.isnan(value[0]) and not key[1].endswith("_moved")]
    known = {key: _of_figure(sample, *key) | _cross_check(sample, *key) for key in keys if key[1] not in MEANS}
    return known | {key: _of_mean(sample, key[1], known) for key in keys if key[1] in MEANS}


def of_one_cluster(units: Units, key: Key, *tables: Rows) -> bool:
    """Whether a metric, or the metric of a class that it is a mean of, rests on one cluster; as :func:`behind`."""
    return min(_least(units.count, key, tables)) < 2


def behind(units: Units, key: Key, *tables: Rows) -> float:
    """The effective number of clusters that a metric rests on, the smaller one where it weighs a class against others.

    Of a mean over classes it is the harmonic mean of theirs: variances go with 1 / clusters, and a mean adds them.

    Args:
        units: the clusters.
        key: class and name of the metric.
        tables: of the same images; those that any of them computes the metric on count.
    """
    return harmonic_mean(_least(units.effective, key, tables))


def _least(measure: Callable[[BoolArray], float], key: Key, tables: Sequence[Rows]) -> list[float]:
    """The fewest clusters that a metric rests on, by a measure of the rows ``(N,)``; of a mean, by class."""
    label, figure = key
    if figure in MEANS:
        keys = [(tables[0].classes[place], MEANS[figure]) for place in tables[0].over]
        return [least for part in keys for least in _least(measure, part, tables)]
    names = (figure, "sensitivity", "specificity") if figure in WEIGHED else (figure,)
    some = [np.logical_or.reduce([rows_behind(rows, (label, name)) for rows in tables]) for name in names]
    return [min(measure(rows) for rows in some)]


def _of_figure(sample: Sample, label: str, figure: str) -> Uncertainty:
    value, drawn = float(sample.values[label, figure][0]), sample.drawn[label, figure]
    defined = drawn[~np.isnan(drawn)]
    if reason := _silence(sample, label, figure, defined):
        return _closed_form(sample, label, figure, value) or {"interval_reason": reason}
    if figure in ECES:
        moved = sample.drawn[label, f"{figure}_moved"]
        return _stated(of_gaps(value, drawn, moved, sample.level), "bootstrap of gaps")
    top = TOPS.get((label, figure), 1.0)
    clusters = behind(sample.units, (label, figure), sample.rows)
    interval = on_log_odds(value, defined, clusters, top, sample.level)
    if np.isinf(interval[1]):
        return {"interval_reason": f"nearly all images are of one {sample.units.kind}"}
    known = _stated(interval, "bootstrap on logarithms" if np.isinf(top) else "bootstrap on log odds")
    return known if len(defined) == len(drawn) else known | {"resamples": len(defined)}


def _of_mean(sample: Sample, figure: str, known: Mapping[Key, Uncertainty]) -> Uncertainty:
    """Of a mean over classes: as of any figure, but where a class has an interval of another kind, or none."""
    over = sample.rows.over
    keys = [(sample.rows.classes[place], MEANS[figure]) for place in over]
    parts = [known[key] for key in keys]
    if missing := [(key[0], known[key]["interval_reason"]) for key in keys if "interval" not in known[key]]:
        label, reason = missing[0]
        return {"interval_reason": f"{label} has none: {reason}"}
    if all(part["method"] == "bootstrap on log odds" for part in parts):
        return _of_figure(sample, "", figure)
    values = np.array([sample.values[key][0] for key in keys])
    support = np.bincount(sample.rows.codes, minlength=len(sample.rows.classes))[over]
    weights = support / support.sum() if figure == "roc_auc_weighted" else np.full(len(keys), 1 / len(keys))
    # The sensitivities are of different images; all else is computed on the same ones for every class.
    independent = figure == "balanced_accuracy"
    return _stated(of_mean(values, np.array([part["interval"] for part in parts]), weights, independent), "combined")


def _silence(sample: Sample, label: str, figure: str, defined: FloatArray) -> str | None:
    """Why resamples say nothing of the error of a figure; None where they do. ``defined`` are those with a value."""
    resamples = len(sample.drawn[label, figure])
    if of_one_cluster(sample.units, (label, figure), sample.rows):
        side = "" if not label else f" labelled {label}" if sample.sides(label)[0] < 2 else f" not labelled {label}"
        kind = sample.units.kind
        return f"there is only one image{side}" if kind == "image" else f"all images{side} are of one {kind}"
    if len(defined) < LEAST_DEFINED * resamples:
        return f"it can't be computed in {resamples - len(defined)} of {resamples} resamples"
    if np.ptp(defined) < ROUNDING:
        return f"it is {defined[0]:.4g} in every resample"
    return None


def _closed_form(sample: Sample, label: str, figure: str, value: float) -> Uncertainty | None:
    """An interval without resamples, where there is one."""
    cases = sample.units.cases(rows_behind(sample.rows, (label, figure)), value)
    if figure in PROPORTIONS:
        return _stated(wilson(value * cases, cases, sample.level), "wilson")
    if figure == "f1":
        low, high = wilson(value / (2 - value) * cases, cases, sample.level)
        return _stated((2 * low / (1 + low), 2 * high / (1 + high)), "wilson")
    if figure == "pr_auc" and value == 1 and not of_one_cluster(sample.units, (label, figure), sample.rows):
        positives = sample.sides(label)[0]
        return _stated(wilson(positives, positives, sample.level), "wilson")
    # Of one score for all images the AUC is 0.5 by definition.
    if figure == "roc_auc" and (value in (0, 1) or of_one_cluster(sample.units, (label, figure), sample.rows)):
        return _stated(newcombe(value, *sample.sides(label), sample.level), "newcombe")
    return None


def _cross_check(sample: Sample, label: str, figure: str) -> Uncertainty:
    value = float(sample.values[label, figure][0])
    if figure in PROPORTIONS:
        images = int(rows_behind(sample.rows, (label, figure)).sum())
        return {"wilson": list(wilson(value * images, images, sample.level))}
    if figure == "roc_auc" and not of_one_cluster(sample.units, (label, figure), sample.rows):
        index = sample.rows.classes.index(label)
        auc = delong(sample.rows.codes == index, sample.rows.probabilities[:, index], sample.units.of_row)
        low, high = auc.interval(sample.level)
        return {"delong": [max(low, 0.0), min(high, 1.0)]} if auc.error else {}
    return {}


def _stated(interval: Interval, method: str) -> Uncertainty:
    return {"interval": list(interval), "method": method}


Share = tuple[BoolArray, BoolArray]
"""Of N images: those that count, ``(N, T)``, and those that they are a share of, the same or ``(N, 1)``."""

# Along a risk-coverage curve, which has a point an image: every hundredth of the images.
POINTS = 100


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        units: what is drawn.
        resamples: how many; 0 for no intervals.
        seed: of the draws.
        level: of the intervals.
    """

    units: Units
    resamples: int
    seed: int
    level: float


def intervals(shares: Sequence[Share], resampling: Resampling) -> list[FloatArray]:
    """The interval of each share, ``(T, 2)``; all of the same resamples."""
    sums = [(part.astype(np.float64), whole.astype(np.float64)) for part, whole in shares]

    def drawn(weights: FloatArray) -> dict[int, FloatArray]:
        with np.errstate(invalid="ignore"):
            return {place: (weights @ part) / (weights @ whole) for place, (part, whole) in enumerate(sums)}

    resampled = bootstrap(resampling.units, drawn, resampling.resamples, resampling.seed)
    return [_of_share(*share, resampled[place], resampling) for place, share in enumerate(shares)]


def _of_share(part: BoolArray, whole: BoolArray, drawn: FloatArray, resampling: Resampling) -> FloatArray:
    """The interval at each of T points, of which there are R resamples, ``(R, T)``."""
    values = part.sum(axis=0) / whole.sum(axis=0)
    points = zip(values, drawn.T, np.broadcast_to(whole, part.shape).T, strict=True)
    return np.array([_interval(*point, resampling) for point in points])


def _interval(value: float, drawn: FloatArray, rows: BoolArray, resampling: Resampling) -> Interval:
    """Of one share of the rows ``(N,)``, which is in each resample ``drawn``, ``(R,)``."""
    units, level, defined = resampling.units, resampling.level, drawn[~np.isnan(drawn)]
    if units.count(rows) < 2 or len(defined) < LEAST_DEFINED * len(drawn) or np.ptp(defined) < ROUNDING:
        cases = units.cases(rows, value)
        return wilson(value * cases, cases, level)
    return on_log_odds(value, defined, units.effective(rows), level=level)
