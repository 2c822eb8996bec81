"""``report.html``: one run, or one over folds and seeds, on one page, in the order in which a radiologist asks."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cxrnet.evaluation.metrics import Evaluation, Metric
from cxrnet.evaluation.subgroups import METRICS as SUBGROUP_METRICS
from cxrnet.reporting.rendering import data_uri, render_page
from cxrnet.reporting.report_data import RepeatsFacts, ResultFacts, RunFacts
from cxrnet.reporting.sentences import interval_meaning, offset_text
from cxrnet.reporting.wording import (
    BASELINES,
    CALIBRATION,
    HEADLINE,
    PER_CLASS,
    SPLIT_NAMES,
    class_metrics,
    interval_gaps,
    interval_method,
    percent,
    value_gaps,
)

CAPTIONS = {
    "confusion_matrix": "Confusion matrix: number of images, and share of the images of each label.",
    "recall_per_class": "Sensitivity of each class, with the images behind it.",
    "roc_curves": "ROC curve of each class against the rest.",
    "pr_curves": "Precision over sensitivity of each class against the rest. AP: average precision.",
    "accuracy_curve": "Accuracy over the epochs.",
    "loss_curve": "Loss over the epochs.",
    "reliability": "Accuracy of images predicted with about the same probability, Wilson's confidence intervals, and "
    "the number of images.",
    "risk_coverage": "Error of the other predictions when the least certain ones are deferred to a reader.",
    "decision": "Net benefit of acting on the network, on every patient, and on none: true positives less weighted "
    "false positives, per patient.",
}
SHADED = ("risk_coverage", "decision")


def render_report(facts: RunFacts, path: Path) -> None:
    """Write the report of a run as one HTML file, whole or not at all.

    Args:
        facts: what to say.
        path: the file to write.
    """
    places, rows = classes_first(facts), data_rows(facts)
    _render("report.html.j2", path, facts, metric_tables(facts), places=places, data_rows=rows)


def render_repeats(facts: RepeatsFacts, path: Path) -> None:
    """Write the report of a run over folds or seeds, as :func:`render_report` does that of one."""
    runs = [(f"{HEADLINE[name]} ({run.name})", run.metrics[name]) for run in facts.runs for name in facts.moments]
    tables, places = metric_tables(facts) | {"runs": runs}, places_of(facts.classes, facts.runs[0].points)
    _render("repeats.html.j2", path, facts, tables, places=places, interval_meaning=interval_meaning)


def _render(
    template: str,
    path: Path,
    facts: ResultFacts,
    tables: Mapping[str, Sequence[tuple[str, Metric]]],
    **values: object,
) -> None:
    """Write a page that says what ``results.html.j2`` does, and below each table what it lacks."""
    render_page(
        template,
        path,
        facts=facts,
        headline=facts.headline,
        columns=columns_of(facts),
        warnings=all_warnings(facts),
        split_names=SPLIT_NAMES,
        headline_metrics=HEADLINE,
        calibration_metrics=CALIBRATION,
        class_metrics=PER_CLASS,
        captions=captions_of(facts.analyses[facts.headline].has_bands),
        images={name: data_uri(file) for name, file in facts.plots.items()},
        gaps={name: value_gaps(metrics) for name, metrics in tables.items()}
        | {split: gaps(metrics) for split, metrics in facts.metrics.items()},
        method=interval_method(facts.metrics[facts.headline], facts.level, facts.analyses[facts.headline].cluster),
        no_interval={name: interval_gaps(metrics) for name, metrics in tables.items()},
        percent=percent,
        offset_text=offset_text,
        **values,
    )


def captions_of(bands: bool) -> dict[str, str]:
    """Return what each plot shows, the curves with their confidence bands or without."""
    if not bands:
        return CAPTIONS
    return CAPTIONS | {
        name: f"{CAPTIONS[name]} Shaded: the confidence interval of each point by itself." for name in SHADED
    }


def columns_of(facts: ResultFacts) -> dict[str, Evaluation]:
    """Return the columns of the result table, by title."""
    columns = {"Network": facts.metrics[facts.headline]}
    if facts.without_leaked is not None:
        columns["Network, without leaked images"] = facts.without_leaked
    columns |= {title: facts.baselines[name] for name, title in BASELINES.items()}
    if facts.headline == "test" and "val" in facts.metrics:
        columns["Network, validation"] = facts.metrics["val"]
    return columns


def metric_tables(facts: ResultFacts) -> dict[str, list[tuple[str, Metric]]]:
    """Return title and value of the metrics of each table, for the note below it on those that are missing.

    Returns:
        By table: ``result``, ``calibration``, ``predictive``, ``deferral``, ``subgroups``, and the name of a split for
        that of its classes.
    """
    analysis = facts.analyses[facts.headline]
    deferrals = {split: each.deferral for split, each in facts.analyses.items() if each.deferral is not None}
    return {
        "result": [
            (f"{name} ({title})", column[key])
            for title, column in columns_of(facts).items()
            for key, name in HEADLINE.items()
        ],
        "calibration": [
            (f"{title} ({SPLIT_NAMES[split].lower()})", metrics[key])
            for split, metrics in facts.metrics.items()
            for key, title in CALIBRATION.items()
        ],
        "predictive": [
            (f"{value.upper()} of {name}", metric)
            for name, table in analysis.predictive.items()
            for value in ("ppv", "npv")
            for metric in table[value]
        ],
        "deferral": [
            (f"{HEADLINE[name]} of the others ({SPLIT_NAMES[split].lower()})", deferral.kept[name])
            for split, deferral in deferrals.items()
            for name in ("accuracy", "balanced_accuracy")
            if deferral.kept is not None
        ],
        "subgroups": [
            (f"{PER_CLASS[metric]} of {row['class']} ({row['attribute']} {row['group']})", row[metric])
            for row in analysis.subgroups.to_dict("records")
            for metric in SUBGROUP_METRICS
        ],
        **{split: class_metrics(metrics) for split, metrics in facts.metrics.items()},
    }


def classes_first(facts: RunFacts) -> dict[str, int]:
    """Return the classes, and their places: those with a threshold come first."""
    return places_of(facts.classes, facts.points)


def places_of(classes: Sequence[str], first: Collection[str]) -> dict[str, int]:
    """Return the places of the classes, some of which come first."""
    places = {name: place for place, name in enumerate(classes)}
    return {name: places[name] for name in sorted(places, key=lambda name: name not in first)}


def all_warnings(facts: ResultFacts) -> list[str]:
    """Return the caller's warnings, and those that follow from the metrics."""
    sentences = list(facts.warnings)
    if facts.headline == "val":
        sentences.append("There are no test images: these metrics are of the images that the weights were chosen on.")
    verdict = thumbnail_verdict(facts.metrics[facts.headline], facts.baselines["thumbnail"])
    return [*sentences, verdict] if verdict else sentences


def data_rows(facts: RunFacts) -> dict[str, list[int]]:
    """Count images by class: one number a split, then their sum; the last row is the sum over classes."""
    rows = {name: [split.images.get(name, 0) for split in facts.data.values()] for name in facts.classes}
    rows["All classes"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    return {name: [*counts, sum(counts)] for name, counts in rows.items()}


def thumbnail_verdict(network: Evaluation, thumbnail: Evaluation) -> str | None:
    """Say so when the network does not beat the linear model on thumbnails; None when it does.

    Both balanced accuracy and macro ROC-AUC must be higher; where a class has no image neither exists, and the
    accuracy must be.
    """
    pairs = {
        "accuracy": (network["accuracy"]["value"], thumbnail["accuracy"]["value"]),
        "balanced accuracy": (network["balanced_accuracy"]["value"], thumbnail["balanced_accuracy"]["value"]),
        "macro ROC-AUC": (network["roc_auc_macro"]["value"], thumbnail["roc_auc_macro"]["value"]),
    }
    known = {name: (ours, theirs) for name, (ours, theirs) in pairs.items() if ours is not None and theirs is not None}
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
    """List why metrics are missing, each reason once: ``"no image is labelled Covid"``."""
    every = [metric for of_class in metrics["per_class"].values() for metric in of_class.values()]
    return list(dict.fromkeys(metric["reason"] for metric in every if "reason" in metric))
