"""What calibration, deferral and metrics mean, in sentences for people."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import FloatArray, error_by_chance, reliability_table
from cxrnet.evaluation.selective_prediction import place_of
from cxrnet.evaluation.settings import Kind


def calibration_text(confidence: FloatArray, correct: npt.NDArray[np.bool_], bins: int) -> list[str]:
    """Say what of an ECE is chance.

    Args:
        confidence: as for :func:`reliability_table`, as are the others.
        correct: as there.
        bins: as there.
    """
    width, mass = (error_by_chance(reliability_table(confidence, correct, bins, kind)) for kind in get_args(Kind))
    return [
        f"Probabilities that are exactly right would show an ECE too, by chance: on {len(confidence)} images as "
        f"certain as these about {width:.3f} in {bins} bins of equal width, and {mass:.3f} in {bins} bins of equally "
        "many images. An ECE counts against the network only as far as it is larger."
    ]


def referral_text(curve: pd.DataFrame, shares: Sequence[float], level: float) -> list[str]:
    """Say what referring a share of the images does to the error of the others.

    Args:
        curve: from :func:`risk_coverage`, with intervals, :func:`cxrnet.evaluation.selective_prediction.risk_band`.
        shares: of the images that a reader takes, in (0, 1).
        level: of the intervals.

    Raises:
        CxrnetError: a share is none.
    """
    last = curve.iloc[-1]
    sentences = []
    for share in shares:
        if not 0 < share < 1:
            raise CxrnetError(f"referral.shares: {share} is no share of the images; give a number between 0 and 1")
        text = f"Where a reader takes the {100 * share:g} % of images whose call is least certain, "
        place = place_of(curve, share)
        if place is None:
            sentences.append(f"{text}none is left: too many are of equal certainty.")
            continue
        kept = _wrong(curve.iloc[place], level)
        sentences.append(f"{text}{kept} of the other calls are wrong, {_wrong(last, level)} of all without.")
    return sentences


def _wrong(row: pd.Series, level: float) -> str:
    """Say an error with its calls and its interval: ``0.0 % (0 of 46, 95 % interval 0.0 to 7.7 %)``."""
    calls = f"{round(row['error'] * row['n'])} of {row['n']:.0f}"
    bounds = f", {100 * level:g} % interval {100 * row['low']:.1f} to {100 * row['high']:.1f} %"
    return f"{100 * row['error']:.1f} % ({calls}{'' if pd.isna(row['low']) else bounds})"
