"""Temperature scaling: one number by which the logits are divided, so that the probabilities can be believed.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2.
Decision weights play no part in it, for it is about probabilities: it is fitted on logits that are without them.

Dividing alone draws every probability to 1 / K, and so the mean of a frequent class below its share: from 0.80 to 0.70
at a temperature of 2.6 on the COVID-19 image data collection. So an offset of each class goes with it, for which the
mean probability of the class is its share in training: bias-corrected temperature scaling (A. Alexandari, A. Kundaje,
A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation", ICML
2020, arXiv:1901.06852).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import validation_codes
from cxrnet.evaluation.predictions import classes_of, logits_of
from cxrnet.evaluation.prior import fitted_offset, listed

FloatArray = npt.NDArray[np.float64]
Offset = Callable[[float], FloatArray]
"""From 1/T to what is subtracted from the logits after they are divided, (K,)."""
# A temperature beyond these says that the logits are no use, or that there was nothing to learn it from.
LOWEST, HIGHEST = 0.01, 100.0
# The temperature hangs on the images that are wrong. Fitted on fewer it may do more harm than good: of four runs on the
# COVID-19 Image Dataset, with 37 validation images and 2 of them wrong, it raised the log loss of the test images in 3.
FEWEST, FEWEST_WRONG = 20, 5
# The offset is a number more for each class and hangs on the images of the rarest. Where none is needed (simulated: 4
# classes of 0.4 to 0.1, logits twice too large), it costs 0.018 nats of the log loss with 5 images of the rarest class
# and 0.008 with 10; the temperature gains 0.14 there.
FEWEST_OF_CLASS = 10
USELESS = "on the validation images the network tells no more than the shares of the classes do"


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
        """Whether the logits tell nothing on the validation images that the shares of the classes don't."""
        return self.value == HIGHEST

    def offset_text(self, classes: Sequence[str]) -> str:
        """Say the offset of each class in a few words, or why there is none; empty where there is nothing to say."""
        if self.offset:
            return f"the logits less an offset of {listed(dict(zip(classes, self.offset, strict=True)))}"
        return f"no offset of the classes: {self.offset_reason}" if self.offset_reason else ""


def fit_temperature(validation: pd.DataFrame, prior: Mapping[str, float] | None = None) -> Temperature:
    """Fit the temperature that minimises the negative log-likelihood of validation images.

    With the offset that belongs to it, the likelihood is convex in 1/T too, so its slope has one root at most, and that
    is the minimum. Where the likelihood still grows at the highest temperature, the logits tell nothing that the shares
    of the classes don't, and the highest is taken: the probabilities are nearly the shares. Where there is no minimum
    otherwise, the offset is left out; where there is none then either, the temperature stays at 1 with the reason.

    Args:
        validation: predictions of the split ``val`` at temperature 1, labelled.
        prior: share of each class in training. The images count so that they are of this mix; where a class has too
            few, or for ``None``, there is no offset.

    Raises:
        CxrnetError: rows are of another split, there are none, labels are missing, or logits are infinite.
    """
    codes = validation_codes(validation, "temperature")
    logits = logits_of(validation).astype(np.float64)
    if infinite := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise CxrnetError(
            f"temperature: the logits of {infinite} of {len(codes)} images are not finite; give those of the network, "
            "or write the log of probabilities above 0"
        )
    before, counts = _nll(logits, codes, 1.0), np.bincount(codes, minlength=logits.shape[1])
    ways: list[tuple[FloatArray, Offset]] = [(np.full(len(codes), 1 / len(codes)), lambda _: np.zeros(len(counts)))]
    scarce = None if prior is None else _scarce(classes_of(validation), counts)
    if prior is not None and scarce is None:
        shares = np.array([prior[name] for name in classes_of(validation)])
        of_mix = (shares / counts)[codes]
        ways.insert(0, (of_mix, lambda inverse: fitted_offset(logits * inverse, shares, 0 * shares, of_mix)))
    if (reason := _too_few(logits, codes)) is not None:
        return Temperature(1.0, len(codes), before, before, reason)
    for place, (weights, offset) in enumerate(ways, 1):
        slope = partial(_slope, logits, codes, weights, offset)
        useless = slope(1 / HIGHEST) >= 0
        if (reason := _unbounded(slope, useless and place == len(ways))) is None:
            inverse = 1 / HIGHEST if useless else brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-12)
            shift = offset(inverse) / inverse
            after = _nll(logits - shift, codes, inverse)
            value = HIGHEST if useless else float(1 / inverse)
            moved = tuple(shift.tolist()) if shift.any() else ()
            return Temperature(value, len(codes), before, after, None, moved, scarce)
    return Temperature(1.0, len(codes), before, before, reason)


def before_temperature(
    logits: npt.NDArray[np.float32], temperature: float, offset: Sequence[float], shift: FloatArray | float = 0.0
) -> npt.NDArray[np.float32]:
    """The logits that a temperature was fitted on, of those that it and its offset gave, (N, K).

    Args:
        logits: (N, K), as predictions hold them.
        temperature: by which they were divided.
        offset: subtracted from them before that, (K,); empty where none was.
        shift: added to them after that, for another prior (:meth:`cxrnet.evaluation.prior.Mix.shift`), (K,). The result
            has it too.
    """
    subtracted = np.array(offset) if len(offset) else 0.0
    return np.asarray((logits - shift) * temperature + subtracted + shift, dtype=np.float32)


def _too_few(logits: FloatArray, codes: npt.NDArray[np.intp]) -> str | None:
    """Why there are too few images; wrong are those whose most probable class is, whatever is predicted."""
    if len(codes) < FEWEST:
        return f"{len(codes)} validation images are too few, {FEWEST} are the least"
    if (wrong := int((logits.argmax(axis=1) != codes).sum())) < FEWEST_WRONG:
        return f"{wrong} of {len(codes)} validation images are wrong, {FEWEST_WRONG} are the least to learn it from"
    return None


def _scarce(classes: Sequence[str], counts: npt.NDArray[np.intp]) -> str | None:
    """Why there are too few images of a class for an offset."""
    rarest = int(counts.argmin())
    if counts[rarest] >= FEWEST_OF_CLASS:
        return None
    return f"{counts[rarest]} validation images are of {classes[rarest]}, {FEWEST_OF_CLASS} of each class are the least"


def _unbounded(slope: Callable[[float], float], useless: bool) -> str | None:
    """Why the likelihood has no minimum between the bounds."""
    if slope(1 / LOWEST) <= 0:
        return f"the likelihood of the validation images still grows at a temperature of {LOWEST:g}"
    if useless:
        return f"the likelihood of the validation images still grows at a temperature of {HIGHEST:g}"
    return None


def _nll(logits: FloatArray, codes: npt.NDArray[np.intp], inverse: float) -> float:
    scaled = logits * inverse
    return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(codes)), codes]))


def _slope(
    logits: FloatArray,
    codes: npt.NDArray[np.intp],
    weights: FloatArray,
    offset: Offset,
    inverse: float,
) -> float:
    """Derivative of the likelihood above by 1/T: the expected logit less that of the label, weighted mean over images.

    That of the offset plays no part, for at each 1/T it is the best.
    """
    expected = np.sum(softmax(logits * inverse - offset(inverse), axis=1) * logits, axis=1)
    return float(weights @ (expected - logits[np.arange(len(codes)), codes]))
