"""Names, formats and sentences of metrics, on every page and on the console."""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from cxrnet.cli.command_line import typed_words
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.catalogue import METRICS, Place
from cxrnet.evaluation.comparison import Moments
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.evaluation.decision import Mix, decide, decision_text, listed
from cxrnet.evaluation.metrics import Evaluation, Metric
from cxrnet.evaluation.predictions import classes_of, label_codes, probabilities_of
from cxrnet.evaluation.prevalence import break_even_prevalence, rule_out_prevalence
from cxrnet.evaluation.selective_prediction import place_of
from cxrnet.evaluation.threshold_selection import Rule, check_policy
from cxrnet.models.gate import ALARM, FEWEST, INVERTED, TURNED_AWAY, Gate
from cxrnet.training.schedule import PhaseResult


def titles(*places: Place) -> dict[str, str]:
    """Return name and title of the metrics that are shown in any of the places, with their direction where it helps."""
    specs = [spec for spec in METRICS if set(places) & set(spec.shown)]
    return {spec.name: spec.title if spec.higher_is_better else f"{spec.title} (lower is better)" for spec in specs}


HEADLINE = titles("result")
CALIBRATION = titles("calibration")
RESULT = titles("result", "calibration")  # of a table where no other one tells of the calibration
PER_CLASS = titles("classes")
BASELINES = {"thumbnail": "8 × 8 thumbnails", "majority": "Majority class"}
SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}
USELESS = "on the validation images the network does no better than the class prevalences alone"
_NARROW = 0.02  # narrower confidence intervals have three digits, wider ones two: the third says nothing


def number_text(metric: Metric) -> str:
    """Write the value of a metric: ``"0.955"``, or ``"n/a"``."""
    return "n/a" if metric["value"] is None else f"{metric['value']:.3f}"


def interval_text(metric: Metric) -> str:
    """Write the confidence interval of a metric: ``"0.88 to 0.99"``; empty where there is none."""
    if "interval" not in metric:
        return ""
    low, high = metric["interval"]
    digits = 3 if high - low < _NARROW else 2
    return f"{low:.{digits}f} to {high:.{digits}f}"


def metric_text(metric: Metric, between: str = " ") -> str:
    """Write a metric with its confidence interval: ``"0.955 (0.88 to 0.99)"``."""
    interval = interval_text(metric)
    return f"{number_text(metric)}{between}({interval})" if interval else number_text(metric)


def interval_method(metrics: Evaluation, level: float, cluster: str) -> str:
    """Say how the confidence intervals of a split are made; ``cluster``: what the bootstrap draws."""
    if "interval" not in metrics["accuracy"]:  # which has one wherever there are any
        return "No confidence intervals: none were asked for (evaluation.resamples)"
    clusters = "duplicate groups, as patients aren't known" if cluster == "duplicate group" else f"{cluster}s"
    return (
        f"{level_text(level)} confidence intervals (CI): bootstrap of {clusters}, within strata of labels. Where all "
        "resamples agree, Wilson's interval of a proportion, F1, PR-AUC, kappa or MCC, and Newcombe's of a ROC-AUC. A "
        "mean over classes then follows from the intervals of the classes, and PPV, NPV and net benefit always follow "
        "from sensitivity and specificity"
    )


def value_gaps(metrics: Iterable[tuple[str, Metric]]) -> list[str]:
    """Say which of the metrics, title and value each, can't be computed, and why; each reason once."""
    return _by_reason((title, metric["reason"]) for title, metric in metrics if "reason" in metric)


def interval_gaps(metrics: Iterable[tuple[str, Metric]]) -> list[str]:
    """Say which of the metrics, title and value each, have no interval, and why; each reason once."""
    return _by_reason((title, metric["interval_reason"]) for title, metric in metrics if "interval_reason" in metric)


def _by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    found: dict[str, dict[str, None]] = {}
    for title, reason in reasons:
        found.setdefault(reason, {})[title] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in found.items()]


def percent(share: float) -> str:
    """Say a share in percent, two digits that count: ``0.5 %``."""
    return f"{100 * share:.2g} %"


def level_text(level: float) -> str:
    """Say the level of confidence intervals in percent, all its digits: ``95 %``, ``97.5 %``."""
    return f"{100 * level:g} %"


def grouped(number: int) -> str:
    """Write a whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Write a time as a person says it: ``"48 s"``, ``"3 min 12 s"``, ``"2 h 05 min"``, no line break in a unit."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}\u00a0s"
    if whole < 3600:
        return f"{whole // 60}\u00a0min {whole % 60:02d}\u00a0s"
    return f"{whole // 3600}\u00a0h {whole % 3600 // 60:02d}\u00a0min"


def command_text(command: Sequence[str]) -> str:
    """Write a command as a person types it into a shell.

    The words that :func:`cxrnet.cli.command_line.typed_words` made of one, ``<key>=null +<key>={...}``, are one again.
    """
    words: list[str] = []
    for word in command:
        typed = word.removeprefix("+")
        *added, last = typed_words([typed])
        if added and last == word and words[-len(added) :] == added:
            words[-len(added) :] = [typed]
        else:
            words.append(word)
    return shlex.join(words)


def offset_text(temperature: Temperature, classes: Sequence[str]) -> str:
    """Say the offset of each class in a few words, or why there is none; empty where there is nothing to say."""
    if temperature.offset:
        offsets = dict(zip(classes, temperature.offset, strict=True))
        return f"class offsets subtracted from the logits: {listed(offsets)}"
    return f"no class offsets: {temperature.offset_reason}" if temperature.offset_reason else ""


def head_text(phase: PhaseResult) -> str:
    """Say how a head was fitted at once, or why it was trained by epochs; empty where nobody would ask."""
    if phase.by_epochs:
        return f"phase {phase.name}: trained by epochs, as {phase.by_epochs}"
    return f"phase {phase.name}: {phase.fitted}" if phase.fitted else ""


def weighing_sentences(cause: str, mix: Mix, weights: Mapping[str, float] | None, points: Collection[str]) -> list[str]:
    """Say what class weights, a balanced sampler or costs did; nothing where there were none.

    ``cause`` is what weighed the classes in training, as ``class weights balanced``, ``weights`` those of the decision
    (``None`` where all weigh the same), ``points`` the classes with a threshold.
    """
    if not cause:
        return []
    if weights is None:
        return [
            f"Class weights were asked for ({cause}), but all classes weigh the same: the decision has no weights. "
            f"The probabilities are {mix}."
        ]
    several = len(weights) - len(points) > 1
    return [
        f"Classes were weighted in training ({cause}). The weights state what mistakes cost, not how frequent the "
        f"classes are: the probabilities are {mix}.",
        f"Predicted is {decision_text(weights, points)}"
        f"{', which need not be the most probable one' if several else ''}.",
    ]


def threshold_sentences(validation: pd.DataFrame, policy: Mapping[str, Any], points: Mapping[str, float]) -> list[str]:
    """Say what each threshold that a rule chose does on the images that it was chosen on.

    Arguments and result are those of :func:`cxrnet.evaluation.threshold_selection.choose_thresholds`.
    """
    classes = classes_of(validation)
    labels, predicted = label_codes(validation), decide(probabilities_of(validation), classes, points)
    sentences = []
    for name, rule in check_policy(policy, classes).items():
        if not isinstance(rule, Rule):
            continue
        positive, hit = labels == classes.index(name), predicted == classes.index(name)
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
    """Say what deferring shares in (0, 1) of the predictions does to the error of the others.

    ``curve`` is from :func:`cxrnet.evaluation.selective_prediction.risk_with_band`.

    Raises:
        CxrnetError: a share is none.
    """

    def wrong(row: pd.Series) -> str:
        """Say an error with its images and its CI: ``0.0 % (0 of 46, 95 % CI 0.0 to 7.7 %)``."""
        predictions = f"{round(row['error'] * row['n'])} of {row['n']:.0f}"
        bounds = f", {level_text(level)} CI {100 * row['low']:.1f} to {100 * row['high']:.1f} %"
        return f"{100 * row['error']:.1f} % ({predictions}{'' if pd.isna(row['low']) else bounds})"

    sentences = []
    for share in shares:
        if not 0 < share < 1:
            raise CxrnetError(f"deferral.shares: {share} is no share of the images; give a number between 0 and 1")
        text = f"With the least certain {100 * share:g} % of the predictions deferred to a reader, "
        if (place := place_of(curve, share)) is None:
            sentences.append(f"{text}no other prediction is left: too many are of equal certainty.")
        else:
            kept = f"{wrong(curve.iloc[place])} of the others are wrong"
            sentences.append(f"{text}{kept}; without deferral {wrong(curve.iloc[-1])} of all.")
    return sentences


def triage_text(
    name: str, sensitivity: Metric, specificity: Metric, table: pd.DataFrame, missed: float, level: float
) -> list[str]:
    """Say in plain sentences what the predictive values of a class are.

    ``table`` is from :func:`cxrnet.evaluation.prevalence.predictive_table`; ``missed`` is the share of the negative
    predictions that may be wrong, for the class to be ruled out by one.
    """
    hit, pass_ = sensitivity["value"], specificity["value"]
    if hit is None or pass_ is None:
        reason = sensitivity.get("reason") or specificity["reason"]
        return [f"The predictive values of {name} can't be computed: {reason}."]
    positives, negatives = sensitivity["n"], specificity["n"]
    sentences = [
        f"{round(hit * positives)} of {positives} images of {name} were predicted as {name}, and "
        f"{round((1 - pass_) * negatives)} of {negatives} others (sensitivity {hit:.3f}, specificity {pass_:.3f})."
    ]
    if hit <= 1 - pass_ + 1e-12:
        no_more = f"Images of {name} are predicted as {name} no more often than other images"
        return [*sentences, f"{no_more}: at no prevalence do the predictions tell anything."]
    for prevalence, ppv, npv in table[["prevalence", "ppv", "npv"]].itertuples(index=False):
        sentences.append(_at_prevalence(name, prevalence, ppv, npv, level))

    def low_of(metric: Metric) -> float:
        """Return the lower end of a proportion of 1: its own, or that of as many independent images."""
        return metric["interval"][0] if "interval" in metric else wilson(metric["n"], metric["n"], level)[0]

    mostly_wrong = "a positive prediction is wrong more often than right below a prevalence of "
    if pass_ == 1:
        low = low_of(specificity)
        sentences.append(
            f"None of {negatives} images without {name} was predicted as {name}, but the specificity may be as low as "
            f"{low:.3f} ({level_text(level)} CI): then {mostly_wrong}{percent(break_even_prevalence(hit, low))}."
        )
    else:
        limit = percent(break_even_prevalence(hit, pass_))
        sentences.append(f"{mostly_wrong[0].upper()}{mostly_wrong[1:]}{limit}.")
    rules_out = f"a negative prediction rules {name} out only below a prevalence of"
    condition = f"if at most {percent(missed)} of the negative predictions may be wrong (evaluation.missed)"
    if hit == 1:
        low = low_of(sensitivity)
        limit = percent(rule_out_prevalence(low, pass_, missed))
        sentences.append(
            f"None of {positives} images of {name} was missed, but the sensitivity may be as low as {low:.3f} "
            f"({level_text(level)} CI): then {rules_out} {limit}, {condition}."
        )
    else:
        limit = percent(rule_out_prevalence(hit, pass_, missed))
        sentences.append(f"{rules_out[0].upper()}{rules_out[1:]} {limit}, {condition}.")
    return sentences


def triage_reading(probabilities: Mapping[str, float], points: Mapping[str, float]) -> str:
    """Read one image at the operating points: ``COVID 0.62, positive from 0.35 on``.

    Args:
        probabilities: by class, at the training prevalences, for which the thresholds were chosen.
        points: threshold by class.
    """
    return "; ".join(
        f"{name} {probabilities[name]:.2f}, "
        f"{'positive from' if probabilities[name] >= point else 'negative below'} {point:.2g}"
        + (" on" if probabilities[name] >= point else "")
        for name, point in points.items()
    )


def operating_sentences(points: Mapping[str, float], tested: Mapping[str, Any] | None) -> dict[str, str]:
    """Say what the operating point of each class stands for: its sensitivity and specificity on the test images."""
    said = {}
    for name, point in points.items():
        text = f"positive from a probability of {point:.2g} on"
        if tested is None:
            said[f"operating point of {name}"] = f"{text}; no test result of this model lies beside the bundle"
            continue
        pair = {each: tested["per_class"][name][each] for each in ("sensitivity", "specificity")}
        numbers = [f"{each} {metric_text(metric)} of {metric['n']}" for each, metric in pair.items()]
        said[f"operating point of {name}"] = f"{text}; on the test images: {', '.join(numbers)}"
    return said


def _at_prevalence(name: str, prevalence: float, ppv: Mapping[str, Any], npv: Mapping[str, Any], level: float) -> str:
    """Say in cases what a positive and a negative prediction of a class are worth at a prevalence."""

    def ci(bounds: Sequence[float] | None, base: int) -> str:
        return f" ({level_text(level)} CI {bounds[0] * base:.0f} to {bounds[1] * base:.0f})" if bounds else ""

    base, right = _base(ppv["value"]), ppv["value"]
    sentence = f"At a prevalence of {percent(prevalence)} a positive prediction is right in {cases(right, base)} "
    sentence += f"cases{ci(ppv.get('interval'), base)}{', so it is more often wrong than right' * (right < 0.5)}; "
    wrong = 1 - npv["value"]
    base = max(_base(wrong), _base(prevalence))
    ends = [1 - bound for bound in reversed(npv["interval"])] if "interval" in npv else None
    sentence += f"after a negative prediction {cases(wrong, base)} are {name}{ci(ends, base)}, "
    return f"{sentence}compared with {cases(prevalence, base)} before it."


def cases(share: float, base: int) -> str:
    """Say a share as cases: ``62 of 100``; what isn't none or all is not rounded to it."""
    count, of = round(share * base), f"of {base if base < 10_000 else grouped(base)}"
    if count == 0 < share:
        return f"fewer than 1 {of}"
    return f"more than {base - 1} {of}" if count == base and share < 1 else f"{count} {of}"


def _base(share: float) -> int:
    """Choose the number of cases to say a share of, so that two digits of it count on either side."""
    if share in (0, 1):
        return 100
    return next((base for base in (100, 1000) if 9.5 <= share * base <= base - 9.5), 10_000)


NO_GATE = "the bundle has none (of an older version, or of too few images): every image gets a class"


def gate_reading(inverted: bool) -> str:
    """Say what an image that is turned away is, whether or not its negative is one."""
    return f"{TURNED_AWAY}; {INVERTED}" if inverted else TURNED_AWAY


def gate_text(gate: Gate | None, turned_away: int, tested: int) -> str:
    """Say what the gate of a bundle does, and how many of its own test images it would turn away."""
    if gate is None:
        return f"none was fitted, which takes {FEWEST} training and validation images of five patients at least"
    text = f"an image that is stranger to the network than {1 - ALARM:.0%} of left-out training images is turned away"
    if tested:
        text = f"{text}: {turned_away} of {tested} test images, which are counted all the same"
    if gate.thumbnails is not None:
        text += (
            f". Thumbnails of {len(gate.thumbnails)} training and validation images lie in the bundle (keep_examples)"
        )
    return text


def interval_meaning(moments: Mapping[str, Moments], level: float) -> str:
    """Say what the confidence interval of a mean over seeds means; empty where there is none."""
    seeds = {each.runs for each in moments.values() if each.interval is not None}
    if not seeds:
        return ""
    return (
        f"The {level_text(level)} confidence interval of a mean is over seeds (Student's t, n = {max(seeds)}): it says "
        "what other seeds would give on these data, and nothing of other patients."
    )


def issues_of(known: Mapping[str, Sequence[str]]) -> list[str]:
    """Write the known issues of data, by source, as sentences.

    >>> issues_of({"north": ["patients are not known"]})
    ['north: patients are not known.']
    """
    return [f"{source}: {text}." for source, issues in known.items() for text in issues]


def written_out(sentences: Sequence[str]) -> list[str]:
    """Write sentences of the console as a page has them."""
    return [f"{text[0].upper()}{text[1:]}." for text in sentences]
