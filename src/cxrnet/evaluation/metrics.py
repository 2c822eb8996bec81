"""The numbers of one split: accuracy, AUC, sensitivity, ..., each with the number of images behind it.

Every figure is an object, ``{"value": 0.95, "n": 66}``, so that an interval can join it. A figure that cannot be
computed says why, ``{"value": None, "n": 0, "reason": "no image is labelled Covid"}``: never 0 or NaN in silence.
"""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, confusion_matrix, log_loss, roc_auc_score

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import classes_of, probabilities_of


class Metric(TypedDict):
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
    roc_auc_macro: Metric
    roc_auc_weighted: Metric
    pr_auc_macro: Metric
    per_class: dict[str, dict[str, Metric]]


def measured(value: float, n: int) -> Metric:
    """A figure and the number of images it is computed on."""
    return {"value": float(value), "n": int(n)}


def gap(reason: str) -> Metric:
    """A figure that cannot be computed."""
    return {"value": None, "n": 0, "reason": reason}


def evaluate(predictions: pd.DataFrame) -> Evaluation:
    """Compute every figure of one split.

    Args:
        predictions: the rows of one split, every label known.

    Returns:
        Plain Python values, ready for JSON. AUCs are one-vs-rest; ``pr_auc`` is the average precision. Macro
        figures are means over all classes, and have no value when one class has none.

    Raises:
        CxrnetError: there are no rows, or labels are missing.
    """
    codes = label_codes(predictions)
    classes, probabilities = classes_of(predictions), probabilities_of(predictions)
    n = len(codes)
    counts = counts_of(predictions)
    per_class = {
        name: _class_metrics(name, counts, index, probabilities[:, index], codes == index)
        for index, name in enumerate(classes)
    }
    support = counts.sum(axis=1)
    # Tables of other programs hold rounded probabilities, and the log loss is defined for a distribution.
    distribution = probabilities / probabilities.sum(axis=1, keepdims=True)
    return {
        "accuracy": measured(np.trace(counts) / n, n),
        "balanced_accuracy": mean_over_classes(per_class, "sensitivity", n),
        "macro_f1": mean_over_classes(per_class, "f1", n),
        "log_loss": measured(log_loss(codes, distribution, labels=range(len(classes))), n),
        "roc_auc_macro": mean_over_classes(per_class, "roc_auc", n),
        "roc_auc_weighted": mean_over_classes(per_class, "roc_auc", n, weights=support),
        "pr_auc_macro": mean_over_classes(per_class, "pr_auc", n),
        "per_class": per_class,
    }


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


def _class_metrics(
    name: str,
    counts: npt.NDArray[np.int64],
    index: int,
    probability: npt.NDArray[np.float64],
    positive: npt.NDArray[np.bool_],
) -> dict[str, Metric]:
    """One class against the rest. Figures that weigh positives against negatives need both in the table."""
    tp = int(counts[index, index])
    fn = int(counts[index].sum()) - tp
    fp = int(counts[:, index].sum()) - tp
    tn = int(counts.sum()) - tp - fn - fp
    absent, alone = f"no image is labelled {name}", f"every image is labelled {name}"
    one_sided = absent if tp + fn == 0 else alone if tn + fp == 0 else None
    figures = {
        "sensitivity": _proportion(tp, tp + fn, absent),
        "specificity": _proportion(tn, tn + fp, alone),
    }
    if one_sided is not None:
        return figures | {key: gap(one_sided) for key in ("precision", "npv", "f1", "roc_auc", "pr_auc")}
    return figures | {
        "precision": _proportion(tp, tp + fp, f"no image was called {name}"),
        "npv": _proportion(tn, tn + fn, f"every image was called {name}"),
        "f1": measured(2 * tp / (2 * tp + fp + fn), tp + fp + fn),
        "roc_auc": measured(roc_auc_score(positive, probability), len(positive)),
        "pr_auc": measured(average_precision_score(positive, probability), len(positive)),
    }


def _proportion(part: int, whole: int, reason: str) -> Metric:
    return measured(part / whole, whole) if whole else gap(reason)


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
