"""The numbers of one split: accuracy, AUC, sensitivity, ..., each with the images behind it and its interval.

Every figure is an object, ``{"value": 0.95, "n": 66, "interval": [0.87, 0.98], "method": "bootstrap on log odds"}``.
One that cannot be computed says why, ``{"value": None, "n": 0, "reason": "no image is labelled Covid"}``: never 0 or
NaN in silence. One without an interval says why in ``interval_reason``.
"""

from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import confusion_matrix

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.bootstrap import Units, bootstrap, units_of
from cxrnet.evaluation.confidence_intervals import LEVEL
from cxrnet.evaluation.metric_intervals import Sample, Uncertainty, uncertainties
from cxrnet.evaluation.point_estimates import (
    ECE_BINS,
    MEANS,
    Figures,
    Key,
    Rows,
    make_rows,
    rows_behind,
    weighted_figures,
)
from cxrnet.evaluation.predictions import classes_of, probabilities_of


class Metric(Uncertainty):
    """One figure."""

    value: float | None
    """None where it cannot be computed."""
    n: int
    """The images the figure is computed on: the positives for a sensitivity, those called positive for a
    precision, those that are or are called positive for an F1."""
    reason: NotRequired[str]
    """Why there is no value."""


class Evaluation(TypedDict):
    """All figures of one table; ``per_class`` maps class to figure to :class:`Metric`."""

    accuracy: Metric
    balanced_accuracy: Metric
    macro_f1: Metric
    log_loss: Metric
    cosine_similarity: Metric
    """Mean over images of the cosine between the probabilities and the one-hot label, as Keras's metric."""
    roc_auc_macro: Metric
    roc_auc_weighted: Metric
    pr_auc_macro: Metric
    brier: Metric
    """Squared distance of the probabilities to the one-hot label, mean over images, in 0..2."""
    ece: Metric
    """Expected calibration error of the called probability, in bins of equal width."""
    ece_equal_mass: Metric
    """The same in bins of equally many images."""
    per_class: dict[str, dict[str, Metric]]


def measured(value: float, n: int) -> Metric:
    """A figure and the number of images it is computed on."""
    return {"value": float(value), "n": int(n)}


def gap(reason: str) -> Metric:
    """A figure that cannot be computed."""
    return {"value": None, "n": 0, "reason": reason}


def evaluate(
    predictions: pd.DataFrame,
    resamples: int = 0,
    seed: int = 0,
    level: float = LEVEL,
    over: Sequence[str] | None = None,
    bins: int = ECE_BINS,
) -> Evaluation:
    """Compute every figure of one split, with intervals.

    An interval holds for other patients in the same mix of classes: the split of a data set says nothing of how many
    patients elsewhere have the disease, and of that precision, NPV, PR-AUC and accuracy depend.

    Args:
        predictions: the rows of one split, every label known.
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap; the same one gives the same intervals.
        level: of the intervals.
        over: classes that macro figures are means over; ``None`` for all.
        bins: of each ECE, at the most: those without images count for nothing.

    Returns:
        Plain Python values, ready for JSON. AUCs are one-vs-rest; ``pr_auc`` is the average precision. Macro
        figures have no value when one of their classes has none.

    Raises:
        CxrnetError: there are no rows, labels are missing, or ``resamples`` or ``level`` won't do.
    """
    if resamples:
        return evaluate_resampled(predictions, units_of(predictions), resamples, seed, level, over, bins)[0]
    rows = rows_of(predictions, over, bins)
    return _nested(_metrics(rows, _figures_of(rows)))


def evaluate_resampled(
    predictions: pd.DataFrame,
    units: Units,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    over: Sequence[str] | None = None,
    bins: int = ECE_BINS,
) -> tuple[Evaluation, Figures]:
    """Compute every figure of one split, and every figure of each resample.

    Tables of the same images on the same units and seed are computed on the same resamples, so that their figures can
    be compared resample by resample.

    Args:
        predictions: as for :func:`evaluate`.
        units: what is drawn.
        resamples: as there, more than 0.
        seed: as there.
        level: as there.
        over: as there.
        bins: as there.

    Returns:
        The figures with intervals, and by class and name what they are in each resample, ``(resamples,)``, NaN where
        one can't be computed. The class of what holds for all classes is empty.
    """
    if not 0 < level < 1:
        raise CxrnetError(f"level: {level} is no share of intervals; give a number between 0 and 1, as 0.95")
    rows = rows_of(predictions, over, bins)
    values, drawn = (
        _figures_of(rows),
        bootstrap(units, lambda weights: weighted_figures(rows, weights), resamples, seed),
    )
    metrics = _metrics(rows, values)
    for key, uncertainty in uncertainties(Sample(rows, units, values, drawn, level)).items():
        metrics[key].update(uncertainty)  # type: ignore[typeddict-item]
    return _nested(metrics), drawn


def rows_of(predictions: pd.DataFrame, over: Sequence[str] | None = None, bins: int = ECE_BINS) -> Rows:
    """Prepare a table for :func:`cxrnet.evaluation.point_estimates.weighted_figures`; raises as :func:`evaluate`."""
    codes, called = label_codes(predictions), _codes(predictions, "predicted")
    return make_rows(classes_of(predictions), codes, called, probabilities_of(predictions), over, bins)


def flat(evaluation: Evaluation) -> Iterator[tuple[str, Key, Metric]]:
    """Every figure with its name (``accuracy``, ..., ``sensitivity_<class>``), and its class and name apart."""
    for name, metric in evaluation.items():
        if name != "per_class":
            yield name, ("", name), metric  # type: ignore[misc]
    for label, figures in evaluation["per_class"].items():
        for figure, metric in figures.items():
            name = f"{figure}_{label}"
            yield f"{name} (class)" if name in evaluation else name, (label, figure), metric  # a class called "macro"


def label_codes(predictions: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Return the labels as ``(N,)`` indices into the classes.

    Raises:
        CxrnetError: there are no rows, or labels are missing.
    """
    if len(predictions) == 0:
        raise CxrnetError("evaluation: the table of predictions has no rows; give at least one labelled image")
    if missing := int(predictions["label"].isna().sum()):
        raise CxrnetError(
            f"evaluation: {missing} of {len(predictions)} images have no label; only labelled images can be evaluated"
        )
    return _codes(predictions, "label")


def counts_of(predictions: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the confusion matrix ``(K, K)``: images by label (row) and predicted class (column), in order."""
    known, called = label_codes(predictions), _codes(predictions, "predicted")
    return np.asarray(confusion_matrix(known, called, labels=range(len(classes_of(predictions)))))


def _codes(predictions: pd.DataFrame, column: str) -> npt.NDArray[np.intp]:
    order = {name: index for index, name in enumerate(classes_of(predictions))}
    return np.asarray(predictions[column].map(order), dtype=np.intp)


def _figures_of(rows: Rows) -> Figures:
    """The figures of the table as it is."""
    return weighted_figures(rows, np.ones((1, len(rows.codes))))


def _metrics(rows: Rows, values: Figures) -> dict[Key, Metric]:
    """Every figure with its n, or with why it has no value."""
    metrics = {}
    for key, value in values.items():
        missing = np.isnan(value[0])
        metrics[key] = gap(_reason(rows, key, values)) if missing else measured(value[0], rows_behind(rows, key).sum())
    return metrics


def _reason(rows: Rows, key: Key, values: Figures) -> str:
    """Why a figure has no value."""
    label, figure = key
    if figure in MEANS:
        parts = [(rows.classes[place], MEANS[figure]) for place in rows.over]
        return next(_reason(rows, part, values) for part in parts if np.isnan(values[part][0]))
    if not rows_behind(rows, (label, "sensitivity")).any():
        return f"no image is labelled {label}"
    if not rows_behind(rows, (label, "specificity")).any():
        return f"every image is labelled {label}"
    return f"{'no' if figure == 'precision' else 'every'} image was called {label}"


def _nested(metrics: dict[Key, Metric]) -> Evaluation:
    per_class: dict[str, dict[str, Metric]] = {}
    for (label, figure), metric in metrics.items():
        if not figure.endswith("_moved"):
            per_class.setdefault(label, {})[figure] = metric
    return cast(Evaluation, {**per_class.pop(""), "per_class": per_class})


def mean_over_classes(
    per_class: dict[str, dict[str, Metric]],
    figure: str,
    n: int,
    weights: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Metric:
    """Average one figure over the classes, plainly or by weight; a gap in one class is a gap in the mean."""
    metrics = [figures[figure] for figures in per_class.values()]
    for metric in metrics:
        if "reason" in metric:
            return gap(metric["reason"])
    return measured(np.average([metric["value"] for metric in metrics], weights=weights), n)


def validation_codes(predictions: pd.DataFrame, what: str) -> npt.NDArray[np.intp]:
    """Return the labels of validation images as ``(N,)`` indices into the classes.

    Args:
        predictions: the rows of the split ``val``; rows of a table without splits count as such.
        what: what is to be chosen, a config key, for the error messages.

    Raises:
        CxrnetError: there are no rows, rows of another split, or labels are missing.
    """
    if len(predictions) == 0:
        raise CxrnetError(f"{what}: there are no validation images to choose it on; give the val split some")
    others = sorted(set(predictions["split"].dropna()) - {"val"})
    if others:
        count = int(predictions["split"].isin(others).sum())
        raise CxrnetError(
            f"{what}: {count} of {len(predictions)} images are of split {', '.join(others)}; "
            "it is chosen on val alone, give only those rows"
        )
    return label_codes(predictions)
