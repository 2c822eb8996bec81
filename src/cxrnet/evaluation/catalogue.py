"""The catalogue of metrics: one row and one function each.

A function takes the sums of R weightings of the images (:class:`cxrnet.evaluation.sums.Sums`) and gives the metric
under each of them, ``(R,)``, or of K classes ``(R, K)``; NaN where it isn't defined. From its row follow the confidence
interval, ``metrics.json``, the report, the model card, the comparison of runs, the table of external data, the console
and MLflow.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
"""Where a metric is shown: console and spread over runs; tables of the result, of the calibration, of each class."""


@dataclass(frozen=True)
class Cases:
    """What a closed form knows of a metric.

    Attributes:
        value: of the table.
        n: independent cases that it is computed on.
        positives: clusters with images of the class.
        negatives: clusters with images of other classes.
        one_cluster: the metric rests on a single cluster.
        label_shares: share of the images of each label, ``(K,)``.
        level: of the interval.
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
        weighs_sides: the metric weighs images of a class against the others, so that both sides count.
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
    weighs_sides: bool = False
    mean_of: str = ""
    by_support: bool = False
    sums_gaps: bool = False
    closed_form: ClosedForm | None = None
    undefined: str = ""


def _accuracy(sums: Sums) -> FloatArray:
    return np.asarray(np.trace(sums.confusion, axis1=1, axis2=2) / sums.total)


def _kappa(sums: Sums) -> FloatArray:
    """Agreement beyond chance (Cohen 1960, doi:10.1177/001316446002000104)."""
    labels, predictions = sums.confusion.sum(axis=2), sums.confusion.sum(axis=1)
    chance = (labels * predictions).sum(axis=1) / sums.total**2
    return np.asarray((_accuracy(sums) - chance) / (1 - chance))


def _mcc(sums: Sums) -> FloatArray:
    """Correlation of labels and predictions (Matthews 1975; of K classes Gorodkin 2004, R_K)."""
    labels, predictions = sums.confusion.sum(axis=2), sums.confusion.sum(axis=1)
    together = np.trace(sums.confusion, axis1=1, axis2=2) * sums.total - (labels * predictions).sum(axis=1)
    spreads = [sums.total**2 - (counts**2).sum(axis=1) for counts in (labels, predictions)]
    return np.asarray(np.clip(together / np.sqrt(spreads[0] * spreads[1]), -1, 1))


def _log_loss(sums: Sums) -> FloatArray:
    return np.asarray(sums.log_loss / sums.total)


def _brier(sums: Sums) -> FloatArray:
    """Squared distance of the probabilities to the one-hot label."""
    return np.asarray(sums.squares.sum(axis=1) / sums.total)


def _ece(sums: Sums) -> FloatArray:
    """Calibration error of the largest probability, in bins of equal width (Guo et al. 2017, arXiv:1706.04599)."""
    return np.asarray(np.abs(sums.gaps).sum(axis=1))


def _cosine(sums: Sums) -> FloatArray:
    """Cosine between the probabilities and the one-hot label, as Keras's metric."""
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
    """Wilson's of tp / (tp + fp + fn), of which the F1 is a function."""
    low, high = wilson(cases.value / (2 - cases.value) * cases.n, cases.n, cases.level)
    return (2 * low / (1 + low), 2 * high / (1 + high)), "wilson"


def _wilson_agreement(cases: Cases) -> Closed | None:
    """Wilson's of an accuracy of 1, less what chance agrees on, which is taken for known (Cohen 1960)."""
    if cases.value != 1:
        return None
    chance = float((cases.label_shares**2).sum())
    low, high = ((end - chance) / (1 - chance) for end in wilson(cases.n, cases.n, cases.level))
    return (max(low, -1.0), high), "wilson"


def _newcombe_auc(cases: Cases) -> Closed | None:
    """Newcombe's of an AUC of 0 or 1, or of one cluster; of one score for all images the AUC is 0.5 by definition."""
    if cases.value not in (0, 1) and not cases.one_cluster:
        return None
    return newcombe(cases.value, cases.positives, cases.negatives, cases.level), "newcombe"


def _wilson_pr_auc(cases: Cases) -> Closed | None:
    """Wilson's of a PR-AUC of 1, taken for a proportion of the positives (Boyd, Eng & Page 2013)."""
    if cases.value != 1 or cases.one_cluster:
        return None
    return wilson(cases.positives, cases.positives, cases.level), "wilson"


METRICS = (
    MetricSpec("accuracy", "Accuracy", _accuracy, shown=("summary", "result"), closed_form=_wilson),
    MetricSpec(
        "balanced_accuracy",
        "Balanced accuracy",
        _mean(_sensitivity),
        shown=("summary", "result"),
        mean_of="sensitivity",
    ),
    MetricSpec("macro_f1", "F1, macro", _mean(_f1), shown=("summary", "result"), mean_of="f1"),
    MetricSpec(
        "kappa",
        "Cohen's kappa",
        _kappa,
        low=-1.0,
        shown=("result",),
        closed_form=_wilson_agreement,
        undefined="every image has the same label and the same prediction",
    ),
    MetricSpec(
        "mcc",
        "Matthews correlation",
        _mcc,
        low=-1.0,
        shown=("result",),
        closed_form=_wilson_agreement,
        undefined="every image has the same label, or the same prediction",
    ),
    MetricSpec("roc_auc_macro", "ROC-AUC, macro", _mean(_roc_auc), shown=("summary", "result"), mean_of="roc_auc"),
    MetricSpec(
        "roc_auc_weighted",
        "ROC-AUC, weighted",
        _roc_auc_weighted,
        shown=("result",),
        mean_of="roc_auc",
        by_support=True,
    ),
    MetricSpec("pr_auc_macro", "PR-AUC, macro", _mean(_pr_auc), shown=("result",), mean_of="pr_auc"),
    MetricSpec(
        "log_loss",
        "Log loss",
        _log_loss,
        high=np.inf,
        higher_is_better=False,
        shown=("result", "calibration"),
    ),
    MetricSpec("brier", "Brier score", _brier, high=2.0, higher_is_better=False, shown=("calibration",)),
    MetricSpec(
        "ece",
        "ECE",
        _ece,
        higher_is_better=False,
        shown=("calibration",),
        sums_gaps=True,
    ),
    MetricSpec("cosine_similarity", "Cosine similarity", _cosine),
    MetricSpec(
        "sensitivity",
        "Sensitivity",
        _sensitivity,
        per_class=True,
        shown=("classes",),
        images="positives",
        closed_form=_wilson,
    ),
    MetricSpec(
        "specificity",
        "Specificity",
        _specificity,
        per_class=True,
        shown=("classes",),
        images="negatives",
        closed_form=_wilson,
    ),
    MetricSpec(
        "precision",
        "Precision (PPV)",
        _precision,
        per_class=True,
        shown=("classes",),
        images="predicted",
        weighs_sides=True,
        closed_form=_wilson,
        undefined="no image was predicted as {label}",
    ),
    MetricSpec(
        "npv",
        "NPV",
        _npv,
        per_class=True,
        shown=("classes",),
        images="not predicted",
        weighs_sides=True,
        closed_form=_wilson,
        undefined="every image was predicted as {label}",
    ),
    MetricSpec(
        "f1",
        "F1",
        _f1,
        per_class=True,
        shown=("classes",),
        images="positives or predicted",
        weighs_sides=True,
        closed_form=_wilson_f1,
    ),
    MetricSpec(
        "roc_auc",
        "ROC-AUC",
        _roc_auc,
        per_class=True,
        shown=("classes",),
        weighs_sides=True,
        closed_form=_newcombe_auc,
    ),
    MetricSpec(
        "pr_auc",
        "PR-AUC",
        _pr_auc,
        per_class=True,
        shown=("classes",),
        weighs_sides=True,
        closed_form=_wilson_pr_auc,
    ),
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
    """Compute every metric under every weighting; NaN where one isn't defined.

    Args:
        rows: the table.
        sums: of its rows under R weightings.
    """
    found: Estimates = {MOVED: np.asarray(np.abs(sums.gaps - sums.gaps_of_table).sum(axis=1))}
    with np.errstate(invalid="ignore", divide="ignore"):
        for spec in METRICS:
            values = spec.compute(sums)
            if spec.per_class:
                found |= {(label, spec.name): values[:, index] for index, label in enumerate(rows.classes)}
            else:
                found["", spec.name] = values
    return found
