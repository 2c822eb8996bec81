"""Selective prediction: the least certain predictions are deferred to a reader, which lowers the error of the others.

Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import Resampling, wilson
from cxrnet.evaluation.metrics import Evaluation, Metric, measured
from cxrnet.evaluation.predictions import CERTAINTY, DEFERRED, label_codes, predicted_codes, probabilities_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_POINTS = 100  # with an interval along a risk-coverage curve, which has a point an image
_SLACK = 1e-6  # for a share that misses a whole number of images by rounding


@dataclass(frozen=True)
class Deferral:
    """The deferred share, and the metrics on the other predictions.

    Attributes:
        deferred: share of the images, with Wilson's interval.
        kept: the metrics on the other images; ``None`` where there are none.
    """

    deferred: Metric
    kept: Evaluation | None


def choose_deferral_threshold(validation: pd.DataFrame, share: float) -> float:
    """Choose the certainty below which a prediction is deferred to a reader, on predictions of the split ``val``.

    Halfway between two neighbouring certainties; no more than the share of these images lies below it, fewer where
    images of equal certainty stand at the border.

    Raises:
        CxrnetError: no image lies below it.
    """
    levels, sizes = np.unique(certainty(validation)[0], return_counts=True)
    deferred = np.flatnonzero(sizes.cumsum() <= share * len(validation) + _SLACK)
    if len(deferred) == 0:
        raise CxrnetError(
            f"defer: {share:g} of the {len(validation)} validation images is none ({sizes[0]} are the least certain); "
            "give a larger share or null"
        )
    return float(levels[deferred[-1] : deferred[-1] + 2].mean())


def deferral_of(predictions: pd.DataFrame, evaluate: Callable[[pd.DataFrame], Evaluation]) -> Deferral | None:
    """Evaluate the predictions that are not deferred to a reader; ``None`` where the table doesn't say which are."""
    if DEFERRED not in predictions:
        return None
    deferred = predictions[DEFERRED].to_numpy(bool)
    share = measured(float(deferred.mean()), len(deferred))
    share |= {"interval": list(wilson(int(deferred.sum()), len(deferred))), "method": "wilson"}
    return Deferral(share, evaluate(predictions[~deferred]) if not deferred.all() else None)


def certainty(predictions: pd.DataFrame) -> tuple[FloatArray, BoolArray]:
    """Return how certain each prediction is, (N,), and whether it is right, (N,).

    Where decision weights decide, the table says how certain
    (:meth:`cxrnet.evaluation.decision.DecisionRule.certainty`). Otherwise it is the probability of the predicted class,
    which need not be the most probable one where thresholds decide.
    """
    codes, predicted = label_codes(predictions), predicted_codes(predictions)
    certain = probabilities_of(predictions)[np.arange(len(predicted)), predicted]
    if CERTAINTY in predictions:  # empty in the rows of a fold whose weights are all alike
        certain = predictions[CERTAINTY].fillna(pd.Series(certain, predictions.index)).to_numpy(np.float64)
    return certain, predicted == codes


def risk_coverage(confidence: FloatArray, correct: BoolArray) -> pd.DataFrame:
    """Compute the error of the predictions that are kept, over the share that is deferred.

    Returns:
        One row a distinct confidence, the highest first: ``confidence`` (predictions below it are deferred), ``n``
        (kept), ``coverage`` (share kept), ``deferred`` (the rest), ``error`` (share of the kept that is wrong). Images
        of equal confidence are kept or deferred together.

    Raises:
        CxrnetError: there are no images.
    """
    if len(confidence) == 0:
        raise CxrnetError("deferral: no images; give at least one that is labelled")
    levels, sizes, wrong = _levels(confidence, correct)
    kept = sizes.cumsum()
    table = pd.DataFrame({"confidence": levels, "n": kept, "coverage": kept / len(confidence)})
    return table.assign(deferred=1 - table["coverage"], error=wrong.cumsum() / kept)


def _levels(
    confidence: FloatArray, correct: BoolArray
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """List the distinct confidences, the highest first, with the images and the errors at each."""
    levels, places = np.unique(confidence, return_inverse=True)
    sizes = np.bincount(places, minlength=len(levels))
    wrong = np.bincount(places[~correct], minlength=len(levels))
    return levels[::-1], sizes[::-1], wrong[::-1]


def area_under_risk_coverage(confidence: FloatArray, correct: BoolArray) -> float:
    """Compute the mean error over keeping the 1, 2, ..., N most certain images (AURC); the lower the better.

    Images of equal confidence come in random order: the expectation over it is taken. Where confidence says nothing,
    the area is the error of all images. Arguments as for :func:`risk_coverage`.
    """
    _, sizes, wrong = _levels(confidence, correct)
    errors = np.repeat(wrong / sizes, sizes).cumsum()
    return float(np.mean(errors / np.arange(1, len(confidence) + 1)))


def place_of(curve: pd.DataFrame, share: float) -> int | None:
    """Find the row of a :func:`risk_coverage` curve at which a share in [0, 1) is deferred, or as few more as can be.

    Returns:
        The last row that keeps ``1 - share`` of the images or fewer; ``None`` where too many are of equal certainty.
    """
    fitting = np.flatnonzero(curve["n"] <= curve["n"].iloc[-1] * (1 - share) + _SLACK)
    return int(fitting[-1]) if len(fitting) else None


def risk_with_band(
    curve: pd.DataFrame, confidence: FloatArray, correct: BoolArray, resampling: Resampling, shares: Sequence[float]
) -> pd.DataFrame:
    """Add the interval of the error of the predictions that are kept, at the certainty from which on they are.

    Args:
        curve: from :func:`risk_coverage` of the next two.
        confidence: confidence of each prediction, (N,).
        correct: whether it is right, (N,).
        resampling: how the intervals are made; without resamples ``low`` and ``high`` are NaN.
        shares: deferred shares of the predictions, in [0, 1), where there is to be one besides every hundredth.
    """
    curve = curve.assign(low=np.nan, high=np.nan)
    if not resampling.resamples:
        return curve
    every = [place_of(curve, share) for share in (*np.arange(_POINTS) / _POINTS, *shares)]
    places = sorted({place for place in every if place is not None})
    kept = confidence[:, None] >= curve["confidence"].to_numpy()[places]
    (ends,) = resampling.intervals([(kept & ~correct[:, None], kept)])
    curve.loc[places, ["low", "high"]] = ends
    return curve
