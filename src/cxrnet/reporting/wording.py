"""Names and formats of metrics, levels, times and commands, on every page and on the console."""

import shlex
from collections.abc import Iterable, Sequence

from cxrnet.cli.command_line import typed_words
from cxrnet.evaluation.catalogue import METRICS, Place
from cxrnet.evaluation.metrics import Evaluation, Metric


def titles(*places: Place) -> dict[str, str]:
    """Return name and title of the metrics that are shown in any of the places, with their direction where it helps."""
    specs = [spec for spec in METRICS if set(places) & set(spec.shown)]
    return {spec.name: spec.title if spec.higher_is_better else f"{spec.title} (lower is better)" for spec in specs}


HEADLINE = titles("result")
CALIBRATION = titles("calibration")
# The metrics of a table where no other one tells of the calibration.
RESULT = titles("result", "calibration")
PER_CLASS = titles("classes")
BASELINES = {"thumbnail": "8 × 8 thumbnails", "majority": "Majority class"}
SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}
# Narrower confidence intervals are written with three digits, wider ones with two: the third says nothing.
NARROW = 0.02


def number_text(metric: Metric) -> str:
    """Write the value of a metric: ``"0.955"``, or ``"n/a"``."""
    return "n/a" if metric["value"] is None else f"{metric['value']:.3f}"


def interval_text(metric: Metric) -> str:
    """Write the confidence interval of a metric: ``"0.88 to 0.99"``; empty where there is none."""
    if "interval" not in metric:
        return ""
    low, high = metric["interval"]
    digits = 3 if high - low < NARROW else 2
    return f"{low:.{digits}f} to {high:.{digits}f}"


def metric_text(metric: Metric) -> str:
    """Write a metric with its confidence interval: ``"0.955 (0.88 to 0.99)"``."""
    interval = interval_text(metric)
    return f"{number_text(metric)} ({interval})" if interval else number_text(metric)


def class_metrics(metrics: Evaluation) -> list[tuple[str, Metric]]:
    """Return title, with the class in it, and value of the metrics of every class."""
    per_class = metrics["per_class"].items()
    return [(f"{PER_CLASS[key]} of {name}", of_class[key]) for name, of_class in per_class for key in PER_CLASS]


def has_intervals(metrics: Evaluation) -> bool:
    """Tell whether the metrics of a split have confidence intervals: the accuracy has one wherever there are any."""
    return "interval" in metrics["accuracy"]


def interval_method(metrics: Evaluation, level: float, cluster: str) -> str:
    """Say how the confidence intervals of a split are made.

    Args:
        metrics: of the split.
        level: of the intervals.
        cluster: what is drawn (:class:`cxrnet.evaluation.bootstrap.Clusters`).
    """
    if not has_intervals(metrics):
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
    return _by_reason(
        (title, metric["interval_reason"])
        for title, metric in metrics
        if metric["value"] is not None and "interval_reason" in metric
    )


def _by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    titles: dict[str, dict[str, None]] = {}
    for title, reason in reasons:
        titles.setdefault(reason, {})[title] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in titles.items()]


def percent(share: float) -> str:
    """Say a share in percent, two digits that count: ``0.5 %``."""
    return f"{100 * share:.2g} %"


def level_text(level: float) -> str:
    """Say the level of confidence intervals in percent, all its digits: ``95 %``, ``97.5 %``."""
    return f"{100 * level:g} %"


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
