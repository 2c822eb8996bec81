"""Sentences for people about predictive values, thresholds, temperature, deferral and class weights."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.evaluation.metrics import Metric
from cxrnet.evaluation.operating_points import decide
from cxrnet.evaluation.over_runs import Moments
from cxrnet.evaluation.predictions import classes_of, label_codes, probabilities_of
from cxrnet.evaluation.prevalence import break_even_prevalence, rule_out_prevalence
from cxrnet.evaluation.prior import Mix, decision_text, listed
from cxrnet.evaluation.selective_prediction import place_of
from cxrnet.evaluation.threshold_selection import Rule, check_policy
from cxrnet.reporting.wording import level_text, percent

USELESS = "on the validation images the network tells no more than the shares of the classes do"


def offset_text(temperature: Temperature, classes: Sequence[str]) -> str:
    """Say the offset of each class in a few words, or why there is none; empty where there is nothing to say."""
    if temperature.offset:
        return f"the logits less an offset of {listed(dict(zip(classes, temperature.offset, strict=True)))}"
    return f"no offset of the classes: {temperature.offset_reason}" if temperature.offset_reason else ""


def weighing_sentences(cause: str, mix: Mix, weights: Mapping[str, float] | None, points: Collection[str]) -> list[str]:
    """Say what class weights, a balanced sampler or costs did; nothing where there were none.

    Args:
        cause: what weighed the classes in training, as ``class weights balanced``; empty where nothing did.
        mix: that the probabilities are of.
        weights: of the decision; ``None`` where the classes weigh the same.
        points: classes with a threshold.
    """
    if not cause:
        return []
    if weights is None:
        return [
            f"The training was to weigh the classes ({cause}), but all weigh the same, so the decision has no weights. "
            f"The probabilities are {mix}."
        ]
    several = len(weights) - len(points) > 1
    return [
        f"The training weighed the classes ({cause}). The weights state what mistakes cost, not how frequent the "
        f"classes are: the probabilities are {mix}.",
        f"Predicted is {decision_text(weights, points)}"
        f"{', which need not be the most probable one' if several else ''}.",
    ]


def threshold_sentences(validation: pd.DataFrame, policy: Mapping[str, Any], points: Mapping[str, float]) -> list[str]:
    """Say what each chosen threshold does on the images that it was chosen on.

    Args:
        validation: as for :func:`choose_thresholds`.
        policy: as there; classes with a plain threshold are left out.
        points: what it returned.
    """
    classes = classes_of(validation)
    rules = {name: rule for name, rule in check_policy(policy, classes).items() if isinstance(rule, Rule)}
    labels, predicted = label_codes(validation), decide(probabilities_of(validation), classes, points)
    sentences = []
    for name, rule in rules.items():
        index = classes.index(name)
        positive, hit = labels == index, predicted == index
        hits, passed = int((positive & hit).sum()), int((~positive & ~hit).sum())
        sentences.append(
            f"{name} is predicted from a probability of {points[name]:.4g} on, chosen for {rule}: on the validation "
            f"images its sensitivity is {hits / positive.sum():.3f} ({hits} of {positive.sum()}) and its specificity "
            f"{passed / (~positive).sum():.3f} ({passed} of {(~positive).sum()})."
        )
        if hits == 0 or passed == 0:
            useless = f"no image of {name} is found" if hits == 0 else f"every other image is predicted as {name} too"
            sentences.append(f"The threshold meets the rule but is useless: {useless}.")
    return sentences


def deferral_text(curve: pd.DataFrame, shares: Sequence[float], level: float) -> list[str]:
    """Say what deferring a share of the predictions does to the error of the others.

    Args:
        curve: from :func:`risk_coverage`, with intervals,
            :func:`cxrnet.evaluation.selective_prediction.risk_with_band`.
        shares: of the predictions that are deferred, in (0, 1).
        level: of the intervals.

    Raises:
        CxrnetError: a share is none.
    """
    last = curve.iloc[-1]
    sentences = []
    for share in shares:
        if not 0 < share < 1:
            raise CxrnetError(f"deferral.shares: {share} is no share of the images; give a number between 0 and 1")
        text = f"With the least certain {100 * share:g} % of the predictions deferred to a reader, "
        place = place_of(curve, share)
        if place is None:
            sentences.append(f"{text}no other prediction is left: too many are of equal certainty.")
            continue
        kept = _wrong(curve.iloc[place], level)
        sentences.append(f"{text}{kept} of the others are wrong; without deferral {_wrong(last, level)} of all.")
    return sentences


def _wrong(row: pd.Series, level: float) -> str:
    """Say an error with its images and its CI: ``0.0 % (0 of 46, 95 % CI 0.0 to 7.7 %)``."""
    predictions = f"{round(row['error'] * row['n'])} of {row['n']:.0f}"
    bounds = f", {level_text(level)} CI {100 * row['low']:.1f} to {100 * row['high']:.1f} %"
    return f"{100 * row['error']:.1f} % ({predictions}{'' if pd.isna(row['low']) else bounds})"


def triage_text(
    name: str, sensitivity: Metric, specificity: Metric, table: pd.DataFrame, missed: float, level: float
) -> list[str]:
    """Say in plain sentences what the predictive values are.

    Args:
        name: the class.
        sensitivity: of the class.
        specificity: of the class.
        table: from :func:`predictive_table`.
        missed: share of the negative predictions that may be wrong, for the class to be ruled out by one.
        level: of the intervals.

    Returns:
        Sentences, in order.
    """
    hit, pass_ = sensitivity["value"], specificity["value"]
    if hit is None or pass_ is None:
        reason = sensitivity.get("reason") or specificity["reason"]
        return [f"The predictive values of {name} can't be computed: {reason}."]
    positives, negatives = sensitivity["n"], specificity["n"]
    first = (
        f"{round(hit * positives)} of {positives} images of {name} were predicted as {name}, and "
        f"{round((1 - pass_) * negatives)} of {negatives} others (sensitivity {hit:.3f}, specificity {pass_:.3f})."
    )
    if hit <= 1 - pass_ + 1e-12:
        return [
            first,
            f"Images of {name} are predicted as {name} no more often than the others: a prediction says nothing, at "
            "any prevalence.",
        ]
    predictions = []
    for row in table.itertuples():
        positive = _positive(row.ppv["value"], row.ppv.get("interval"), level)
        negative = _negative(name, row.prevalence, row.npv["value"], row.npv.get("interval"), level)
        predictions.append(f"At a prevalence of {percent(row.prevalence)} {positive}; {negative}.")
    limit = _limit(name, hit, specificity, level) if pass_ == 1 else _break_even(hit, pass_)
    ruled_out = _unmissed(name, sensitivity, pass_, missed, level) if hit == 1 else _rule_out(name, hit, pass_, missed)
    return [first, *predictions, limit, ruled_out]


def _positive(ppv: float, interval: Sequence[float] | None, level: float) -> str:
    base = _base(ppv)
    doubt = ", so it is more often wrong than right" if ppv < 0.5 else ""
    return f"a positive prediction is right in {cases(ppv, base)} cases{_interval(interval, base, level)}{doubt}"


def _negative(name: str, prevalence: float, npv: float, interval: Sequence[float] | None, level: float) -> str:
    base = max(_base(1 - npv), _base(prevalence))
    missed = [1 - bound for bound in reversed(interval)] if interval else None
    after, before = cases(1 - npv, base), cases(prevalence, base)
    return (
        f"after a negative prediction {after} are {name}{_interval(missed, base, level)}, without a prediction {before}"
    )


def _break_even(sensitivity: float, specificity: float) -> str:
    limit = percent(break_even_prevalence(sensitivity, specificity))
    return f"Below a prevalence of {limit} a positive prediction is wrong more often than right."


def _limit(name: str, hit: float, specificity: Metric, level: float) -> str:
    """Say what no false positive among a few images leaves open."""
    low = _lower_end(specificity, level)
    limit = percent(break_even_prevalence(hit, low))
    return (
        f"None of {specificity['n']} images without {name} was predicted as {name}, which a specificity of {low:.3f} "
        f"would also explain ({level_text(level)} CI); then a positive prediction is wrong more often than right below "
        f"a prevalence of {limit}."
    )


def _rule_out(name: str, hit: float, pass_: float, missed: float) -> str:
    limit = percent(rule_out_prevalence(hit, pass_, missed))
    return (
        f"With this sensitivity and specificity more than {percent(missed)} of the negative predictions are {name} "
        f"above a prevalence of {limit}: where no more may be missed (evaluation.missed), a negative prediction rules "
        f"{name} out only below it."
    )


def _unmissed(name: str, sensitivity: Metric, pass_: float, missed: float, level: float) -> str:
    """Say what no missed case among a few images leaves open."""
    low = _lower_end(sensitivity, level)
    limit = percent(rule_out_prevalence(low, pass_, missed))
    return (
        f"None of {sensitivity['n']} images of {name} was missed, which a sensitivity of {low:.3f} would also explain "
        f"({level_text(level)} CI); then more than {percent(missed)} of the negative predictions are {name} above a "
        f"prevalence of {limit}: where no more may be missed (evaluation.missed), a negative prediction rules "
        f"{name} out only below it."
    )


def _lower_end(metric: Metric, level: float) -> float:
    """Return the lower end of a proportion of 1: its own, or that of as many independent images."""
    return metric["interval"][0] if "interval" in metric else wilson(metric["n"], metric["n"], level)[0]


def cases(share: float, base: int) -> str:
    """Say a share as cases: ``62 of 100``; what isn't none or all is not rounded to it."""
    count = round(share * base)
    if count == 0 < share:
        return f"fewer than 1 of {base}"
    if count == base and share < 1:
        return f"more than {base - 1} of {base}"
    return f"{count} of {base}"


def _base(share: float) -> int:
    """Choose the number of cases to say a share of, so that two digits of it count on either side."""
    if share in (0, 1):
        return 100
    return next((base for base in (100, 1000) if 9.5 <= share * base <= base - 9.5), 10_000)


def _interval(bounds: Sequence[float] | None, base: int, level: float) -> str:
    return f" ({level_text(level)} CI {bounds[0] * base:.0f} to {bounds[1] * base:.0f})" if bounds else ""


def interval_meaning(moments: Mapping[str, Moments], level: float) -> str:
    """Say what the confidence interval of a mean over seeds means; empty where there is none."""
    seeds = {each.runs for each in moments.values() if each.interval is not None}
    if not seeds:
        return ""
    return (
        f"The {level_text(level)} confidence interval of a mean is over seeds (Student's t, n = {max(seeds)}): it says "
        "what other seeds would give on these data, and nothing of other patients."
    )
