"""Temperature scaling: one number by which the logits are divided, so that the probabilities can be believed.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. It
changes no order of the classes of an image: where the most probable class is predicted, accuracy stays as it is.
Decision weights play no part in it, for it is about probabilities: it is fitted on logits that are without them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import logits_of
from cxrnet.evaluation.validation import validation_codes

# A temperature beyond these says that the logits are no use, or that there was nothing to learn it from.
LOWEST, HIGHEST = 0.01, 100.0
# The temperature hangs on the images that are wrong. Fitted on fewer it may do more harm than good: of four runs on the
# COVID-19 Image Dataset, with 37 validation images and 2 of them wrong, it raised the log loss of the test images in 3.
FEWEST, FEWEST_WRONG = 20, 5


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: divide the logits by it; 1 leaves them as they are.
        n: the validation images it was fitted on.
        nll_before: their mean negative log-likelihood (log loss, nats) at temperature 1.
        nll_after: the same at ``value``.
        reason: why the value was left at 1; None where it was fitted.
    """

    value: float
    n: int
    nll_before: float
    nll_after: float
    reason: str | None


def fit_temperature(validation: pd.DataFrame) -> Temperature:
    """Fit the temperature that minimises the negative log-likelihood of validation images.

    In 1/T the likelihood is convex, so its slope has one root at most, and that is the minimum. Where the slope has
    none between the bounds, no temperature is better than all others, and it stays at 1 with the reason.

    Args:
        validation: predictions of the split ``val`` at temperature 1, labelled.

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
    before = _nll(logits, codes, 1.0)
    reason = _unfit(logits, codes)
    if reason is not None:
        return Temperature(1.0, len(codes), before, before, reason)
    inverse = brentq(_slope, 1 / HIGHEST, 1 / LOWEST, args=(logits, codes), xtol=1e-12)
    return Temperature(float(1 / inverse), len(codes), before, _nll(logits, codes, inverse), None)


def _unfit(logits: npt.NDArray[np.float64], codes: npt.NDArray[np.intp]) -> str | None:
    """Why no temperature can be fitted; wrong are images whose most probable class is, whatever is predicted."""
    if len(codes) < FEWEST:
        return f"{len(codes)} validation images are too few, {FEWEST} are the least"
    if (wrong := int((logits.argmax(axis=1) != codes).sum())) < FEWEST_WRONG:
        return f"{wrong} of {len(codes)} validation images are wrong, {FEWEST_WRONG} are the least to learn it from"
    if _slope(1 / LOWEST, logits, codes) <= 0:
        return f"the likelihood of the validation images still grows at a temperature of {LOWEST:g}"
    if _slope(1 / HIGHEST, logits, codes) >= 0:
        return f"the likelihood of the validation images still grows at a temperature of {HIGHEST:g}"
    return None


def _nll(logits: npt.NDArray[np.float64], codes: npt.NDArray[np.intp], inverse: float) -> float:
    scaled = logits * inverse
    return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(codes)), codes]))


def _slope(inverse: float, logits: npt.NDArray[np.float64], codes: npt.NDArray[np.intp]) -> float:
    """Derivative of the likelihood above by 1/T: the expected logit less that of the label, mean over images."""
    expected = np.sum(softmax(logits * inverse, axis=1) * logits, axis=1)
    return float(np.mean(expected - logits[np.arange(len(codes)), codes]))
