"""Calibration: of the images predicted with a probability of 0.8, 8 of 10 should be right.

Temperature scaling divides the logits by one number (C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of
Modern Neural Networks", ICML 2017, section 4.2), fitted on logits without decision weights.

Dividing alone draws every probability to 1 / K, and so the mean of a frequent class below its share: from 0.80 to 0.70
at a temperature of 2.6 on the COVID-19 image data collection. So an offset of each class goes with it, for which the
mean probability of the class is its share in training: bias-corrected temperature scaling (A. Alexandari, A. Kundaje,
A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation", ICML
2020, arXiv:1901.06852).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import fitted_offset
from cxrnet.evaluation.predictions import classes_of, logits_of, validation_codes
from cxrnet.evaluation.settings import Kind

FloatArray = npt.NDArray[np.float64]
# A temperature beyond these says that the logits are no use, or that there was nothing to learn it from.
LOWEST, HIGHEST = 0.01, 100.0
# The images that are wrong determine the temperature. Fitted on few it may do more harm than good: of four runs on the
# COVID-19 Image Dataset, with 37 validation images and 2 of them wrong, it raised the log loss of the test images in 3.
FEWEST, FEWEST_WRONG = 20, 5
# The offset adds a number for each class and depends on the images of the rarest. Where none is needed (simulated: 4
# classes of 0.4 to 0.1, logits twice too large), it costs 0.018 nats of the log loss with 5 images of the rarest class
# and 0.008 with 10; the temperature gains 0.14 there.
FEWEST_OF_CLASS = 10


def top_label(
    probabilities: FloatArray, codes: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the largest probability of each image and whether its class is the label, (N,) both.

    As Guo et al. 2017 count, from probabilities (N, K) and codes (N,); operating points and weights play no part.
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
    if len(confidence) == 0:
        raise CxrnetError("calibration: no images; give at least one that is labelled")
    if not isinstance(bins, int) or bins < 1:
        raise CxrnetError(f"calibration.bins: {bins} is no number of bins; give a whole number from 1 on")
    if kind not in get_args(Kind):
        raise CxrnetError(f"calibration.kind: '{kind}' is unknown; give {' or '.join(get_args(Kind))}")
    shares = np.linspace(0, 1, bins + 1)
    edges = shares if kind == "equal_width" else np.quantile(confidence, shares)
    places = np.searchsorted(edges[1:-1], confidence, side="left")
    n = np.bincount(places, minlength=bins)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "confidence": 0.0, "accuracy": 0.0, "n": n})
    table["confidence"] = np.bincount(places, weights=confidence, minlength=bins)
    table["accuracy"] = np.bincount(places, weights=correct, minlength=bins)
    table = table[n > 0].reset_index(drop=True)
    table[["confidence", "accuracy"]] = table[["confidence", "accuracy"]].div(table["n"], axis=0)
    return table


def error_of_table(table: pd.DataFrame) -> float:
    """Compute the expected calibration error (Guo et al. 2017, eq. 5) from :func:`reliability_table`.

    Mean distance of confidence and accuracy over the bins, weighted by their images, in [0, 1]. It grows with the
    number of bins, so that only values of equal binning compare.
    """
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["n"]))


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: divide the logits by it; 1 leaves them as they are.
        n: the validation images it was fitted on.
        nll_before: their mean negative log-likelihood (log loss, nats) at temperature 1.
        nll_after: the same at ``value``.
        reason: why the value was left at 1; None where it was fitted.
        offset: subtracted from the logits before they are divided, (K,); empty where none was fitted.
        offset_reason: why there is none though the value was fitted; None where there is one, or none was asked for.
    """

    value: float
    n: int
    nll_before: float
    nll_after: float
    reason: str | None
    offset: tuple[float, ...] = ()
    offset_reason: str | None = None

    @property
    def useless(self) -> bool:
        """Tell whether the logits add nothing, on the validation images, to the shares of the classes."""
        return self.value == HIGHEST


def fit_temperature(validation: pd.DataFrame, prior: Mapping[str, float] | None = None) -> Temperature:
    """Fit the temperature that minimises the negative log-likelihood of validation images.

    With the offset that belongs to it, the likelihood is convex in 1/T too, so its slope has one root at most, and that
    is the minimum. Where the likelihood still grows at the highest temperature, the logits tell nothing that the shares
    of the classes don't, and the highest is taken: the probabilities are nearly the shares. Where there is no minimum
    otherwise, the offset is left out; where there is none then either, the temperature stays at 1 with the reason.

    Args:
        validation: predictions of the split ``val`` at temperature 1, labelled.
        prior: share of each class in training, which the images are weighted to; where a class has too few, or for
            ``None``, there is no offset.

    Raises:
        CxrnetError: rows are of another split, there are none, labels are missing, or logits are infinite.
    """
    codes, classes = validation_codes(validation, "temperature"), classes_of(validation)
    logits = logits_of(validation).astype(np.float64)
    if infinite := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise CxrnetError(
            f"temperature: the logits of {infinite} of {len(codes)} images are not finite; give those of the network, "
            "or write the log of probabilities above 0"
        )
    n, before, counts = len(codes), _nll(logits, codes, 1.0), np.bincount(codes, minlength=logits.shape[1])
    ways: list[tuple[FloatArray, Callable[[float], FloatArray]]] = [
        (np.full(n, 1 / n), lambda _: np.zeros(len(counts)))
    ]
    scarce, rarest = None, int(counts.argmin())
    if prior is not None and counts[rarest] < FEWEST_OF_CLASS:
        scarce = f"{counts[rarest]} validation images are of {classes[rarest]}, at least {FEWEST_OF_CLASS} are needed"
    elif prior is not None:
        shares = np.array([prior[name] for name in classes])
        of_mix = (shares / counts)[codes]
        ways.insert(0, (of_mix, lambda inverse: fitted_offset(logits * inverse, shares, 0 * shares, of_mix)))
    if n < FEWEST:
        return Temperature(1.0, n, before, before, f"{n} validation images are too few, at least {FEWEST} are needed")
    if (wrong := int((logits.argmax(axis=1) != codes).sum())) < FEWEST_WRONG:
        reason = f"only {wrong} of {n} validation images are wrong, at least {FEWEST_WRONG} are needed to fit it"
        return Temperature(1.0, n, before, before, reason)
    for place, (weights, offset) in enumerate(ways, 1):
        slope = partial(_slope, logits=logits, codes=codes, weights=weights, offset=offset)
        useless = slope(1 / HIGHEST) >= 0
        if slope(1 / LOWEST) <= 0:
            bound = LOWEST
        elif useless and place == len(ways):
            bound = HIGHEST
        else:
            inverse = 1 / HIGHEST if useless else brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-12)
            shift = offset(inverse) / inverse
            after = _nll(logits - shift, codes, inverse)
            value = HIGHEST if useless else float(1 / inverse)
            return Temperature(value, n, before, after, None, tuple(shift.tolist()) if shift.any() else (), scarce)
    reason = f"the likelihood of the validation images still grows at a temperature of {bound:g}"
    return Temperature(1.0, n, before, before, reason)


def _slope(
    inverse: float,
    logits: FloatArray,
    codes: npt.NDArray[np.intp],
    weights: FloatArray,
    offset: Callable[[float], FloatArray],
) -> float:
    """Derivative of the likelihood by 1/T: the expected logit less that of the label, at the best offset."""
    expected = np.sum(softmax(logits * inverse - offset(inverse), axis=1) * logits, axis=1)
    return float(weights @ (expected - logits[np.arange(len(codes)), codes]))


def left_alone(validation: pd.DataFrame, reason: str) -> Temperature:
    """Return the temperature of 1, which nothing is fitted for, with the log loss of validation images at it.

    Raises:
        CxrnetError: rows are of another split, there are none, or labels are missing.
    """
    codes = validation_codes(validation, "temperature")
    loss = _nll(logits_of(validation).astype(np.float64), codes, 1.0)
    return Temperature(1.0, len(codes), loss, loss, reason)


def before_temperature(
    logits: npt.NDArray[np.float32], temperature: float, offset: Sequence[float], shift: FloatArray | float = 0.0
) -> npt.NDArray[np.float32]:
    """Return the logits that a temperature was fitted on, from those that it and its offset gave, (N, K).

    A ``shift`` that was added last, for another prior (:meth:`cxrnet.evaluation.decision.Mix.shift`), is kept.
    """
    subtracted = np.array(offset) if len(offset) else 0.0
    return np.asarray((logits - shift) * temperature + subtracted + shift, dtype=np.float32)


def _nll(logits: FloatArray, codes: npt.NDArray[np.intp], inverse: float) -> float:
    scaled = logits * inverse
    return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(codes)), codes]))
