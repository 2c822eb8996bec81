"""The intervals along a curve: of the net benefit over thresholds, and of the error over the share that is referred.

A point of such a curve is a share of some images, or made of two. Its interval is that of a sensitivity: from resamples
of the patients on log odds, and Wilson's where resamples say nothing (:mod:`cxrnet.evaluation.uncertainty`). It holds
for each point alone, not for the whole curve at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.evaluation.bootstrap import Units, bootstrap
from cxrnet.evaluation.intervals import Interval, on_log_odds, wilson
from cxrnet.evaluation.referral import place_of
from cxrnet.evaluation.uncertainty import LEAST_DEFINED, ROUNDING

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Share = tuple[BoolArray, BoolArray]
"""Of N images: those that count, ``(N, T)``, and those that they are a share of, the same or ``(N, 1)``."""

# Along a risk-coverage curve, which has a point an image: every hundredth of the images.
POINTS = 100


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        units: what is drawn.
        resamples: how many; 0 for no intervals.
        seed: of the draws.
        level: of the intervals.
    """

    units: Units
    resamples: int
    seed: int
    level: float


def decision_band(
    curve: pd.DataFrame, probability: FloatArray, positive: BoolArray, resampling: Resampling
) -> pd.DataFrame:
    """Add the interval of the model's net benefit at each threshold.

    It follows from those of sensitivity and specificity, which are of different images (Zou & Donner 2008,
    doi:10.1002/sim.3095). The prevalence is stated, not estimated, so acting on all has none.

    Args:
        curve: from :func:`cxrnet.evaluation.decision_curve.decision_curve`, of T thresholds.
        probability: as it was made of, (N,).
        positive: as it was made of, (N,).
        resampling: how the intervals are made.

    Returns:
        The curve with ``low`` and ``high``; NaN without resamples.
    """
    if not resampling.resamples:
        return curve.assign(low=np.nan, high=np.nan)
    prevalence, steps = float(curve["prevalence"].iloc[0]), curve["threshold"].to_numpy()
    called = probability[:, None] >= steps
    side = positive[:, None]
    hits, passes = _intervals([(called & side, side), (~called & ~side, ~side)], resampling)
    hit, passed = called[positive].mean(axis=0), (~called[~positive]).mean(axis=0)
    weight = (1 - prevalence) * steps / (1 - steps)
    reach = np.hypot(prevalence * (hits - hit[:, None]), weight[:, None] * (passes - passed[:, None]))
    reach[steps == 0] = 0  # from 0 on everybody is acted on, whatever the model says
    return curve.assign(low=curve["model"] - reach[:, 0], high=curve["model"] + reach[:, 1])


def risk_band(
    curve: pd.DataFrame, confidence: FloatArray, correct: BoolArray, resampling: Resampling, shares: Sequence[float]
) -> pd.DataFrame:
    """Add the interval of the error of the calls that are kept, at the certainty from which on they are.

    Args:
        curve: from :func:`cxrnet.evaluation.referral.risk_coverage`.
        confidence: as it was made of, (N,).
        correct: as it was made of, (N,).
        resampling: how the intervals are made.
        shares: of the images that are referred, in [0, 1), where there is to be one besides every hundredth.

    Returns:
        The curve with ``low`` and ``high``; NaN elsewhere, and without resamples.
    """
    curve = curve.assign(low=np.nan, high=np.nan)
    if not resampling.resamples:
        return curve
    every = [place_of(curve, share) for share in (*np.arange(POINTS) / POINTS, *shares)]
    places = sorted({place for place in every if place is not None})
    kept = confidence[:, None] >= curve["confidence"].to_numpy()[places]
    (ends,) = _intervals([(kept & ~correct[:, None], kept)], resampling)
    curve.loc[places, ["low", "high"]] = ends
    return curve


def _intervals(shares: Sequence[Share], resampling: Resampling) -> list[FloatArray]:
    """The interval of each share, ``(T, 2)``; all of the same resamples."""
    sums = [(part.astype(np.float64), whole.astype(np.float64)) for part, whole in shares]

    def drawn(weights: FloatArray) -> dict[int, FloatArray]:
        with np.errstate(invalid="ignore"):
            return {place: (weights @ part) / (weights @ whole) for place, (part, whole) in enumerate(sums)}

    resampled = bootstrap(resampling.units, drawn, resampling.resamples, resampling.seed)
    return [_of_share(*share, resampled[place], resampling) for place, share in enumerate(shares)]


def _of_share(part: BoolArray, whole: BoolArray, drawn: FloatArray, resampling: Resampling) -> FloatArray:
    """The interval at each of T points, of which there are R resamples, ``(R, T)``."""
    values = part.sum(axis=0) / whole.sum(axis=0)
    points = zip(values, drawn.T, np.broadcast_to(whole, part.shape).T, strict=True)
    return np.array([_interval(*point, resampling) for point in points])


def _interval(value: float, drawn: FloatArray, rows: BoolArray, resampling: Resampling) -> Interval:
    """Of one share of the rows ``(N,)``, which is in each resample ``drawn``, ``(R,)``."""
    units, level, defined = resampling.units, resampling.level, drawn[~np.isnan(drawn)]
    if units.count(rows) < 2 or len(defined) < LEAST_DEFINED * len(drawn) or np.ptp(defined) < ROUNDING:
        cases = units.cases(rows, value)
        return wilson(value * cases, cases, level)
    return on_log_odds(value, defined, units.effective(rows), level=level)
