"""``report.html``: one run on one page, in one file.

The page needs no network and no script: figures travel inside it, and its content policy forbids anything else.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from cxrnet.evaluation.metrics import Evaluation

FIGURES = {
    "confusion_matrix": "Confusion matrix: number of images, and share of the images of each label.",
    "recall_per_class": "Sensitivity of each class, with the images behind it.",
    "roc_curves": "ROC curve of each class against the rest.",
    "pr_curves": "Precision over sensitivity of each class against the rest. AP: average precision.",
    "accuracy_curve": "Accuracy over the epochs.",
    "loss_curve": "Loss over the epochs.",
}
HEADLINE = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "F1, macro",
    "roc_auc_macro": "ROC-AUC, macro",
    "roc_auc_weighted": "ROC-AUC, weighted",
    "pr_auc_macro": "PR-AUC, macro",
    "log_loss": "Log loss (lower is better)",
}
PER_CLASS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision (PPV)",
    "npv": "NPV",
    "f1": "F1",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
}
SPLIT_NAMES = {"train": "Training", "val": "Validation", "test": "Test"}


@dataclass(frozen=True)
class PhaseFacts:
    """What one phase of the training did."""

    name: str
    trainable: str
    """As in the config: ``head``, ``all``, ``last 100``."""
    parameters: int
    """Trained in this phase."""
    epochs: int
    best_epoch: int
    """Counted from 1, running on across phases."""
    monitor: str
    value: float
    """Of ``monitor`` at ``best_epoch``."""
    seconds: float
    cached: bool
    """Trained on features computed once."""
    kept: bool
    """Its weights are the result."""


@dataclass(frozen=True)
class SplitFacts:
    """What one split holds."""

    images: Mapping[str, int]
    """Class to number of images."""
    patients: int | None
    """None where patients are not known."""


@dataclass(frozen=True)
class RunFacts:
    """Everything the report says. Plain values only."""

    title: str
    """``"MobileNetV2 on covid19_image"``."""
    summary: str
    """One or two sentences: what was trained, on what, from which weights."""
    created: str
    """Date and time, as a person reads it."""
    warnings: Sequence[str]
    """What a reader must know before the numbers, a sentence each."""
    classes: Sequence[str]
    data: Mapping[str, SplitFacts]
    """By split, in the order of reading: ``train``, ``val``, ``test``."""
    metrics: Mapping[str, Evaluation]
    """By split; ``test`` makes the headline, or ``val`` where there is no test split."""
    baselines: Mapping[str, Evaluation]
    """``majority`` and ``thumbnail`` on the split of the headline."""
    phases: Sequence[PhaseFacts]
    environment: Mapping[str, str]
    """What it takes to reproduce the run: git revision, seed, versions, digest, run id, folder."""
    command: str
    config_yaml: str
    figures: Mapping[str, Path]
    """What ``save_figures`` and ``save_curves`` returned, merged."""


def render_report(facts: RunFacts, path: Path) -> None:
    """Write the report of a run as one HTML file, whole or not at all.

    Args:
        facts: what to say.
        path: the file to write.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(duration=duration, count=grouped)
    source = files("cxrnet.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    headline = "test" if "test" in facts.metrics else "val"
    page = environment.from_string(source).render(
        facts=facts,
        headline=headline,
        columns=_columns(facts, headline),
        warnings=_warnings(facts, headline),
        data_rows=_data_rows(facts),
        split_names=SPLIT_NAMES,
        headline_figures=HEADLINE,
        class_figures=PER_CLASS,
        captions=FIGURES,
        images={name: _data_uri(file) for name, file in facts.figures.items()},
        gaps={split: gaps(metrics) for split, metrics in facts.metrics.items()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def _columns(facts: RunFacts, headline: str) -> dict[str, Evaluation]:
    """The columns of the result table, by title."""
    columns = {
        "Network": facts.metrics[headline],
        "8 × 8 thumbnails": facts.baselines["thumbnail"],
        "Majority class": facts.baselines["majority"],
    }
    if headline == "test" and "val" in facts.metrics:
        columns["Network, validation"] = facts.metrics["val"]
    return columns


def _warnings(facts: RunFacts, headline: str) -> list[str]:
    """The caller's warnings, and those that follow from the figures."""
    sentences = list(facts.warnings)
    if headline == "val":
        sentences.append("There are no test images: these figures are of the images the weights were chosen on.")
    verdict = thumbnail_verdict(facts.metrics[headline], facts.baselines["thumbnail"])
    return [*sentences, verdict] if verdict else sentences


def _data_rows(facts: RunFacts) -> dict[str, list[int]]:
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


def _data_uri(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
