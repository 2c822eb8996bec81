"""``report.html``: one run on one page, in one file, in the order in which a radiologist asks."""

from pathlib import Path

from cxrnet.evaluation.facts import RunFacts
from cxrnet.evaluation.metrics import Evaluation, Metric
from cxrnet.evaluation.page import data_uri, render_page
from cxrnet.evaluation.triage import percent
from cxrnet.evaluation.wording import (
    CALIBRATION,
    HEADLINE,
    PER_CLASS,
    SPLIT_NAMES,
    class_figures,
    interval_gaps,
    interval_method,
)

FIGURES = {
    "confusion_matrix": "Confusion matrix: number of images, and share of the images of each label.",
    "recall_per_class": "Sensitivity of each class, with the images behind it.",
    "roc_curves": "ROC curve of each class against the rest.",
    "pr_curves": "Precision over sensitivity of each class against the rest. AP: average precision.",
    "accuracy_curve": "Accuracy over the epochs.",
    "loss_curve": "Loss over the epochs.",
    "reliability": "Accuracy of images called with about the same probability, their intervals (Wilson), and how many.",
    "risk_coverage": "Error of the calls that are left when the least certain images go to a reader.",
    "decision": "Net benefit of acting on the network, on every patient, and on none: hits less false alarms at their "
    "weight, a patient.",
}


def render_report(facts: RunFacts, path: Path) -> None:
    """Write the report of a run as one HTML file, whole or not at all.

    Args:
        facts: what to say.
        path: the file to write.
    """
    render_page(
        "report.html.j2",
        path,
        facts=facts,
        headline=facts.headline,
        columns=columns_of(facts),
        warnings=all_warnings(facts),
        worth=weighed(facts),
        data_rows=data_rows(facts),
        split_names=SPLIT_NAMES,
        headline_figures=HEADLINE,
        calibration_figures=CALIBRATION,
        class_figures=PER_CLASS,
        captions=FIGURES,
        images={name: data_uri(file) for name, file in facts.figures.items()},
        gaps={split: gaps(metrics) for split, metrics in facts.metrics.items()},
        method=interval_method(facts.metrics[facts.headline], facts.level, facts.analyses[facts.headline].unit),
        no_interval=without_interval(facts),
        percent=percent,
    )


def columns_of(facts: RunFacts) -> dict[str, Evaluation]:
    """The columns of the result table, by title."""
    columns = {"Network": facts.metrics[facts.headline]}
    if facts.unseen is not None:
        columns["Network, images not seen before"] = facts.unseen
    titles = {"thumbnail": "8 × 8 thumbnails", "majority": "Majority class"}
    columns |= {title: facts.baselines[name] for name, title in titles.items()}
    if facts.headline == "test" and "val" in facts.metrics:
        columns["Network, validation"] = facts.metrics["val"]
    return columns


def without_interval(facts: RunFacts) -> dict[str, list[str]]:
    """Which figures of each table have no interval, and why.

    Returns:
        By table: ``result``, ``calibration``, and the name of a split for that of its classes.
    """
    tables: dict[str, list[tuple[str, Metric]]] = {
        "result": [
            (f"{name} ({title})", column[key])  # type: ignore[literal-required]
            for title, column in columns_of(facts).items()
            for key, name in HEADLINE.items()
        ],
        "calibration": [
            (f"{title} ({SPLIT_NAMES[split].lower()})", metrics[key])  # type: ignore[literal-required]
            for split, metrics in facts.metrics.items()
            for key, title in CALIBRATION.items()
        ],
    }
    tables |= {split: class_figures(metrics) for split, metrics in facts.metrics.items()}
    return {name: interval_gaps(metrics) for name, metrics in tables.items()}


def weighed(facts: RunFacts) -> dict[str, int]:
    """The classes, whose calls are weighed one by one, and their places: those with a threshold come first."""
    places = {name: place for place, name in enumerate(facts.classes)}
    return {name: places[name] for name in sorted(places, key=lambda name: name not in facts.points)}


def all_warnings(facts: RunFacts) -> list[str]:
    """The caller's warnings, and those that follow from the figures."""
    sentences = list(facts.warnings)
    if facts.headline == "val":
        sentences.append("There are no test images: these figures are of the images the weights were chosen on.")
    verdict = thumbnail_verdict(facts.metrics[facts.headline], facts.baselines["thumbnail"])
    return [*sentences, verdict] if verdict else sentences


def data_rows(facts: RunFacts) -> dict[str, list[int]]:
    """Images by class: one number a split, then their sum; the last row is the sum over classes."""
    rows = {name: [split.images.get(name, 0) for split in facts.data.values()] for name in facts.classes}
    rows["All classes"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    return {name: [*counts, sum(counts)] for name, counts in rows.items()}


def thumbnail_verdict(network: Evaluation, thumbnail: Evaluation) -> str | None:
    """Say so when the network does not beat the linear model on thumbnails; None when it does.

    Both balanced accuracy and macro ROC-AUC must be higher; where a class has no image neither exists, and the
    accuracy must be.
    """
    figures = {
        "accuracy": (network["accuracy"]["value"], thumbnail["accuracy"]["value"]),
        "balanced accuracy": (network["balanced_accuracy"]["value"], thumbnail["balanced_accuracy"]["value"]),
        "macro ROC-AUC": (network["roc_auc_macro"]["value"], thumbnail["roc_auc_macro"]["value"]),
    }
    known = {
        name: (ours, theirs) for name, (ours, theirs) in figures.items() if ours is not None and theirs is not None
    }
    if len(known) > 1:
        del known["accuracy"]
    lost = [f"{name} {ours:.3f} against {theirs:.3f}" for name, (ours, theirs) in known.items() if ours <= theirs]
    if not lost:
        return None
    return (
        f"The network does not beat a linear model on 8 × 8 thumbnails ({'; '.join(lost)}): "
        "it may have learned little more than brightness."
    )


def gaps(metrics: Evaluation) -> list[str]:
    """List why figures are missing, each reason once: ``"no image is labelled Covid"``."""
    every = [metric for figures in metrics["per_class"].values() for metric in figures.values()]
    return list(dict.fromkeys(metric["reason"] for metric in every if "reason" in metric))
