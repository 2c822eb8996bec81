"""Operating points by what they shall do: a policy in config becomes a threshold, chosen on validation images.

    operating_points:
      COVID: {specificity: 0.99}   the most sensitive threshold with a specificity of 0.99 or more
      COVID: {sensitivity: 0.95}   the most specific threshold with a sensitivity of 0.95 or more
      COVID: {youden: true}        the largest sensitivity + specificity (Youden 1950); of equals, the most sensitive
      COVID: 0.7                   this threshold
      COVID: specificity >= 0.99   a rule in words, the same as {specificity: 0.99}

A rule is met to the letter on the validation images or refused, never replaced. With several classes the rules are met
in their order, as :func:`cxrnet.evaluation.decision.decide` predicts: an image that is predicted as the first class is
not predicted as the second.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import check_operating_points
from cxrnet.evaluation.predictions import classes_of, probabilities_of, validation_codes

_KEY = "operating_points"
_WORDED = re.compile(r"\s*(sensitivity|specificity)\s*>=\s*([0-9.eE+-]+)\s*")


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
    """Read a policy, rule or threshold by class, which needs no predictions: do it before anything is trained.

    Raises:
        CxrnetError: it is no mapping, a class is unknown, a rule or a threshold is none, or every class has one.
    """
    if not isinstance(policy, Mapping):
        raise CxrnetError(f"{_KEY}: {policy} is no mapping; give thresholds by class, as {{covid: 0.7}}")
    read = {name: _rule(name, given) if isinstance(given, Mapping | str) else given for name, given in policy.items()}
    # Any threshold can stand for a rule here: what is left to check are names and plain thresholds.
    check_operating_points({name: 1.0 if isinstance(rule, Rule) else rule for name, rule in read.items()}, classes)
    return {name: rule if isinstance(rule, Rule) else float(rule) for name, rule in read.items()}


def _rule(name: str, given: Mapping[str, Any] | str) -> Rule:
    demand: Mapping[str, Any] = {} if isinstance(given, str) else given
    if isinstance(given, str) and (match := _WORDED.fullmatch(given)):
        try:
            demand = {match[1]: float(match[2])}
        except ValueError:  # as of "e-e": no rule, said below
            demand = {}
    match list(demand.items()):
        case [("youden", True)]:
            return Rule("youden", None)
        case [("sensitivity" | "specificity" as metric, int() | float() as least)] if (
            least is not True and 0 < least <= 1
        ):
            return Rule(metric, float(least))
    said = f"'{given}'" if isinstance(given, str) else str(dict(given))
    raise CxrnetError(
        f"{_KEY}.{name}: {said} is no rule; give one of {{specificity: 0.99}} or 'specificity >= 0.99', "
        "{sensitivity: 0.95} or 'sensitivity >= 0.95' (above 0, at most 1), {youden: true}, or a threshold"
    )


def choose_thresholds(validation: pd.DataFrame, policy: Mapping[str, Any]) -> dict[str, float]:
    """Turn a policy into thresholds by class, in its order; each lies halfway between neighbouring probabilities.

    Args:
        validation: predictions of the split ``val``, labelled, at the temperature that will be used. Not looked
            at where the policy has thresholds only.
        policy: as for :func:`check_policy`.

    Raises:
        CxrnetError: the policy is none, or these images can't meet it.
    """
    classes, probabilities = classes_of(validation), probabilities_of(validation)
    points: dict[str, float] = {}
    left = np.ones(len(validation), dtype=bool)  # not predicted for a class before
    for name, rule in check_policy(policy, classes).items():
        # An image that is gone is predicted for this class at no threshold.
        score = np.where(left, probabilities[:, classes.index(name)], -1.0)
        if isinstance(rule, Rule):
            points[name] = _choose(name, rule, score, validation_codes(validation, _KEY) == classes.index(name))
        else:
            points[name] = rule
        left &= score < points[name]
    return points


def _choose(name: str, rule: Rule, score: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        which = "no" if not positives else "every"
        raise CxrnetError(
            f"{_KEY}.{name}: {which} validation image is labelled {name}, so {rule} can't be chosen; give a threshold "
            "or more validation images"
        )
    # The thresholds that part the scores differently: halfway between neighbours, 0 and 1 included. Between
    # neighbouring floats the middle is one of them; reaching the upper one parts them, reaching the lower not.
    grid = np.unique([0.0, 1.0, *score[(score > 0) & (score < 1)]])
    middle = (grid[:-1] + grid[1:]) / 2
    thresholds = np.where(middle > grid[:-1], middle, grid[1:])
    hits = positives - np.searchsorted(np.sort(score[positive]), thresholds)
    passed = np.searchsorted(np.sort(score[~positive]), thresholds)
    if rule.least is None:
        # The sum of both metrics times positives times negatives, in whole numbers: exact where two are equal.
        return float(thresholds[np.lexsort((hits, hits * negatives + passed * positives))[-1]])
    share = hits / positives if rule.metric == "sensitivity" else passed / negatives
    good = np.flatnonzero(share >= rule.least)
    if len(good) == 0:
        raise CxrnetError(
            f"{_KEY}.{name}: {rule} is out of reach on the {len(score)} validation images, "
            f"{share.max():.4g} is the most; demand less or give a threshold"
        )
    first, second = (hits, passed) if rule.metric == "specificity" else (passed, hits)
    return float(thresholds[good][np.lexsort((second[good], first[good]))[-1]])
