"""How figures are called and written, on every page and on the console."""

from collections.abc import Iterable

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
# Narrower intervals are written with three digits, wider ones with two: the third says nothing.
NARROW = 0.02


def number_text(metric: Metric) -> str:
    """Write the value of a figure: ``"0.955"``, or ``"n/a"``."""
    return "n/a" if metric["value"] is None else f"{metric['value']:.3f}"


def interval_text(metric: Metric) -> str:
    """Write the interval of a figure: ``"0.88 to 0.99"``; empty where there is none."""
    if "interval" not in metric:
        return ""
    low, high = metric["interval"]
    digits = 3 if high - low < NARROW else 2
    return f"{low:.{digits}f} to {high:.{digits}f}"


def figure_text(metric: Metric) -> str:
    """Write a figure with its interval: ``"0.955 (0.88 to 0.99)"``."""
    interval = interval_text(metric)
    return f"{number_text(metric)} ({interval})" if interval else number_text(metric)


def class_figures(metrics: Evaluation) -> list[tuple[str, Metric]]:
    """Title, class in it, and value of the figures of every class."""
    per_class = metrics["per_class"].items()
    return [(f"{PER_CLASS[key]} of {name}", figures[key]) for name, figures in per_class for key in PER_CLASS]


def has_intervals(metrics: Evaluation) -> bool:
    """Whether the figures of a split have intervals at all: the accuracy has one wherever there are any."""
    return "interval" in metrics["accuracy"]


def interval_method(metrics: Evaluation, level: float, unit: str) -> str:
    """Say how the intervals of a split are made.

    Args:
        metrics: of the split.
        level: of the intervals.
        unit: what is drawn (:class:`cxrnet.evaluation.bootstrap.Units`).
    """
    if not has_intervals(metrics):
        return "No intervals: none were asked for (evaluation.resamples)"
    units = "groups of copies, as patients aren't known" if unit == "group of copies" else f"{unit}s"
    return (
        f"{100 * level:g} % intervals: bootstrap of {units}, within strata of labels; where resamples say nothing, "
        "Wilson's of a proportion, F1 or PR-AUC, Newcombe's of a ROC-AUC, and of a mean what follows from those of the "
        "classes; elsewhere from its standard error on log odds, of a log loss on logarithms; of an ECE, a bootstrap "
        "of its gaps; of PPV, NPV and net benefit at a prevalence, what follows from sensitivity and specificity"
    )


def value_gaps(metrics: Iterable[tuple[str, Metric]]) -> list[str]:
    """Say which of the figures, title and value each, can't be computed, and why; each reason once."""
    return _by_reason((title, metric["reason"]) for title, metric in metrics if "reason" in metric)


def interval_gaps(metrics: Iterable[tuple[str, Metric]]) -> list[str]:
    """Say which of the figures, title and value each, have no interval, and why; each reason once."""
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
