"""Operating points by what they shall do: a policy in config becomes a threshold, chosen on validation images.

    operating_points:
      COVID: {specificity: 0.99}   the most sensitive threshold with a specificity of 0.99 or more
      COVID: {sensitivity: 0.95}   the most specific threshold with a sensitivity of 0.95 or more
      COVID: {youden: true}        the largest sensitivity + specificity (Youden 1950); of equals, the most sensitive
      COVID: 0.7                   this threshold
      COVID: specificity >= 0.99   a rule in words, the same as {specificity: 0.99}

A rule is met to the letter on the validation images or refused, never replaced. A threshold lies halfway between two
neighbouring probabilities. With several classes the rules are met in their order, as
:func:`cxrnet.evaluation.operating_points.decide` predicts: an image that is predicted as the first class is not
predicted as the second.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.operating_points import check_operating_points
from cxrnet.evaluation.predictions import classes_of, probabilities_of, validation_codes

FloatArray = npt.NDArray[np.float64]
KEY = "operating_points"
WORDED = re.compile(r"\s*(sensitivity|specificity)\s*>=\s*([0-9.eE+-]+)\s*")


@dataclass(frozen=True)
class Rule:
    """The demand on a threshold.

    Attributes:
        metric: ``sensitivity``, ``specificity`` or ``youden``.
        least: what it shall reach, in (0, 1]; None for ``youden``, which shall be as large as it can.
    """

    metric: str
    least: float | None

    def __str__(self) -> str:
        return "the largest sensitivity + specificity" if self.least is None else f"{self.metric} >= {self.least:g}"


def check_policy(policy: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Rule | float]:
    """Check a policy, which needs no predictions: do it before anything is trained.

    Args:
        policy: rule or threshold by class, as above; may be empty.
        classes: the names of the K classes.

    Returns:
        The same in the same order, read.

    Raises:
        CxrnetError: it is no mapping, a class is unknown, a rule or a threshold is none, or every class has one.
    """
    if not isinstance(policy, Mapping):
        raise CxrnetError(f"{KEY}: {policy} is no mapping; give thresholds by class, as {{covid: 0.7}}")
    read = {name: _rule(name, given) if isinstance(given, Mapping | str) else given for name, given in policy.items()}
    # Any threshold can stand for a rule here: what is left to check are names and plain thresholds.
    check_operating_points({name: 1.0 if isinstance(rule, Rule) else rule for name, rule in read.items()}, classes)
    return {name: rule if isinstance(rule, Rule) else float(rule) for name, rule in read.items()}


def _rule(name: str, given: Mapping[str, Any] | str) -> Rule:
    match list((_worded(given) if isinstance(given, str) else given).items()):
        case [("youden", True)]:
            return Rule("youden", None)
        case [("sensitivity" | "specificity" as metric, int() | float() as least)] if (
            least is not True and 0 < least <= 1
        ):
            return Rule(metric, float(least))
    said = f"'{given}'" if isinstance(given, str) else str(dict(given))
    raise CxrnetError(
        f"{KEY}.{name}: {said} is no rule; give one of {{specificity: 0.99}} or 'specificity >= 0.99', "
        "{sensitivity: 0.95} or 'sensitivity >= 0.95' (above 0, at most 1), {youden: true}, or a threshold"
    )


def _worded(given: str) -> dict[str, float]:
    """Read ``specificity >= 0.99`` as ``{specificity: 0.99}``; what is no rule as an empty mapping."""
    match = WORDED.fullmatch(given)
    try:
        return {match[1]: float(match[2])} if match else {}
    except ValueError:
        return {}


def choose_thresholds(validation: pd.DataFrame, policy: Mapping[str, Any]) -> dict[str, float]:
    """Turn a policy into thresholds.

    Args:
        validation: predictions of the split ``val``, labelled, at the temperature that will be used. Not looked
            at where the policy has thresholds only.
        policy: as for :func:`check_policy`.

    Returns:
        Threshold by class, in the order of the policy.

    Raises:
        CxrnetError: the policy is none, or these images can't meet it.
    """
    classes, probabilities = classes_of(validation), probabilities_of(validation)
    rules = check_policy(policy, classes)
    points: dict[str, float] = {}
    left = np.ones(len(validation), dtype=bool)  # not predicted for a class before
    for name, rule in rules.items():
        index = classes.index(name)
        # An image that is gone is predicted for this class at no threshold.
        score = np.where(left, probabilities[:, index], -1.0)
        if isinstance(rule, Rule):
            positive = validation_codes(validation, KEY) == index
            points[name] = _choose(name, rule, score, positive)
        else:
            points[name] = rule
        left &= score < points[name]
    return points


def _choose(name: str, rule: Rule, score: FloatArray, positive: npt.NDArray[np.bool_]) -> float:
    """Choose the threshold that meets one rule."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        which = "no" if not positives else "every"
        raise CxrnetError(
            f"{KEY}.{name}: {which} validation image is labelled {name}, so {rule} can't be chosen; give a threshold "
            "or more validation images"
        )
    thresholds = _candidates(score)
    hits = positives - np.searchsorted(np.sort(score[positive]), thresholds)
    passed = np.searchsorted(np.sort(score[~positive]), thresholds)
    shares = {"sensitivity": hits / positives, "specificity": passed / negatives}
    if rule.least is None:
        # The sum of both metrics times positives times negatives, in whole numbers: exact where two are equal.
        return float(thresholds[_best(hits * negatives + passed * positives, hits)])
    good = np.flatnonzero(shares[rule.metric] >= rule.least)
    if len(good) == 0:
        raise CxrnetError(
            f"{KEY}.{name}: {rule} is out of reach on the {len(score)} validation images, "
            f"{shares[rule.metric].max():.4g} is the most; demand less or give a threshold"
        )
    pair = (hits, passed) if rule.metric == "specificity" else (passed, hits)
    return float(thresholds[good][_best(pair[0][good], pair[1][good])])


def _best(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> int:
    """Place of the largest ``first``, and of the largest ``second`` among equals."""
    return int(np.lexsort((second, first))[-1])


def _candidates(score: FloatArray) -> FloatArray:
    """List the thresholds in (0, 1] that part the scores differently: halfway between neighbours, 0 and 1 included."""
    grid = np.unique([0.0, 1.0, *score[(score > 0) & (score < 1)]])
    low, high = grid[:-1], grid[1:]
    middle = (low + high) / 2
    # Between neighbouring floats the middle is one of them; reaching the upper one parts them, reaching the lower not.
    return np.asarray(np.where(middle > low, middle, high))
