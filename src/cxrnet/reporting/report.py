"""``report.html``: one run, or one over folds and seeds, on one page, in the order in which a radiologist asks."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.comparison import Moments
from cxrnet.evaluation.decision import DecisionRule
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.reporting.pictures import Pictures, fitted, room
from cxrnet.reporting.rendering import Table, data_uri, render_page
from cxrnet.reporting.results import Results
from cxrnet.reporting.tables import (
    Row,
    class_table,
    deferral_table,
    metric_table,
    predictive_table,
    result_table,
    subgroup_table,
)
from cxrnet.reporting.wording import (
    CALIBRATION,
    SPLIT_NAMES,
    duration,
    grouped,
    head_text,
    interval_method,
    offset_text,
    percent,
)
from cxrnet.training.schedule import PhaseResult

CAPTIONS = {
    "confusion_matrix": "Confusion matrix: number of images, and share of the images of each label.",
    "sensitivity_per_class": "Sensitivity of each class, with the images behind it.",
    "roc_curves": "ROC curve of each class against the rest.",
    "pr_curves": "Precision over sensitivity of each class against the rest. PR-AUC is the average precision.",
    "accuracy_curve": "Accuracy over the epochs.",
    "loss_curve": "Loss over the epochs.",
    "l2_choice": "Log loss of held-out training images by the strength of the L2 of a head that was fitted at once.",
    "reliability": "Accuracy of images predicted with about the same probability, Wilson's confidence intervals, and "
    "the number of images.",
    "risk_coverage": "Error of the other predictions when the least certain ones are deferred to a reader.",
    "decision": "Net benefit of acting on the network, on every patient, and on none: true positives less weighted "
    "false positives, per patient.",
}
_SHADED = ("risk_coverage", "decision")


@dataclass(frozen=True)
class SplitFacts:
    """Images by class and number of patients of one split; ``None`` where patients are not known."""

    images: Mapping[str, int]
    patients: int | None


@dataclass(frozen=True)
class ResultFacts:
    """The facts of every report on a table of predictions. Plain values only."""

    title: str
    """``"MobileNetV2 on covid19_image"``."""
    summary: str
    """One or two sentences: what was trained, on what, from which weights."""
    created: str
    """Date and time, as a person reads it."""
    warnings: Sequence[str]
    """Warnings that stand above the numbers, a sentence each."""
    known_issues: Sequence[str]
    """Documented issues of the data, a sentence each."""
    classes: Sequence[str]
    results: Results
    level: float
    """Level of the confidence intervals."""
    environment: Mapping[str, str]
    """Facts to reproduce the run: git revision, seed, versions, digest, run id, folder."""
    command: str
    config_yaml: str
    weighing: Sequence[str] = field(default=(), kw_only=True)
    """Effect of class weights, a balanced sampler or costs, in sentences; empty where there were none."""
    pictures: Pictures = field(default=Pictures(), kw_only=True)
    """X-rays: errors, hits, duplicates, augmented samples."""

    @property
    def method(self) -> str:
        """The way in which the confidence intervals of the headline are made."""
        headline = self.results.headline
        return interval_method(self.results.metrics[headline], self.level, self.results.analyses[headline].cluster)

    @property
    def all_warnings(self) -> list[str]:
        """The warnings, and those that follow from the metrics."""
        results, sentences = self.results, list(self.warnings)
        if results.headline == "val":
            chosen_on = "these metrics are of the images that the weights were chosen on"
            sentences.append(f"There are no test images: {chosen_on}.")
        verdict = thumbnail_verdict(results.metrics[results.headline], results.baselines["thumbnail"])
        return [*sentences, verdict] if verdict else sentences


@dataclass(frozen=True)
class RunFacts(ResultFacts):
    """Everything the report and the model card say of one run."""

    data: Mapping[str, SplitFacts]
    """By split, in the order of reading: ``train``, ``val``, ``test``."""
    rule: DecisionRule
    chosen_for: Mapping[str, str]
    """By class with a threshold, what it was chosen for: ``"specificity >= 0.99"``, or ``"given"``."""
    chosen: Sequence[str]
    """Effect of the thresholds that a rule chose on the validation images, in sentences."""
    deferred_share: float | None
    """Share of the validation images that was to be deferred to a reader; ``None`` for no deferral."""
    temperature: Temperature
    methods: Mapping[str, str]
    """Contents of a methods section: ``sources``, ``preprocessing``, ``selection``, ``split``, ``level``
    (at which the splits are disjoint), ``initial weights``, ``training``, ``final model``, ``software``; and
    ``characteristics`` (of the patients in each split), empty where nothing is known of them."""
    phases: Sequence[PhaseResult]


@dataclass(frozen=True)
class RepeatsFacts(ResultFacts):
    """Everything the report says of the same run over folds or seeds."""

    meaning: str
    """Which predictions the result is of, and what the spread is over, in sentences."""
    tables: Sequence[Table]
    """Spread of the metrics, and one row a run."""
    moments: Mapping[str, Moments]
    """By metric, over the runs; of several seeds with folds, over the folds."""
    seeds: Mapping[str, Moments]
    """By metric, over the seeds, each with the predictions of all of its folds together; empty where there are not
    both."""
    points: Mapping[str, Mapping[str, float]]
    """By run, threshold by class."""
    deferral_thresholds: Mapping[str, float | None]
    """By run; predictions of a lower certainty are deferred to a reader."""


def render_report(facts: RunFacts, path: Path) -> None:
    """Write the report of a run as one HTML file, whole or not at all."""
    splits, metrics = _splits(facts), facts.results.metrics
    rows = [
        Row(
            [name, f"{threshold:.4g}", facts.chosen_for[name]],
            {
                f"{key.capitalize()}, {SPLIT_NAMES[split].lower()}": metrics[split]["per_class"][name][key]
                for split in splits
                for key in ("sensitivity", "specificity")
            },
            ("", f" of {name}"),
        )
        for name, threshold in facts.rule.points.items()
    ]
    fractions = list(rows[0].metrics) if rows else []
    points = metric_table("Operating points", ["Class", "Threshold", "Chosen for"], rows, fractions=fractions)
    phases = [
        [
            *(phase.name, phase.trainable),
            *("computed once" if phase.cached else "each epoch", "kept" if phase.kept else "not kept"),
            grouped(phase.trained_parameters),
            *(("none", "") if phase.fitted else (str(phase.epochs), f"{phase.kept_epoch}\n{phase.keep}")),
            *(f"{phase.kept_score:.3f}\n{phase.monitor}", duration(phase.seconds)),
        ]
        for phase in facts.phases
    ]
    columns = ["Phase", "Trainable", "Features", "Weights", "Parameters trained", "Epochs", "Kept epoch", "Monitored"]
    training = Table("Training", pd.DataFrame(phases, columns=[*columns, "Time"]), 4, False, "")
    heads = [text for phase in facts.phases if (text := head_text(phase))]
    tables = {"points": points, "phases": training, "data": data_table(facts)}
    _render("report.html.j2", path, facts, facts.rule.points, heads=heads, **tables)


def render_repeats(facts: RepeatsFacts, path: Path) -> None:
    """Write the report of a run over folds or seeds, as :func:`render_report` does that of one."""
    first, *_ = facts.points.values()
    cells = [[run, *(f"{threshold:.4g}" for threshold in points.values())] for run, points in facts.points.items()]
    points = Table("Thresholds", pd.DataFrame(cells, columns=["Run", *first]), 1, False, "")
    _render("repeats.html.j2", path, facts, first, points=points)


def _splits(facts: ResultFacts) -> list[str]:
    headline = facts.results.headline
    return [headline, "val"] if headline == "test" and "val" in facts.results.metrics else [headline]


def _render(template: str, path: Path, facts: ResultFacts, first: Collection[str], **own: object) -> None:
    """Write a page that says what ``results.html.j2`` does, and its ``own``; the classes of ``first`` come first."""
    results, headline, splits = facts.results, facts.results.headline, _splits(facts)
    analysis, places = results.analyses[headline], classes_first(facts, first)
    calibration = [
        Row(
            [title],
            {SPLIT_NAMES[split]: results.metrics[split][key] for split in splits},
            (f"{title} (", ")"),
        )
        for key, title in CALIBRATION.items()
    ]
    images = {name: data_uri(file) for name, file in results.plots.items()}
    render_page(
        template,
        path,
        facts=facts,
        pictures=fitted({"": facts.pictures}, room(images.values()))[""],
        results=results,
        analysis=analysis,
        headline=headline,
        splits=splits,
        split_names=SPLIT_NAMES,
        places=places,
        captions=captions_of(analysis.has_bands),
        images=images,
        result=result_table(results, note=f"{facts.method}."),
        classes={split: class_table(metrics, split) for split, metrics in results.metrics.items()},
        predictive=predictive_table(analysis, places),
        calibration=metric_table("Calibration", [""], calibration),
        deferral=deferral_table(results, splits),
        subgroups=subgroup_table({"": analysis}),
        percent=percent,
        offset_text=offset_text,
        **own,
    )


def captions_of(bands: bool) -> dict[str, str]:
    """Return what each plot shows, the curves with their confidence bands or without."""
    if not bands:
        return CAPTIONS
    return CAPTIONS | {
        name: f"{CAPTIONS[name]} Shaded: the confidence interval of each point by itself." for name in _SHADED
    }


def classes_first(facts: ResultFacts, first: Collection[str]) -> dict[str, int]:
    """Return the places of the classes; those with a threshold come first."""
    places = {name: place for place, name in enumerate(facts.classes)}
    return {name: places[name] for name in sorted(places, key=lambda name: name not in first)}


def data_table(facts: RunFacts) -> Table:
    """Count images by class and split, and patients."""
    counts = {name: [split.images.get(name, 0) for split in facts.data.values()] for name in facts.classes}
    counts["All classes"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [[name, *map(grouped, [*row, sum(row)])] for name, row in counts.items()]
    patients = ["not known" if split.patients is None else grouped(split.patients) for split in facts.data.values()]
    columns = ["Images", *(SPLIT_NAMES[split] for split in facts.data), "All"]
    return Table("Data", pd.DataFrame([*rows, ["Patients", *patients, ""]], columns=columns), 1, False, "")


def thumbnail_verdict(network: Evaluation, thumbnail: Evaluation) -> str | None:
    """Say so when the network does not beat the linear model on thumbnails; None when it does.

    Both balanced accuracy and macro ROC-AUC must be higher; where a class has no image neither exists, and the
    accuracy must be.
    """
    names = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "roc_auc_macro": "macro ROC-AUC"}
    pairs = {title: (network[name]["value"], thumbnail[name]["value"]) for name, title in names.items()}
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
