"""Every figure of a table, under many weightings of its rows at once.

A resample of a bootstrap is a weighting: how often each row was drawn. The table itself is the weighting with ones, so
that a figure and its resamples come from the same lines. Most figures are functions of sums over the rows, which one
matrix product gives for all weightings; the areas under curves are in :mod:`cxrnet.evaluation.point_estimates`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxrnet.evaluation.calibration import reliability_table, top_label
from cxrnet.evaluation.settings import Kind

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Ranking:
    """The order of P positives among M negatives.

    Attributes:
        positives: their rows by rising score, ``(P,)``.
        negatives: their rows by rising score, ``(M,)``.
        below: negatives that score less than each positive, ``(P,)``.
        up_to: negatives that score less or the same, ``(P,)``.
        weaker: positives that score less, ``(P,)``.
    """

    positives: IntArray
    negatives: IntArray
    below: IntArray
    up_to: IntArray
    weaker: IntArray


def rank(positive: BoolArray, score: FloatArray) -> Ranking:
    """Sort the rows of one class against the rest: which are positive, ``(N,)``, by their score, ``(N,)``."""
    order = np.argsort(score, kind="stable")
    positives, negatives = order[positive[order]], order[~positive[order]]
    of_positives, of_negatives = score[positives], score[negatives]
    return Ranking(
        positives=positives,
        negatives=negatives,
        below=np.searchsorted(of_negatives, of_positives, side="left"),
        up_to=np.searchsorted(of_negatives, of_positives, side="right"),
        weaker=np.searchsorted(of_positives, of_positives, side="left"),
    )


def areas(ranking: Ranking, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Compute ROC-AUC and average precision.

    The ROC-AUC is the share of pairs in which the positive scores higher, ties counting half (Hanley & McNeil 1982,
    doi:10.1148/radiology.143.1.7063747); the average precision is the mean over positives of the precision at
    their score, without interpolation.

    Args:
        ranking: of the rows.
        weights: how often each row counts, whole numbers, ``(R, N)``.

    Returns:
        Each ``(R,)`` in 0..1; NaN under weights that leave no positive or no negative.
    """
    drawn = weights[:, ranking.positives]
    positives, negatives = _cumulative(drawn), _cumulative(weights[:, ranking.negatives])
    all_positives, all_negatives = positives[:, -1], negatives[:, -1]
    below = negatives[:, ranking.below]
    beaten = np.einsum("rp,rp->r", drawn, below + negatives[:, ranking.up_to]) / 2
    true = all_positives[:, None] - positives[:, ranking.weaker]
    called = true + all_negatives[:, None] - below
    precision = np.divide(true, called, out=np.zeros_like(true), where=called > 0)
    with np.errstate(invalid="ignore"):
        roc_auc = beaten / (all_positives * all_negatives)
        average_precision = np.einsum("rp,rp->r", drawn, precision) / all_positives
    return roc_auc, np.where(np.isnan(roc_auc), np.nan, average_precision)


def _cumulative(weights: FloatArray) -> FloatArray:
    """Sums of the first 0, 1, ..., N weights, ``(R, N + 1)``."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


Key = tuple[str, str]
"""A class and a figure of it; the class of what holds for all classes is empty."""
Figures = dict[Key, FloatArray]

# Guo et al. 2017 (arXiv:1706.04599), section 5.
ECE_BINS = 15
# Means over the classes of a figure of each.
MEANS = {
    "balanced_accuracy": "sensitivity",
    "macro_f1": "f1",
    "roc_auc_macro": "roc_auc",
    "roc_auc_weighted": "roc_auc",
    "pr_auc_macro": "pr_auc",
}


@dataclass(frozen=True)
class Rows:
    """What the figures need of N rows and K classes.

    Attributes:
        classes: their names, in order.
        codes: the label of each row, a place in ``classes``, ``(N,)``.
        called: the predicted class, the same way.
        probabilities: ``(N, K)``.
        terms: what is summed, ``(N, F)``.
        ends: where the kinds of terms end: cells of the confusion matrix, log loss, cosine, squared errors of each
            class, and errors of the confidence in each bin of equal width and of equal mass.
        rankings: by class.
        over: places of the classes that the means over classes are over.
    """

    classes: Sequence[str]
    codes: IntArray
    called: IntArray
    probabilities: FloatArray
    terms: FloatArray
    ends: Sequence[int]
    rankings: Sequence[Ranking]
    over: Sequence[int]


def make_rows(
    classes: Sequence[str],
    codes: IntArray,
    called: IntArray,
    probabilities: FloatArray,
    over: Sequence[str] | None = None,
    bins: int = ECE_BINS,
) -> Rows:
    """Prepare a table: names of the classes, label and predicted class ``(N,)``, probabilities ``(N, K)``.

    Means over classes are over those named in ``over``; ``None`` for all. An ECE has ``bins`` bins.
    """
    k, n = len(classes), len(codes)
    cells = _one_hot(codes * k + called, k * k)
    of_label = probabilities[np.arange(n), codes]
    cosine = of_label / np.linalg.norm(probabilities, axis=1)
    squares = (probabilities - _one_hot(codes, k)) ** 2
    width, mass = (_confidence_errors(probabilities, codes, bins, kind) for kind in ("equal_width", "equal_mass"))
    kinds = [cells, _log_loss(of_label / probabilities.sum(axis=1))[:, None], cosine[:, None], squares, width, mass]
    return Rows(
        classes=classes,
        codes=codes,
        called=called,
        probabilities=probabilities,
        terms=np.concatenate(kinds, axis=1),
        ends=np.cumsum([kind.shape[1] for kind in kinds])[:-1].tolist(),
        rankings=[rank(codes == index, probabilities[:, index]) for index in range(k)],
        over=[place for place, name in enumerate(classes) if over is None or name in over],
    )


def rows_behind(rows: Rows, key: Key) -> BoolArray:
    """Which rows ``(N,)`` a figure is computed on: for a sensitivity the positives, for a precision those called."""
    label, figure = key
    everything = np.ones(len(rows.codes), bool)
    if not label:
        return everything
    index = rows.classes.index(label)
    positive: BoolArray = rows.codes == index
    called: BoolArray = rows.called == index
    some = {"sensitivity": positive, "specificity": ~positive, "precision": called, "npv": ~called}
    return {**some, "f1": positive | called}.get(figure, everything)


def weighted_figures(rows: Rows, weights: FloatArray) -> Figures:
    """Compute every figure under every weighting.

    Args:
        rows: N of them.
        weights: how often each row counts, whole numbers, ``(R, N)``.

    Returns:
        ``(R,)`` by class and name; NaN where the figure isn't defined: a class has no image or all of them, or, for
        precision and NPV, is called never or always. ``ece_moved`` and ``ece_equal_mass_moved`` are no figures of their
        own, but what :func:`cxrnet.evaluation.confidence_intervals.of_gaps` needs of an ECE.
    """
    total = weights.sum(axis=1)
    cells, log_loss, cosine, squares, width, mass = np.split(weights @ rows.terms, rows.ends, axis=1)
    k = len(rows.classes)
    counts = cells.reshape(-1, k, k)
    whole = np.split(rows.terms.mean(axis=0), rows.ends)
    auc = np.stack([np.stack(areas(ranking, weights)) for ranking in rows.rankings], axis=2)
    per_class = _of_counts(counts) | {"roc_auc": auc[0], "pr_auc": auc[1], "brier": squares / total[:, None]}
    support = counts.sum(axis=2)[:, rows.over]
    overall = {
        "accuracy": np.trace(counts, axis1=1, axis2=2) / total,
        "log_loss": log_loss[:, 0] / total,
        "cosine_similarity": cosine[:, 0] / total,
        **{name: per_class[figure][:, rows.over].mean(axis=1) for name, figure in MEANS.items()},
        "roc_auc_weighted": (auc[0][:, rows.over] * support).sum(axis=1) / support.sum(axis=1),  # not plain
        "brier": squares.sum(axis=1) / total,
        **_calibration_errors("ece", width / total[:, None], whole[-2]),
        **_calibration_errors("ece_equal_mass", mass / total[:, None], whole[-1]),
    }
    figures: Figures = {("", name): values for name, values in overall.items()}
    for index, label in enumerate(rows.classes):
        figures |= {(label, name): values[:, index] for name, values in per_class.items()}
    return figures


def _of_counts(counts: FloatArray) -> dict[str, FloatArray]:
    """Figures of each class against the rest, ``(R, K)``, from confusion matrices ``(R, K, K)``."""
    tp = np.diagonal(counts, axis1=1, axis2=2)
    fn, fp = counts.sum(axis=2) - tp, counts.sum(axis=1) - tp
    tn = counts.sum(axis=(1, 2))[:, None] - tp - fn - fp
    # What weighs positives against negatives needs both.
    both = np.where((tp + fn > 0) & (tn + fp > 0), 1.0, np.nan)
    with np.errstate(invalid="ignore"):
        return {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "precision": both * tp / (tp + fp),
            "npv": both * tn / (tn + fn),
            "f1": both * 2 * tp / (2 * tp + fp + fn),
        }


def _calibration_errors(name: str, gaps: FloatArray, whole: FloatArray) -> dict[str, FloatArray]:
    """ECE from the gaps of each bin ``(R, bins)``, and their distance from those of the whole table ``(bins,)``."""
    return {name: np.abs(gaps).sum(axis=1), f"{name}_moved": np.abs(gaps - whole).sum(axis=1)}


def _log_loss(p: FloatArray) -> FloatArray:
    """-log p, where a p of 0 counts as the smallest step from 1, as scikit-learn has it: at most 36."""
    smallest = np.finfo(np.float64).eps
    return np.asarray(-np.log(np.clip(p, smallest, 1 - smallest)))


def _confidence_errors(probabilities: FloatArray, codes: IntArray, bins: int, kind: Kind) -> FloatArray:
    """Correct minus confidence of each row in the column of its bin, ``(N, bins)``; the bins are those of all rows."""
    confidence, correct = top_label(probabilities, codes)
    highs = reliability_table(confidence, correct, bins, kind)["high"].to_numpy()
    places = np.searchsorted(highs[:-1], confidence)
    return _one_hot(places, len(highs)) * (correct - confidence)[:, None]


def _one_hot(places: IntArray, width: int) -> FloatArray:
    return np.asarray(np.eye(width)[places])
