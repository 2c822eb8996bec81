"""Decision curves: whether acting on a model does more good than acting on all patients, or on none.

A. J. Vickers, E. B. Elkin, "Decision Curve Analysis: A Novel Method for Evaluating Prediction Models", Medical Decision
Making 26(6), 2006. The threshold is the probability of disease from which on a patient would be treated: at 0.1 one hit
is worth nine false alarms.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metric_intervals import BoolArray, Resampling, intervals

FloatArray = npt.NDArray[np.float64]


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
    hits, passes = intervals([(called & side, side), (~called & ~side, ~side)], resampling)
    hit, passed = called[positive].mean(axis=0), (~called[~positive]).mean(axis=0)
    weight = (1 - prevalence) * steps / (1 - steps)
    reach = np.hypot(prevalence * (hits - hit[:, None]), weight[:, None] * (passes - passed[:, None]))
    reach[steps == 0] = 0  # from 0 on everybody is acted on, whatever the model says
    return curve.assign(low=curve["model"] - reach[:, 0], high=curve["model"] + reach[:, 1])


def net_benefit(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: npt.ArrayLike, threshold: npt.ArrayLike
) -> FloatArray:
    """True positives less false positives at their weight, a patient (Vickers and Elkin 2006, p. 567).

    Args:
        sensitivity: in [0, 1], number or array; arrays broadcast.
        specificity: in [0, 1].
        prevalence: in [0, 1].
        threshold: probability from which on is treated, in [0, 1); the weight is its odds.

    Returns:
        At most the prevalence; 0 is what treating nobody does.
    """
    hit, pass_, share, from_ = (np.asarray(x, np.float64) for x in (sensitivity, specificity, prevalence, threshold))
    return np.asarray(hit * share - (1 - pass_) * (1 - share) * from_ / (1 - from_))


def decision_curve(
    probability: FloatArray,
    positive: npt.NDArray[np.bool_],
    thresholds: npt.ArrayLike,
    prevalence: float | None = None,
) -> pd.DataFrame:
    """Compute the net benefit of the model, of treating all and of treating none, over thresholds.

    Args:
        probability: of the class, (N,) in [0, 1], calibrated at the prevalence (:func:`at_prevalence`).
        positive: whether it is the label, (N,); some of both.
        thresholds: (T,) in [0, 1).
        prevalence: in (0, 1), at which the benefit is stated; None takes that of the images, which is seldom that of a
            ward.

    Returns:
        ``threshold``, ``model``, ``treat_all``, ``treat_none`` and the ``prevalence``: one row a threshold.

    Raises:
        CxrnetError: a threshold or the prevalence is out of range, or all images are of one side.
    """
    steps = np.asarray(thresholds, dtype=np.float64)
    if not ((steps >= 0) & (steps < 1)).all():
        raise CxrnetError("decision_curve.thresholds: give probabilities from 0 on, below 1")
    if prevalence is not None and not 0 < prevalence < 1:
        raise CxrnetError(f"decision_curve.prevalence: {prevalence} is no prevalence; give a number between 0 and 1")
    if positive.all() or not positive.any():
        which = "no" if not positive.any() else "every"
        raise CxrnetError(f"decision_curve: {which} image is of the class; a decision needs some of both")
    share = float(positive.mean()) if prevalence is None else prevalence
    sensitivity = 1 - np.searchsorted(np.sort(probability[positive]), steps) / positive.sum()
    specificity = np.searchsorted(np.sort(probability[~positive]), steps) / (~positive).sum()
    return pd.DataFrame(
        {
            "threshold": steps,
            "model": net_benefit(sensitivity, specificity, share, steps),
            "treat_all": net_benefit(1.0, 0.0, share, steps),
            "treat_none": 0.0,
            "prevalence": share,
        }
    )


def at_prevalence(probability: FloatArray, before: float, after: float) -> FloatArray:
    """Carry probabilities over to another prevalence (Saerens et al. 2002, eq. 2.4): the odds change as the prior's do.

    Args:
        probability: of the class, in [0, 1], calibrated at the prevalence ``before``.
        before: in (0, 1).
        after: in (0, 1).

    >>> float(at_prevalence(np.array(0.5), before=0.5, after=0.05).round(3))
    0.05
    """
    of_class, of_others = probability * after / before, (1 - probability) * (1 - after) / (1 - before)
    return np.asarray(of_class / (of_class + of_others))
