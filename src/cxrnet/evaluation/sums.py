"""Sums over the rows of a table, under many weightings of the rows at once.

A resample of a bootstrap is a weighting: how often each row was drawn. The table itself is the weighting with ones, so
that a metric and its resamples come from the same lines. One matrix product gives the sums for all weightings; every
metric of :mod:`cxrnet.evaluation.catalogue` is a function of them and of the areas under the curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.evaluation.calibration import reliability_table, top_label
from cxrnet.evaluation.predictions import classes_of, label_codes, predicted_codes, probabilities_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

# Guo et al. 2017 (arXiv:1706.04599), section 5.
ECE_BINS = 15

Images = Literal["all", "positives", "negatives", "predicted", "not predicted", "positives or predicted"]
"""The images that a metric is computed on; of a class against the rest all but ``all``."""


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
    """Compute ROC-AUC and average precision under weights ``(R, N)``, ``(R,)`` each in 0..1.

    The ROC-AUC is the share of pairs in which the positive scores higher, ties counting half (Hanley & McNeil 1982,
    doi:10.1148/radiology.143.1.7063747); the average precision is the mean over positives of the precision at
    their score, without interpolation. NaN under weights that leave no positive or no negative.
    """
    drawn = weights[:, ranking.positives]
    positives, negatives = _cumulative(drawn), _cumulative(weights[:, ranking.negatives])
    all_positives, all_negatives = positives[:, -1], negatives[:, -1]
    below = negatives[:, ranking.below]
    beaten = np.einsum("rp,rp->r", drawn, below + negatives[:, ranking.up_to]) / 2
    true = all_positives[:, None] - positives[:, ranking.weaker]
    predicted = true + all_negatives[:, None] - below
    precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
    with np.errstate(invalid="ignore"):
        roc_auc = beaten / (all_positives * all_negatives)
        average_precision = np.einsum("rp,rp->r", drawn, precision) / all_positives
    return roc_auc, np.where(np.isnan(roc_auc), np.nan, average_precision)


def _cumulative(weights: FloatArray) -> FloatArray:
    """Sum the first 0, 1, ..., N weights, ``(R, N + 1)``."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


@dataclass(frozen=True)
class Rows:
    """N rows of a table with K classes, prepared for :func:`sums_of`.

    Attributes:
        classes: their names, in order.
        codes: the label of each row, a place in ``classes``, ``(N,)``.
        predicted: the predicted class, the same way.
        probabilities: ``(N, K)``.
        terms: the summands, ``(N, F)``.
        ends: where the kinds of terms end: log loss, cosine, squared errors of each class, errors of the confidence in
            each bin, and cells of the confusion matrix.
        rankings: by class.
        over: places of the classes that the means over classes are over.
    """

    classes: Sequence[str]
    codes: IntArray
    predicted: IntArray
    probabilities: FloatArray
    terms: FloatArray
    ends: Sequence[int]
    rankings: Sequence[Ranking]
    over: Sequence[int]

    def behind(self, label: str, images: Images) -> BoolArray:
        """Mark the rows ``(N,)`` that a metric of a class is computed on; ``label`` is empty for all classes."""
        if not label or images == "all":
            return np.ones(len(self.codes), bool)
        index = self.classes.index(label)
        positive: BoolArray = self.codes == index
        predicted: BoolArray = self.predicted == index
        return {
            "positives": positive,
            "negatives": ~positive,
            "predicted": predicted,
            "not predicted": ~predicted,
            "positives or predicted": positive | predicted,
        }[images]


def rows_of(predictions: pd.DataFrame, over: Sequence[str] | None = None, bins: int = ECE_BINS) -> Rows:
    """Prepare a table of predictions.

    Args:
        predictions: every label known.
        over: classes that means over classes are over; ``None`` for all.
        bins: bins of equal width, of the ECE.

    Raises:
        CxrnetError: there are no rows, or labels are missing.
    """
    codes, predicted = label_codes(predictions), predicted_codes(predictions)
    classes, probabilities = classes_of(predictions), probabilities_of(predictions)
    k, n = len(classes), len(codes)
    of_label = probabilities[np.arange(n), codes]
    smallest = np.finfo(np.float64).eps  # a p of 0 counts as the smallest step from 1, as scikit-learn has it
    losses = -np.log(np.clip(of_label / probabilities.sum(axis=1), smallest, 1 - smallest))
    cosine = of_label / np.linalg.norm(probabilities, axis=1)
    squares = (probabilities - np.eye(k)[codes]) ** 2
    # Correct minus confidence of each row, in the column of its bin.
    confidence, correct = top_label(probabilities, codes)
    highs = reliability_table(confidence, correct, bins, "equal_width")["high"].to_numpy()
    gaps = np.eye(len(highs))[np.searchsorted(highs[:-1], confidence)] * (correct - confidence)[:, None]
    cells = np.eye(k * k)[codes * k + predicted]
    kinds = [losses[:, None], cosine[:, None], squares, gaps, cells]
    return Rows(
        classes=classes,
        codes=codes,
        predicted=predicted,
        probabilities=probabilities,
        terms=np.concatenate(kinds, axis=1),
        ends=np.cumsum([kind.shape[1] for kind in kinds])[:-1].tolist(),
        rankings=[rank(codes == index, probabilities[:, index]) for index in range(k)],
        over=[place for place, name in enumerate(classes) if over is None or name in over],
    )


@dataclass(frozen=True)
class Sums:
    """The sums that metrics are functions of, under R weightings of rows of K classes.

    Attributes:
        total: images, ``(R,)``.
        confusion: images by label and predicted class, ``(R, K, K)``.
        log_loss: sum over the images, ``(R,)``.
        cosine: sum over the images of the cosine between the probabilities and the one-hot label, ``(R,)``.
        squares: sum of the squared errors of the probability of each class, ``(R, K)``.
        gaps: correct minus confidence in each bin of the confidence, as a share of all images, ``(R, bins)``.
        gaps_of_table: the same of the table as it is, ``(bins,)``.
        roc_auc: area under the ROC curve of each class, ``(R, K)``.
        pr_auc: average precision of each class, ``(R, K)``.
        over: places of the classes that means are over.
    """

    total: FloatArray
    confusion: FloatArray
    log_loss: FloatArray
    cosine: FloatArray
    squares: FloatArray
    gaps: FloatArray
    gaps_of_table: FloatArray
    roc_auc: FloatArray
    pr_auc: FloatArray
    over: Sequence[int]

    @cached_property
    def tp(self) -> FloatArray:
        """True positives of each class against the rest, ``(R, K)``."""
        return np.diagonal(self.confusion, axis1=1, axis2=2)

    @cached_property
    def fn(self) -> FloatArray:
        """False negatives, ``(R, K)``."""
        return np.asarray(self.confusion.sum(axis=2) - self.tp)

    @cached_property
    def fp(self) -> FloatArray:
        """False positives, ``(R, K)``."""
        return np.asarray(self.confusion.sum(axis=1) - self.tp)

    @cached_property
    def tn(self) -> FloatArray:
        """True negatives, ``(R, K)``."""
        return np.asarray(self.confusion.sum(axis=(1, 2))[:, None] - self.tp - self.fn - self.fp)

    @cached_property
    def both_sides(self) -> FloatArray:
        """1 where a class has positives and negatives, else NaN, ``(R, K)``."""
        return np.where((self.tp + self.fn > 0) & (self.tn + self.fp > 0), 1.0, np.nan)


def sums_of(rows: Rows, weights: FloatArray) -> Sums:
    """Sum over the N rows under every weighting: how often each row counts, whole numbers, ``(R, N)``."""
    total, k = weights.sum(axis=1), len(rows.classes)
    log_loss, cosine, squares, gaps, cells = np.split(weights @ rows.terms, rows.ends, axis=1)
    auc = np.stack([np.stack(areas(ranking, weights)) for ranking in rows.rankings], axis=2)
    return Sums(
        total=total,
        confusion=cells.reshape(-1, k, k),
        log_loss=log_loss[:, 0],
        cosine=cosine[:, 0],
        squares=squares,
        gaps=gaps / total[:, None],
        gaps_of_table=np.split(rows.terms.mean(axis=0), rows.ends)[-2],
        roc_auc=auc[0],
        pr_auc=auc[1],
        over=rows.over,
    )
