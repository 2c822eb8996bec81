"""Which interval a figure gets, and why one gets none.

That of the bootstrap's standard error on log odds, on logarithms for the log loss, which has no largest value; of an
ECE as :func:`cxrnet.evaluation.intervals.of_gaps` has it. Resamples say nothing when the images of a class are all of
one patient, when all resamples give the same value, as of 26 right of 26, and when many give none. A figure then gets
the interval that has a closed form:

* accuracy, sensitivity, specificity, precision, NPV: Wilson's;
* F1: Wilson's of tp / (tp + fp + fn), of which it is a function;
* ROC-AUC: Newcombe's;
* a PR-AUC of 1: Wilson's, as if it were a proportion of the positives (Boyd, Eng & Page 2013,
  doi:10.1007/978-3-642-40994-3_29);
* a mean over classes: what follows from the intervals of the classes;
* everything else: none, but a reason.

The cases of these are patients where images of one belong together, as if all images of one went wrong together: a
proportion of 0 or 1 can't tell how much they do, and so takes the smallest number of cases that it may be of (the
effective sample size of Korn & Graubard 1998, Survey Methodology 24, at its limit).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from cxrnet.evaluation.bootstrap import Units
from cxrnet.evaluation.delong import delong
from cxrnet.evaluation.intervals import Interval, newcombe, of_gaps, of_mean, on_log_odds, wilson
from cxrnet.evaluation.weighted import MEANS, Figures, Key, Rows, rows_behind

FloatArray = npt.NDArray[np.float64]

PROPORTIONS = ("accuracy", "sensitivity", "specificity", "precision", "npv")
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

    def behind(self, label: str, figure: str) -> int:
        """Units that a figure is computed on."""
        return self.units.count(rows_behind(self.rows, (label, figure)))

    def sides(self, label: str) -> tuple[int, int]:
        """Units with images of a class, and units with images of others."""
        return self.behind(label, "sensitivity"), self.behind(label, "specificity")


def uncertainties(sample: Sample) -> dict[Key, Uncertainty]:
    """Find the intervals of all figures that have a value."""
    keys = [key for key, value in sample.values.items() if not np.isnan(value[0]) and not key[1].endswith("_moved")]
    known = {key: _of_figure(sample, *key) | _cross_check(sample, *key) for key in keys if key[1] not in MEANS}
    return known | {key: _of_mean(sample, key[1], known) for key in keys if key[1] in MEANS}


def _of_figure(sample: Sample, label: str, figure: str) -> Uncertainty:
    value, drawn = float(sample.values[label, figure][0]), sample.drawn[label, figure]
    defined = drawn[~np.isnan(drawn)]
    if reason := _silence(sample, label, figure, defined):
        return _closed_form(sample, label, figure, value) or {"interval_reason": reason}
    if figure in ECES:
        moved = sample.drawn[label, f"{figure}_moved"]
        return _stated(of_gaps(value, drawn, moved, sample.level), "bootstrap of gaps")
    top = TOPS.get((label, figure), 1.0)
    interval = on_log_odds(value, defined, _least(sample, label, figure), top, sample.level)
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
    if _least(sample, label, figure) < 2:
        side = "" if not label else f" labelled {label}" if sample.sides(label)[0] < 2 else f" not labelled {label}"
        kind = sample.units.kind
        return f"there is only one image{side}" if kind == "image" else f"all images{side} are of one {kind}"
    if len(defined) < LEAST_DEFINED * resamples:
        return f"it can't be computed in {resamples - len(defined)} of {resamples} resamples"
    if np.ptp(defined) < ROUNDING:
        return f"it is {defined[0]:.4g} in every resample"
    return None


def _least(sample: Sample, label: str, figure: str) -> float:
    """The fewest units that a figure rests on: one that weighs a class against the rest rests on either.

    Of a mean over classes it is the harmonic mean of theirs: variances go with 1 / units, and a mean adds them.
    """
    if figure in MEANS:
        of_classes = [_least(sample, sample.rows.classes[place], MEANS[figure]) for place in sample.rows.over]
        return len(of_classes) / sum(1 / units for units in of_classes)
    behind = sample.behind(label, figure)
    return min(behind, *sample.sides(label)) if figure in ("precision", "npv", "f1", "roc_auc", "pr_auc") else behind


def _closed_form(sample: Sample, label: str, figure: str, value: float) -> Uncertainty | None:
    """An interval without resamples, where there is one."""
    cases = sample.behind(label, figure)
    if figure in PROPORTIONS:
        return _stated(wilson(value * cases, cases, sample.level), "wilson")
    if figure == "f1":
        low, high = wilson(value / (2 - value) * cases, cases, sample.level)
        return _stated((2 * low / (1 + low), 2 * high / (1 + high)), "wilson")
    if figure == "pr_auc" and value == 1 and _least(sample, label, figure) >= 2:
        positives = sample.sides(label)[0]
        return _stated(wilson(positives, positives, sample.level), "wilson")
    # Of one score for all images the AUC is 0.5 by definition.
    if figure == "roc_auc" and (value in (0, 1) or _least(sample, label, figure) < 2):
        return _stated(newcombe(value, *sample.sides(label), sample.level), "newcombe")
    return None


def _cross_check(sample: Sample, label: str, figure: str) -> Uncertainty:
    value = float(sample.values[label, figure][0])
    if figure in PROPORTIONS:
        images = int(rows_behind(sample.rows, (label, figure)).sum())
        return {"wilson": list(wilson(value * images, images, sample.level))}
    if figure == "roc_auc" and _least(sample, label, figure) >= 2:
        index = sample.rows.classes.index(label)
        auc = delong(sample.rows.codes == index, sample.rows.probabilities[:, index], sample.units.of_row)
        low, high = auc.interval(sample.level)
        return {"delong": [max(low, 0.0), min(high, 1.0)]} if auc.error else {}
    return {}


def _stated(interval: Interval, method: str) -> Uncertainty:
    return {"interval": list(interval), "method": method}
