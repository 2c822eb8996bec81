"""Areas under the ROC and the precision-recall curve, under many weightings of the rows at once.

Both areas depend on the scores through their order only. So the rows are sorted once, and each weighting costs a
cumulative sum. Rows of equal score are passed together, as scikit-learn does.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
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
