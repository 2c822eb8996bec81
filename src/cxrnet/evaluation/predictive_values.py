"""Triage: what a call is worth where the class is as frequent as in practice, not as in the test set.

Sensitivity and specificity are carried over to a stated prevalence (Bayes' rule; Altman and Bland 1994, "Diagnostic
tests 2: predictive values"). Test sets of chest radiographs hold far more disease than any ward.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.evaluation.metrics import Metric, gap, measured

FloatArray = npt.NDArray[np.float64]


def predictive_values(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Compute PPV and NPV at a prevalence.

    Args:
        sensitivity: in [0, 1], number or array.
        specificity: in [0, 1], of a shape that broadcasts with it.
        prevalence: in (0, 1), as well.

    Returns:
        PPV and NPV in [0, 1], of the broadcast shape; NaN where no image, or every image, would be called.

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
    """Return the prevalence at which a positive call is as often right as wrong (PPV 0.5); below, it is mostly wrong.

    Args:
        sensitivity: in [0, 1].
        specificity: in [0, 1], not 1 together with a sensitivity of 0.
    """
    return (1 - specificity) / (sensitivity + 1 - specificity)


def rule_out_prevalence(sensitivity: float, specificity: float, missed: float) -> float:
    """Return the prevalence at which a negative call is wrong in a tolerated share of cases (NPV 1 - missed).

    Above it more are wrong.

    Args:
        sensitivity: in [0, 1].
        specificity: in [0, 1], not 0 together with a sensitivity of 1.
        missed: the share, in (0, 1).
    """
    return missed * specificity / (missed * specificity + (1 - missed) * (1 - sensitivity))


def predictive_table(sensitivity: Metric, specificity: Metric, prevalences: Sequence[float]) -> pd.DataFrame:
    """Put the predictive values at several prevalences into a table.

    Args:
        sensitivity: of the class.
        specificity: of the class. Where both have an interval, the predictive values get one.
        prevalences: in (0, 1).

    Returns:
        One row a prevalence: ``prevalence``, ``ppv`` and ``npv`` (each a :class:`Metric`).

    Raises:
        CxrnetError: a prevalence is none.
    """
    rows = []
    for prevalence in prevalences:
        if isinstance(prevalence, bool) or not isinstance(prevalence, int | float) or not 0 < prevalence < 1:
            raise CxrnetError(f"prevalences: {prevalence} is no prevalence; give a number between 0 and 1")
        ppv = _predictive_value(sensitivity, specificity, prevalence, "no image is called")
        npv = _predictive_value(specificity, sensitivity, 1 - prevalence, "every image is called")
        rows.append({"prevalence": float(prevalence), "ppv": ppv, "npv": npv})
    return pd.DataFrame(rows, columns=["prevalence", "ppv", "npv"])


def _predictive_value(own: Metric, other: Metric, prevalence: float, nothing: str) -> Metric:
    """The PPV; or the NPV, which is the PPV with the two sides exchanged."""
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
    """Interval of right / (right + wrong) from those of both, which are computed on different images.

    A share is inside when the interval of (1 - share) right - share wrong holds 0 (Donner and Zou 2012,
    doi:10.1177/0962280210383082). It has a width where a specificity of 1 leaves a bootstrap none.

    Args:
        right: value, lower and upper end, (3,).
        wrong: the same way.
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


def triage_text(name: str, sensitivity: Metric, specificity: Metric, table: pd.DataFrame, missed: float) -> list[str]:
    """Say in plain sentences what a positive and a negative call are worth.

    Args:
        name: the class.
        sensitivity: of the class.
        specificity: of the class.
        table: from :func:`predictive_table`.
        missed: share of the negative calls that may be wrong, for the class to be ruled out by one.

    Returns:
        Sentences, in order.
    """
    hit, pass_ = sensitivity["value"], specificity["value"]
    if hit is None or pass_ is None:
        reason = sensitivity.get("reason") or specificity["reason"]
        return [f"What a call of {name} is worth can't be said: {reason}."]
    positives, negatives = sensitivity["n"], specificity["n"]
    first = (
        f"{round(hit * positives)} of {positives} images of {name} were called {name}, and "
        f"{round((1 - pass_) * negatives)} of {negatives} others (sensitivity {hit:.3f}, specificity {pass_:.3f})."
    )
    if hit <= 1 - pass_ + 1e-12:
        return [first, f"That is no more often with {name} than without it: a call says nothing, at any prevalence."]
    calls = []
    for row in table.itertuples():
        positive = _positive(row.ppv["value"], row.ppv.get("interval"))
        negative = _negative(name, row.prevalence, row.npv["value"], row.npv.get("interval"))
        calls.append(f"At a prevalence of {percent(row.prevalence)} {positive}; {negative}.")
    limit = _limit(name, hit, specificity) if pass_ == 1 else _break_even(hit, pass_)
    ruled_out = _unmissed(name, sensitivity, pass_, missed) if hit == 1 else _rule_out(name, hit, pass_, missed)
    return [first, *calls, limit, ruled_out]


def _positive(ppv: float, interval: Sequence[float] | None) -> str:
    base = _base(ppv)
    doubt = ", so it is more often wrong than right" if ppv < 0.5 else ""
    return f"a positive call is right in {cases(ppv, base)} cases{_interval(interval, base)}{doubt}"


def _negative(name: str, prevalence: float, npv: float, interval: Sequence[float] | None) -> str:
    base = max(_base(1 - npv), _base(prevalence))
    missed = [1 - bound for bound in reversed(interval)] if interval else None
    after, before = cases(1 - npv, base), cases(prevalence, base)
    return f"after a negative call {after} are {name}{_interval(missed, base)}, before it {before}"


def _break_even(sensitivity: float, specificity: float) -> str:
    limit = percent(break_even_prevalence(sensitivity, specificity))
    return f"Below a prevalence of {limit} a positive call is wrong more often than right."


def _limit(name: str, hit: float, specificity: Metric) -> str:
    """What no false alarm among a few images leaves open."""
    low = _lower_end(specificity)
    limit = percent(break_even_prevalence(hit, low))
    return (
        f"None of {specificity['n']} images without {name} was called {name}, which a specificity of {low:.3f} would "
        "also explain (95 % interval); then a positive call is wrong more often than right below a prevalence of "
        f"{limit}."
    )


def _rule_out(name: str, hit: float, pass_: float, missed: float) -> str:
    limit = percent(rule_out_prevalence(hit, pass_, missed))
    return (
        f"With this sensitivity and specificity more than {percent(missed)} of the negative calls are {name} above a "
        f"prevalence of {limit}: where no more may be missed (evaluation.missed), a negative call rules {name} out "
        "only below it."
    )


def _unmissed(name: str, sensitivity: Metric, pass_: float, missed: float) -> str:
    """What no missed case among a few images leaves open."""
    low = _lower_end(sensitivity)
    limit = percent(rule_out_prevalence(low, pass_, missed))
    return (
        f"None of {sensitivity['n']} images of {name} was missed, which a sensitivity of {low:.3f} would also explain "
        f"(95 % interval); then more than {percent(missed)} of the negative calls are {name} above a prevalence of "
        f"{limit}: where no more may be missed (evaluation.missed), a negative call rules {name} out only below it."
    )


def _lower_end(metric: Metric) -> float:
    """Of a proportion of 1: its own lower end, or that of as many independent images."""
    return metric["interval"][0] if "interval" in metric else wilson(metric["n"], metric["n"])[0]


def cases(share: float, base: int) -> str:
    """Say a share as cases: ``62 of 100``; what isn't none or all is not rounded to it."""
    count = round(share * base)
    if count == 0 < share:
        return f"fewer than 1 of {base}"
    if count == base and share < 1:
        return f"more than {base - 1} of {base}"
    return f"{count} of {base}"


def _base(share: float) -> int:
    """Of how many cases to say a share, so that two digits of it count on either side."""
    if share in (0, 1):
        return 100
    return next((base for base in (100, 1000) if 9.5 <= share * base <= base - 9.5), 10_000)


def _interval(bounds: Sequence[float] | None, base: int) -> str:
    return f" (95 % interval {bounds[0] * base:.0f} to {bounds[1] * base:.0f})" if bounds else ""


def percent(share: float) -> str:
    """Say a share in percent, two digits that count: ``0.5 %``."""
    return f"{100 * share:.2g} %"
