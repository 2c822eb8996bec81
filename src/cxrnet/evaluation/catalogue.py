"""The catalogue of metrics: one row and one function each.

A function takes the sums of R weightings of the images (:class:`cxrnet.evaluation.sums.Sums`) and gives the metric
under each of them, ``(R,)``, or of K classes ``(R, K)``; NaN where it isn't defined. From its row follow the confidence
interval, ``metrics.json``, the report, the model card, the comparison of runs, the table of external data, the console
and MLflow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from cxrnet.evaluation.confidence_intervals import Interval, newcombe, wilson
from cxrnet.evaluation.sums import Images, Rows, Sums

FloatArray = npt.NDArray[np.float64]
Key = tuple[str, str]
"""A class and a metric of it; the class of a metric over all classes is empty."""
Estimates = dict[Key, FloatArray]
"""Metrics under R weightings, ``(R,)`` each."""
Place = Literal["summary", "result", "calibration", "classes"]
"""The places that show a metric: console and spread over runs; tables of the result, the calibration, each class."""


@dataclass(frozen=True)
class Cases:
    """The facts that a closed form needs.

    Attributes:
        value: value of the table.
        n: independent cases that it is computed on.
        positives: clusters with images of the class.
        negatives: clusters with images of other classes.
        one_cluster: the metric rests on a single cluster.
        label_shares: share of the images of each label, ``(K,)``.
        level: level of the interval.
    """

    value: float
    n: float
    positives: int
    negatives: int
    one_cluster: bool
    label_shares: FloatArray
    level: float


Closed = tuple[Interval, str]
"""An interval and its method, ``wilson`` or ``newcombe``."""
ClosedForm = Callable[[Cases], Closed | None]


@dataclass(frozen=True)
class MetricSpec:
    """One row of the catalogue.

    Attributes:
        name: key in files and in MLflow.
        title: as a reader sees it.
        compute: from sums to values.
        per_class: the metric is of each class against the rest, else over all classes.
        low: smallest possible value.
        high: largest possible value; infinity for none.
        higher_is_better: direction.
        shown: places of the metric; ``metrics.json`` has every metric.
        images: those that the metric is computed on.
        sides: the metric weighs images of a class against the others, so that both sides count.
        mean_of: the metric of each class that this one is the mean of; empty for none.
        by_support: the mean weighs each class by its images.
        sums_gaps: the metric is a sum of absolute gaps, which chance only adds to.
        closed_form: its interval where resamples say nothing; ``None`` for none.
        undefined: why it has no value, where every class has images; ``{label}`` stands for the class.
    """

    name: str
    title: str
    compute: Callable[[Sums], FloatArray]
    per_class: bool = False
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    shown: tuple[Place, ...] = ()
    images: Images = "all"
    sides: bool = False
    mean_of: str = ""
    by_support: bool = False
    sums_gaps: bool = False
    closed_form: ClosedForm | None = None
    undefined: str = ""


def _accuracy(sums: Sums) -> FloatArray:
    return np.asarray(np.trace(sums.confusion, axis1=1, axis2=2) / sums.total)


def _kappa(sums: Sums) -> FloatArray:
    """Compute the agreement beyond chance (Cohen 1960, doi:10.1177/001316446002000104)."""
    labels, predictions = sums.confusion.sum(axis=2), sums.confusion.sum(axis=1)
    chance = (labels * predictions).sum(axis=1) / sums.total**2
    return np.asarray((_accuracy(sums) - chance) / (1 - chance))


def _mcc(sums: Sums) -> FloatArray:
    """Compute the correlation of labels and predictions (Matthews 1975; of K classes Gorodkin 2004, R_K)."""
    labels, predictions = sums.confusion.sum(axis=2), sums.confusion.sum(axis=1)
    together = np.trace(sums.confusion, axis1=1, axis2=2) * sums.total - (labels * predictions).sum(axis=1)
    spreads = [sums.total**2 - (counts**2).sum(axis=1) for counts in (labels, predictions)]
    return np.asarray(np.clip(together / np.sqrt(spreads[0] * spreads[1]), -1, 1))


def _log_loss(sums: Sums) -> FloatArray:
    return np.asarray(sums.log_loss / sums.total)


def _brier(sums: Sums) -> FloatArray:
    """Compute the squared distance of the probabilities to the one-hot label."""
    return np.asarray(sums.squares.sum(axis=1) / sums.total)


def _ece(sums: Sums) -> FloatArray:
    """Compute the ECE of the largest probability, in bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""
    return np.asarray(np.abs(sums.gaps).sum(axis=1))


def _cosine(sums: Sums) -> FloatArray:
    """Compute the cosine between the probabilities and the one-hot label, as Keras's metric."""
    return sums.cosine / sums.total


def _sensitivity(sums: Sums) -> FloatArray:
    return sums.tp / (sums.tp + sums.fn)


def _specificity(sums: Sums) -> FloatArray:
    return sums.tn / (sums.tn + sums.fp)


def _precision(sums: Sums) -> FloatArray:
    return sums.both_sides * sums.tp / (sums.tp + sums.fp)


def _npv(sums: Sums) -> FloatArray:
    return sums.both_sides * sums.tn / (sums.tn + sums.fn)


def _f1(sums: Sums) -> FloatArray:
    return sums.both_sides * 2 * sums.tp / (2 * sums.tp + sums.fp + sums.fn)


def _roc_auc(sums: Sums) -> FloatArray:
    return sums.roc_auc


def _pr_auc(sums: Sums) -> FloatArray:
    return sums.pr_auc


def _brier_of_class(sums: Sums) -> FloatArray:
    return sums.squares / sums.total[:, None]


def _mean(of: Callable[[Sums], FloatArray]) -> Callable[[Sums], FloatArray]:
    """Average a metric over the classes."""
    return lambda sums: of(sums)[:, sums.over].mean(axis=1)


def _roc_auc_weighted(sums: Sums) -> FloatArray:
    support = sums.confusion.sum(axis=2)[:, sums.over]
    return np.asarray((sums.roc_auc[:, sums.over] * support).sum(axis=1) / support.sum(axis=1))


def _wilson(cases: Cases) -> Closed:
    return wilson(cases.value * cases.n, cases.n, cases.level), "wilson"


def _wilson_f1(cases: Cases) -> Closed:
    """Take Wilson's interval of tp / (tp + fp + fn), of which the F1 is a function."""
    low, high = wilson(cases.value / (2 - cases.value) * cases.n, cases.n, cases.level)
    return (2 * low / (1 + low), 2 * high / (1 + high)), "wilson"


def _wilson_agreement(cases: Cases) -> Closed | None:
    """Take Wilson's interval of an accuracy of 1, less the agreement by chance, which counts as known (Cohen 1960)."""
    if cases.value != 1:
        return None
    chance = float((cases.label_shares**2).sum())
    low, high = ((end - chance) / (1 - chance) for end in wilson(cases.n, cases.n, cases.level))
    return (max(low, -1.0), high), "wilson"


def _newcombe_auc(cases: Cases) -> Closed | None:
    """Take Newcombe's interval of an AUC of 0 or 1, or of one cluster; one score for all images gives 0.5."""
    if cases.value not in (0, 1) and not cases.one_cluster:
        return None
    return newcombe(cases.value, cases.positives, cases.negatives, cases.level), "newcombe"


def _wilson_pr_auc(cases: Cases) -> Closed | None:
    """Take Wilson's interval of a PR-AUC of 1 as a proportion of the positives (Boyd, Eng & Page 2013)."""
    if cases.value != 1 or cases.one_cluster:
        return None
    return wilson(cases.positives, cases.positives, cases.level), "wilson"


# A metric of the tables of the result; one of each class against the rest.
_result = partial(MetricSpec, shown=("result",))
_summary = partial(MetricSpec, shown=("summary", "result"))
_of_class = partial(MetricSpec, per_class=True, shown=("classes",))
_both_sides = partial(_of_class, sides=True)
_agreement = partial(_result, low=-1.0, closed_form=_wilson_agreement)
_NEVER, _ALWAYS = "no image was predicted as {label}", "every image was predicted as {label}"
_ONE_PAIR, _ONE_SIDE = "every image has the same label and prediction", "all labels, or all predictions, are the same"

METRICS = (
    _summary("accuracy", "Accuracy", _accuracy, closed_form=_wilson),
    _summary("balanced_accuracy", "Balanced accuracy", _mean(_sensitivity), mean_of="sensitivity"),
    _summary("macro_f1", "F1, macro", _mean(_f1), mean_of="f1"),
    _agreement("kappa", "Cohen's kappa", _kappa, undefined=_ONE_PAIR),
    _agreement("mcc", "Matthews correlation", _mcc, undefined=_ONE_SIDE),
    _summary("roc_auc_macro", "ROC-AUC, macro", _mean(_roc_auc), mean_of="roc_auc"),
    _result("roc_auc_weighted", "ROC-AUC, weighted", _roc_auc_weighted, mean_of="roc_auc", by_support=True),
    _result("pr_auc_macro", "PR-AUC, macro", _mean(_pr_auc), mean_of="pr_auc"),
    MetricSpec("log_loss", "Log loss", _log_loss, high=np.inf, higher_is_better=False, shown=("result", "calibration")),
    MetricSpec("brier", "Brier score", _brier, high=2.0, higher_is_better=False, shown=("calibration",)),
    MetricSpec("ece", "ECE", _ece, higher_is_better=False, shown=("calibration",), sums_gaps=True),
    MetricSpec("cosine_similarity", "Cosine similarity", _cosine),
    _of_class("sensitivity", "Sensitivity", _sensitivity, images="positives", closed_form=_wilson),
    _of_class("specificity", "Specificity", _specificity, images="negatives", closed_form=_wilson),
    _both_sides("precision", "Precision (PPV)", _precision, images="predicted", closed_form=_wilson, undefined=_NEVER),
    _both_sides("npv", "NPV", _npv, images="not predicted", closed_form=_wilson, undefined=_ALWAYS),
    _both_sides("f1", "F1", _f1, images="positives or predicted", closed_form=_wilson_f1),
    _both_sides("roc_auc", "ROC-AUC", _roc_auc, closed_form=_newcombe_auc),
    _both_sides("pr_auc", "PR-AUC", _pr_auc, closed_form=_wilson_pr_auc),
    MetricSpec("brier", "Brier score", _brier_of_class, per_class=True, higher_is_better=False),
)
OVERALL = {spec.name: spec for spec in METRICS if not spec.per_class}
PER_CLASS = {spec.name: spec for spec in METRICS if spec.per_class}
MOVED = ("", "moved gaps")
"""Not a metric: distance of the gaps of a resample from those of the table, which the interval of an ECE needs."""


def spec_of(key: Key) -> MetricSpec:
    """Return the row of a metric by class and name."""
    label, name = key
    return PER_CLASS[name] if label else OVERALL[name]


def spec_named(name: str) -> MetricSpec:
    """Return the row of a metric by its name in a flat table: ``accuracy``, ``sensitivity_<class>``."""
    of_class = (spec for spec in PER_CLASS.values() if name.startswith(f"{spec.name}_"))
    return OVERALL[name] if name in OVERALL else next(of_class)


def shown_in(place: Place) -> list[MetricSpec]:
    """Return the metrics that stand in one place, in order."""
    return [spec for spec in METRICS if place in spec.shown]


def keys_of(classes: list[str]) -> list[Key]:
    """Return class and name of every metric of a table with these classes."""
    return [("", name) for name in OVERALL] + [(label, name) for label in classes for name in PER_CLASS]


def estimates(rows: Rows, sums: Sums) -> Estimates:
    """Compute every metric under every weighting of the rows; NaN where one isn't defined."""
    found: Estimates = {MOVED: np.asarray(np.abs(sums.gaps - sums.gaps_of_table).sum(axis=1))}
    with np.errstate(invalid="ignore", divide="ignore"):
        for spec in METRICS:
            values = spec.compute(sums)
            if spec.per_class:
                found |= {(label, spec.name): values[:, index] for index, label in enumerate(rows.classes)}
            else:
                found["", spec.name] = values
    return found
