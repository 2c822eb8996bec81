"""Predictive values and net benefit where a class is as frequent as in practice, not as in the test set.

Sensitivity and specificity are carried over to a stated prevalence (Bayes' rule; Altman and Bland 1994, "Diagnostic
tests 2: predictive values"). Test sets of chest radiographs hold far more disease than any ward.

A decision curve asks whether acting on a model does more good than acting on all patients, or on none (A. J. Vickers,
E. B. Elkin, "Decision Curve Analysis: A Novel Method for Evaluating Prediction Models", Medical Decision Making 26(6),
2006). The threshold is the probability of disease from which on a patient would be treated: at 0.1 one true positive is
worth nine false positives.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import Resampling
from cxrnet.evaluation.metrics import Metric, gap, measured

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def predictive_values(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Compute PPV and NPV, in [0, 1], at a prevalence in (0, 1); numbers or arrays, which broadcast.

    NaN where no image, or every image, would be predicted positive.

    >>> ppv, npv = predictive_values(0.9, 0.9, 0.5)
    >>> round(float(ppv), 3), round(float(npv), 3)
    (0.9, 0.9)
    """
    hit, pass_, share = (np.asarray(x, dtype=np.float64) for x in (sensitivity, specificity, prevalence))
    true_positive, false_positive = hit * share, (1 - pass_) * (1 - share)
    true_negative, false_negative = pass_ * (1 - share), (1 - hit) * share
    with np.errstate(invalid="ignore"):
        ppv = true_positive / (true_positive + false_positive)
        npv = true_negative / (true_negative + false_negative)
    return np.asarray(ppv), np.asarray(npv)


def break_even_prevalence(sensitivity: float, specificity: float) -> float:
    """Return the prevalence below which a positive prediction is mostly wrong (PPV 0.5); not of 0 and 1."""
    return (1 - specificity) / (sensitivity + 1 - specificity)


def rule_out_prevalence(sensitivity: float, specificity: float, missed: float) -> float:
    """Return the prevalence above which more than the share ``missed`` of the negative predictions is wrong."""
    return missed * specificity / (missed * specificity + (1 - missed) * (1 - sensitivity))


def predictive_table(sensitivity: Metric, specificity: Metric, prevalences: Sequence[float]) -> pd.DataFrame:
    """Tabulate the predictive values of a class, with intervals where sensitivity and specificity have them.

    Returns:
        One row a prevalence: ``prevalence``, ``ppv`` and ``npv`` (each a :class:`Metric`).

    Raises:
        CxrnetError: a prevalence is not in (0, 1).
    """
    rows = []
    for prevalence in prevalences:
        if isinstance(prevalence, bool) or not isinstance(prevalence, int | float) or not 0 < prevalence < 1:
            raise CxrnetError(f"prevalences: {prevalence} is no prevalence; give a number between 0 and 1")
        ppv = _predictive_value(sensitivity, specificity, prevalence, "no image is predicted positive")
        npv = _predictive_value(specificity, sensitivity, 1 - prevalence, "every image is predicted positive")
        rows.append({"prevalence": float(prevalence), "ppv": ppv, "npv": npv})
    return pd.DataFrame(rows, columns=["prevalence", "ppv", "npv"])


def _predictive_value(own: Metric, other: Metric, prevalence: float, nothing: str) -> Metric:
    """Compute the PPV; or the NPV, which is the PPV with the two sides exchanged."""
    if own["value"] is None or other["value"] is None:
        return gap(own.get("reason") or other["reason"])
    value = float(predictive_values(own["value"], other["value"], prevalence)[0])
    if np.isnan(value):
        return gap(nothing)
    metric = measured(value, own["n"] + other["n"])
    if "interval" in own and "interval" in other:
        right = np.array([own["value"], *own["interval"]]) * prevalence
        wrong = (1 - np.array([other["value"], *reversed(other["interval"])])) * (1 - prevalence)
        metric |= {"interval": _interval_of_share(right, wrong), "method": "combined"}
    elif reason := own.get("interval_reason") or other.get("interval_reason"):
        metric["interval_reason"] = reason
    return metric


def _interval_of_share(right: FloatArray, wrong: FloatArray) -> list[float]:
    """Combine the intervals of right and wrong, of different images, to that of right / (right + wrong).

    A share is inside when the interval of (1 - share) right - share wrong holds 0 (Donner and Zou 2012,
    doi:10.1177/0962280210383082). It has a width where a specificity of 1 leaves a bootstrap none. Both have value,
    lower and upper end, (3,).
    """

    def excess(share: float, end: int) -> float:
        value = (1 - share) * right - share * wrong
        reach = np.hypot((1 - share) * (right[end] - right[0]), share * (wrong[3 - end] - wrong[0]))
        return float(value[0] - reach if end == 1 else value[0] + reach)

    # An end at which one side may vanish is 0 or 1, which rounding can hide from a search for a change of sign.
    return [
        0.0 if excess(0, end) <= 0 else 1.0 if excess(1, end) >= 0 else float(brentq(excess, 0, 1, args=(end,)))
        for end in (1, 2)
    ]


def net_benefit(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: npt.ArrayLike, threshold: npt.ArrayLike
) -> FloatArray:
    """Compute true positives less false positives at their weight, a patient (Vickers and Elkin 2006, p. 567).

    Numbers or arrays, which broadcast; the weight is the odds of the threshold, in [0, 1). The result is at most the
    prevalence; 0 is what treating nobody does.
    """
    hit, pass_, share, from_ = (np.asarray(x, np.float64) for x in (sensitivity, specificity, prevalence, threshold))
    return np.asarray(hit * share - (1 - pass_) * (1 - share) * from_ / (1 - from_))


def decision_curve(
    probability: FloatArray, positive: BoolArray, thresholds: npt.ArrayLike, prevalence: float | None = None
) -> pd.DataFrame:
    """Compute the net benefit of the model, of treating all and of treating none, over thresholds.

    Args:
        probability: probability of the class, (N,) in [0, 1], calibrated at the prevalence (:func:`at_prevalence`).
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


def decision_band(
    curve: pd.DataFrame, probability: FloatArray, positive: BoolArray, resampling: Resampling
) -> pd.DataFrame:
    """Add the interval of the model's net benefit at each threshold, ``low`` and ``high``; NaN without resamples.

    It follows from those of sensitivity and specificity, which are of different images (Zou & Donner 2008,
    doi:10.1002/sim.3095). The prevalence is stated, not estimated, so acting on all has none. The curve is that of
    :func:`decision_curve` of the same probabilities and labels.
    """
    if not resampling.resamples:
        return curve.assign(low=np.nan, high=np.nan)
    prevalence, steps = float(curve["prevalence"].iloc[0]), curve["threshold"].to_numpy()
    predicted = probability[:, None] >= steps
    side = positive[:, None]
    hits, passes = resampling.intervals([(predicted & side, side), (~predicted & ~side, ~side)])
    hit, passed = predicted[positive].mean(axis=0), (~predicted[~positive]).mean(axis=0)
    weight = (1 - prevalence) * steps / (1 - steps)
    reach = np.hypot(prevalence * (hits - hit[:, None]), weight[:, None] * (passes - passed[:, None]))
    reach[steps == 0] = 0  # from 0 on everybody is acted on, whatever the model says
    return curve.assign(low=curve["model"] - reach[:, 0], high=curve["model"] + reach[:, 1])


def at_prevalence(probability: FloatArray, before: float, after: float) -> FloatArray:
    """Carry probabilities from one prevalence in (0, 1) to another (Saerens et al. 2002, eq. 2.4), as the odds change.

    >>> float(at_prevalence(np.array(0.5), before=0.5, after=0.05).round(3))
    0.05
    """
    of_class, of_others = probability * after / before, (1 - probability) * (1 - after) / (1 - before)
    return np.asarray(of_class / (of_class + of_others))
