"""Calibration: whether images called with a probability of 0.8 are right in 8 of 10 cases.

Functions of plain arrays: a confidence in [0, 1] for each image, and whether it came true.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import Kind

FloatArray = npt.NDArray[np.float64]


def top_label(
    probabilities: FloatArray, codes: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the largest probability of each image and whether its class is the label.

    Args:
        probabilities: (N, K) in [0, 1].
        codes: labels as places in the classes, (N,).

    Returns:
        Confidence (N,) and correct (N,), as Guo et al. 2017 count them; operating points and
        decision weights play no part, so the class need not be the predicted one.
    """
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == codes


def reliability_table(confidence: FloatArray, correct: npt.NDArray[np.bool_], bins: int, kind: Kind) -> pd.DataFrame:
    """Compare confidence with accuracy, bin by bin.

    Args:
        confidence: (N,) in [0, 1].
        correct: whether it came true, (N,).
        bins: how many.
        kind: ``equal_width`` divides [0, 1]; ``equal_mass`` divides the images. Equal confidences are never parted, so
            that the table doesn't depend on the order of the images.

    Returns:
        ``low``, ``high`` (edges, the lower one excluded), ``confidence`` and ``accuracy`` (means), ``n``; one row a bin
        that holds images, in order.

    Raises:
        CxrnetError: there are no images, no bins, or the kind is unknown.
    """
    edges = _edges(confidence, bins, kind)
    places = np.searchsorted(edges[1:-1], confidence, side="left")
    n = np.bincount(places, minlength=bins)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "confidence": 0.0, "accuracy": 0.0, "n": n})
    table["confidence"] = np.bincount(places, weights=confidence, minlength=bins)
    table["accuracy"] = np.bincount(places, weights=correct, minlength=bins)
    table = table[n > 0].reset_index(drop=True)
    table[["confidence", "accuracy"]] = table[["confidence", "accuracy"]].div(table["n"], axis=0)
    return table


def _edges(confidence: FloatArray, bins: int, kind: Kind) -> FloatArray:
    if len(confidence) == 0:
        raise CxrnetError("calibration: no images; give at least one that is labelled")
    if not isinstance(bins, int) or bins < 1:
        raise CxrnetError(f"calibration.bins: {bins} is no number of bins; give a whole number from 1 on")
    if kind not in get_args(Kind):
        raise CxrnetError(f"calibration.kind: '{kind}' is unknown; give {' or '.join(get_args(Kind))}")
    shares = np.linspace(0, 1, bins + 1)
    return shares if kind == "equal_width" else np.quantile(confidence, shares)


def error_of_table(table: pd.DataFrame) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 5) of a table from :func:`reliability_table`.

    Mean distance of confidence and accuracy over the bins, weighted by their images, in [0, 1]. It grows with the
    number of bins, so that only values of equal binning compare.
    """
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["n"]))


def error_by_chance(table: pd.DataFrame) -> float:
    """The ECE that as many images show, on average, where every confidence is exactly right.

    In a bin the calls that come true are then about binomial, and their mean distance from what is expected is de
    Moivre's (Diaconis and Zabell 1991, doi:10.1214/ss/1177011699). It is not small where bins hold few images: an ECE
    is biased upwards, and most where the calibration is perfect (Roelofs et al. 2022, arXiv:2012.08668).

    Args:
        table: from :func:`reliability_table`; its accuracy plays no part.
    """
    n, confidence = table["n"].to_numpy(), table["confidence"].to_numpy().clip(0, 1)
    above = np.floor(n * confidence) + 1
    distances = 2 * above * (1 - confidence) * binom.pmf(above, n, confidence)
    return float(distances.sum() / n.sum())


def brier_decomposition(
    probabilities: FloatArray, codes: npt.NDArray[np.intp], classes: Sequence[str], bins: int, kind: Kind
) -> pd.DataFrame:
    """Take the Brier score of each class against the rest apart (Murphy 1973, eq. 5).

    Args:
        probabilities: (N, K) in [0, 1].
        codes: labels as places in the classes, (N,).
        classes: the names of the K classes.
        bins: as for :func:`reliability_table`.
        kind: as there.

    Returns:
        One row a class and their sum, ``all``: ``class``, ``brier``, ``reliability`` (0 is best), ``resolution`` (the
        more the better), ``uncertainty`` (of the labels alone), ``within_bins``. Brier = reliability - resolution +
        uncertainty + within_bins; the last is what binning unequal probabilities leaves over (Stephenson et al. 2008).
    """
    one_hot = _one_hot(probabilities, codes)
    rows = [_murphy(probabilities[:, index], one_hot[:, index], bins, kind) for index in range(len(classes))]
    table = pd.DataFrame(rows)
    table = pd.concat([table, table.sum().to_frame().T], ignore_index=True)
    table.insert(0, "class", pd.array([*classes, "all"], dtype="string"))
    return table


def _murphy(probability: FloatArray, outcome: FloatArray, bins: int, kind: Kind) -> dict[str, float]:
    table = reliability_table(probability, outcome.astype(bool), bins, kind)
    base, weights = outcome.mean(), table["n"] / len(outcome)
    brier = np.mean((probability - outcome) ** 2)
    reliability = np.sum(weights * (table["confidence"] - table["accuracy"]) ** 2)
    resolution = np.sum(weights * (table["accuracy"] - base) ** 2)
    uncertainty = base * (1 - base)
    return {
        "brier": float(brier),
        "reliability": float(reliability),
        "resolution": float(resolution),
        "uncertainty": float(uncertainty),
        "within_bins": float(brier - (reliability - resolution + uncertainty)),
    }


def _one_hot(probabilities: FloatArray, codes: npt.NDArray[np.intp]) -> FloatArray:
    return np.asarray(np.eye(probabilities.shape[1])[codes])
