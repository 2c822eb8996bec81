"""What is wrong with a data set, in words: found, not found, and what can't be told.

Nothing is called a finding whose confidence interval holds "nothing": an association of 0, an AUC of 0.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from cxrnet.data.leaks import LEAKS_FROM, conflict_statement, leak_findings, leak_gaps, leaks
from cxrnet.evaluation.association import Association
from cxrnet.evaluation.metrics import Metric
from cxrnet.reporting.wording import metric_text

NO_SIGNAL = 0.5
"""AUC of a guess."""
_STRONG = 3  # measurements that a sentence names

MEASUREMENTS = {
    "width": "width in pixels",
    "height": "height in pixels",
    "aspect": "aspect ratio",
    "bits": "bits a channel",
    "colour": "colour in the file",
    "mean": "mean grey value",
    "sd": "spread of grey values",
    "sharpness": "sharpness",
    "black_border": "black border",
    "corner_text": "letters in the corners",
}


@dataclass(frozen=True)
class AcquisitionProbe:
    """How well the classes are told from how the images were made.

    Attributes:
        auc: macro ROC-AUC of all measurements together; ``None`` for a gap.
        parts: that of each measurement alone.
        medians: of each measurement by class: classes in rows.
        gap: why there is no probe, or what it lacks.
    """

    auc: Metric | None = None
    parts: Mapping[str, Metric] = field(default_factory=dict)
    medians: pd.DataFrame = field(default_factory=pd.DataFrame)
    gap: str = ""


@dataclass(frozen=True)
class LabelProbe:
    """Images whose label a linear model doubts.

    Attributes:
        found: from :func:`cxrnet.evaluation.label_errors.suspected_errors`; empty where the model tells nothing.
        auc: macro ROC-AUC of the model; ``None`` for a gap.
        features: what the model works on, in words.
        gap: why nobody is suspected.
    """

    found: pd.DataFrame = field(default_factory=pd.DataFrame)
    auc: Metric | None = None
    features: str = ""
    gap: str = ""


@dataclass(frozen=True)
class Checks:
    """What was looked for in a data set.

    Attributes:
        pairs: from :func:`cxrnet.workflows.prepare.marked_duplicates`.
        headers: from :func:`cxrnet.data.acquisition.read_headers`.
        decoys: ``image_id`` of images with two grey levels at most.
        source: how far the source tells the class.
        acquisition: how far the making of an image tells it.
        labels: suspected label errors.
        left_out: images that could not be read.
        limit: images of each class in each split that were taken at most; ``None`` for all.
        unusable: why the data can't be trained on; empty where they can.
    """

    pairs: pd.DataFrame
    headers: pd.DataFrame
    decoys: Sequence[str]
    source: Association
    acquisition: AcquisitionProbe
    labels: LabelProbe
    left_out: int = 0
    limit: int | None = None
    unusable: str = ""


@dataclass(frozen=True)
class Verdict:
    """Sentences on a data set, without a full stop.

    Attributes:
        findings: what is wrong.
        gaps: what can't be told.
        clean: what was looked for and not found.
    """

    findings: Sequence[str]
    gaps: Sequence[str]
    clean: Sequence[str]


def finds_signal(metric: Metric | None) -> bool:
    """Tell whether the interval of an AUC lies above that of a guess."""
    return metric is not None and "interval" in metric and metric["interval"][0] > NO_SIGNAL


def judge(manifest: pd.DataFrame, checks: Checks) -> Verdict:
    """Say what the checks of a data set came to."""
    findings: list[str] = []
    gaps: list[str] = []
    clean: list[str] = []
    if checks.unusable:
        findings.append(f"it can't be trained on as it is: {checks.unusable}")
    if checks.left_out:
        listed = checks.left_out + len(manifest)
        findings.append(f"{checks.left_out} of {listed} images could not be read and are left out")
    if checks.limit is not None:
        gaps.append(f"no more than {checks.limit} images of each class in each split were taken (data.limit)")
    for part in (
        _leaks(manifest),
        _duplicates(manifest, checks),
        _source(manifest, checks.source),
        _acquisition(checks.acquisition),
        _labels(len(manifest), checks.labels),
    ):
        for kept, said in zip((findings, gaps, clean), part, strict=True):
            kept.extend(said)
    return Verdict(findings, gaps, clean)


_Sentences = tuple[list[str], list[str], list[str]]


def _leaks(manifest: pd.DataFrame) -> _Sentences:
    findings, gaps = leak_findings(manifest), leak_gaps(manifest)
    if manifest["split"].isna().all():
        return findings, [*gaps, "the images have no split, so leaks between splits can't be looked for"], []
    clean = []
    for split, leak in leaks(manifest).items():
        before = " or ".join(LEAKS_FROM[split])
        if not leak.duplicates:
            clean.append(f"no {split} image has a duplicate in {before}")
        if leak.patients_known == leak.images and not leak.same_patient:
            clean.append(f"no patient of {split} has images in {before}")
    return findings, gaps, clean


def _duplicates(manifest: pd.DataFrame, checks: Checks) -> _Sentences:
    conflicts = conflict_statement(checks.pairs, manifest)
    findings, clean = [*conflicts], []
    if checks.pairs.empty:
        clean.append(f"no duplicates were found among {len(manifest)} images")
    elif not conflicts:
        clean.append(f"none of {len(checks.pairs)} pairs of duplicates carries two labels")
    if differ := int(checks.pairs["patient_id_differs"].sum()):
        findings.append(
            f"{differ} of {len(checks.pairs)} pairs of duplicates stand under two patients: one of the numbers is wrong"
        )
    if checks.decoys:
        verb = "has" if len(checks.decoys) == 1 else "have"
        findings.append(
            f"{len(checks.decoys)} of {len(manifest)} images {verb} two grey levels or one, as masks and blank "
            "pictures do: they may be no radiographs"
        )
    return findings, [], clean


def _source(manifest: pd.DataFrame, found: Association) -> _Sentences:
    if found.value is None:
        return [], [f"whether the source tells the class can't be told: {found.reason}"], []
    sources = manifest.groupby("source")["label"].nunique()
    single = [str(name) for name in sources[sources == 1].index]
    if found.interval is None:
        return [], [f"how far the source tells the class is not certain: {found.reason}"], []
    text = f"Cramér's V {found.value:.2f} ({found.interval[0]:.2f} to {found.interval[1]:.2f}), n = {found.n}"
    if not found.found:
        return [], [], [f"the source is not shown to tell the class: {text}"]
    names = ", ".join(single[:_STRONG]) + ", ..." * (len(single) > _STRONG)
    of = f"; {names} {'has' if len(single) == 1 else 'have'} images of one class only" if single else ""
    return [f"the source of an image tells its class ({text}){of}: a network may learn the source instead"], [], []


def _acquisition(probe: AcquisitionProbe) -> _Sentences:
    if probe.auc is None or probe.auc["value"] is None:
        return [], [f"whether the making of an image tells its class can't be told: {probe.gap}"], []
    text = f"AUC {metric_text(probe.auc)}, n = {probe.auc['n']}"
    if "interval" not in probe.auc:
        reason = probe.auc.get("interval_reason", "it has no confidence interval")
        return [], [f"whether the making of an image tells its class is not certain ({text}): {reason}"], []
    if not finds_signal(probe.auc):
        return [], [], [f"size, brightness, sharpness and borders are not shown to tell the class ({text})"]
    strong = sorted(
        (name for name, metric in probe.parts.items() if finds_signal(metric)),
        key=lambda name: -float(probe.parts[name]["value"] or 0),
    )
    carried = [f"{MEASUREMENTS[name]} alone {probe.parts[name]['value']:.2f}" for name in strong[:_STRONG]]
    most = f"; {', '.join(carried)}" if carried else ""
    return (
        [f"how an image was made tells its class without any anatomy ({text}{most}): a network may learn that instead"],
        [],
        [],
    )


def _labels(images: int, labels: LabelProbe) -> _Sentences:
    if labels.gap:
        return [], [f"label errors can't be looked for: {labels.gap}"], []
    if labels.found.empty:
        return [], [], [f"no label is doubted by a linear model on {labels.features}"]
    verb = "is" if len(labels.found) == 1 else "are"
    return (
        [],
        [
            f"{len(labels.found)} of {images} labels {verb} doubted by a linear model on {labels.features}: "
            "a reason to look, no finding"
        ],
        [],
    )
