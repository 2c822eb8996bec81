"""The numbers of one split: accuracy, AUC, sensitivity, ..., each with the images behind it and its interval.

Every metric is an object, ``{"value": 0.95, "n": 66, "interval": [0.87, 0.98], "method": "bootstrap on log odds"}``.
One that cannot be computed says why, ``{"value": None, "n": 0, "reason": "no image is labelled Covid"}``: never 0 or
NaN in silence. One without an interval says why in ``interval_reason``.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NotRequired

import numpy as np
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.bootstrap import Clusters, bootstrap, clusters_of
from cxrnet.evaluation.catalogue import OVERALL, PER_CLASS, Estimates, Key, estimates, keys_of, spec_of
from cxrnet.evaluation.confidence_intervals import LEVEL
from cxrnet.evaluation.metric_intervals import Sample, Uncertainty, uncertainties
from cxrnet.evaluation.predictions import classes_of, label_codes, predicted_codes, probabilities_of
from cxrnet.evaluation.sums import ECE_BINS, Rows, make_rows, sums_of


class Metric(Uncertainty):
    """The value of one metric."""

    value: float | None
    """None where it cannot be computed."""
    n: int
    """The images that the metric is computed on: the positives for a sensitivity, those predicted positive for a
    precision, those that are or are predicted positive for an F1."""
    reason: NotRequired[str]
    """Reason why there is no value."""


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
        resamples: of the bootstrap; 0 for no intervals.
        seed: of the bootstrap; the same one gives the same intervals.
        level: of the intervals.
        over: classes that macro metrics are means over; ``None`` for all.
        bins: of each ECE, at the most: those without images count for nothing.

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
    can be compared resample by resample.

    Args:
        predictions: as for :func:`evaluate`.
        clusters: what is drawn.
        resamples: as there, more than 0.
        seed: as there.
        level: as there.
        over: as there.
        bins: as there.

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
    for key, uncertainty in uncertainties(Sample(rows, clusters, values, drawn, level)).items():
        metrics[key].update(uncertainty)  # type: ignore[typeddict-item]
    return _nested(metrics), drawn


def rows_of(predictions: pd.DataFrame, over: Sequence[str] | None = None, bins: int = ECE_BINS) -> Rows:
    """Prepare a table for :func:`cxrnet.evaluation.sums.sums_of`; raises as :func:`evaluate`."""
    codes = label_codes(predictions)
    return make_rows(
        classes_of(predictions), codes, predicted_codes(predictions), probabilities_of(predictions), over, bins
    )


def flat(evaluation: Evaluation) -> Iterator[tuple[str, Key, Metric]]:
    """Yield every metric with its name (``accuracy``, ..., ``sensitivity_<class>``), and its class and name apart."""
    for name in OVERALL:
        yield name, ("", name), evaluation[name]
    for label, metrics in evaluation["per_class"].items():
        for metric in PER_CLASS:
            name = f"{metric}_{label}"
            # A class may be called "macro".
            yield f"{name} (class)" if name in evaluation else name, (label, metric), metrics[metric]


def _of_table(rows: Rows) -> Estimates:
    """Compute the metrics of the table as it is."""
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
