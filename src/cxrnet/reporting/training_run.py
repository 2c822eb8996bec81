"""A training run in words: what it was made of, for its report, its model card and its warnings."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from cxrnet.core.config import Config
from cxrnet.core.provenance import git_revision, package_versions
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import LEAKS_FROM, conflict_statement, leak_statement, leaks
from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.prior import decision_text
from cxrnet.evaluation.threshold_selection import Rule, check_policy
from cxrnet.inference import rule_of
from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.models.bundle import Bundle
from cxrnet.models.losses import corrected_twice
from cxrnet.reporting.report_data import DeferralFacts, PhaseFacts, PointFacts, RunFacts, SplitFacts
from cxrnet.reporting.results import Results

SPLITS = ("train", "val", "test")
IMAGE_FOLDS = (
    "the folds part IMAGES, NOT PATIENTS (folds_by=image): images of one patient and duplicates of one image may be in "
    "training and test, which flatters every metric; it shows what such a leak does and is no result"
)


@dataclass(frozen=True)
class Bundled:
    """A bundle and how its numbers were chosen.

    Attributes:
        bundle: as it lies on disk.
        validation: its predictions of the validation images, on which they were.
        temperature: of the bundle, or why it has none.
        thresholds: sentences on what each threshold that a rule chose does on the validation images.
        weighing: sentences on what class weights, a balanced sampler or costs did to the training and do to the
            decision; none where there were none.
    """

    bundle: Bundle
    validation: pd.DataFrame
    temperature: Temperature
    thresholds: Sequence[str]
    weighing: Sequence[str]


@dataclass(frozen=True)
class TrainedRun:
    """A training and its result.

    Attributes:
        data: that it trained on.
        weights: that it started from.
        phases: of the training.
        bundled: the trained model.
        results: of its predictions.
        warnings: that a reader must know before the numbers.
    """

    data: XrayDataModule
    weights: LoadedWeights
    phases: Sequence[PhaseFacts]
    bundled: Bundled
    results: Results
    warnings: Sequence[str]


def data_warnings(data: XrayDataModule, config: Config) -> list[str]:
    """Say what a reader must know of the data before the numbers."""
    warnings = leak_statement(data.manifest) + conflict_statement(data.duplicates, data.manifest)
    if config["folds"] and config["folds_by"] == "image":
        warnings.insert(0, IMAGE_FOLDS)
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were used (data.limit)")
    return warnings + corrected_twice(data.sampler, config["loss"]["class_weights"])


def sources_of(data: XrayDataModule) -> str:
    """Name the sources that the images come from."""
    return ", ".join(sorted(data.manifest["source"].unique()))


def issues_of(known: Mapping[str, Sequence[str]]) -> list[str]:
    """Write the known issues of data, by source, as sentences.

    >>> issues_of({"north": ["patients are not known"]})
    ['north: patients are not known.']
    """
    return [f"{source}: {text}." for source, faults in known.items() for text in faults]


def written_out(sentences: Sequence[str]) -> list[str]:
    """Write sentences of the console as a page has them."""
    return [f"{text[0].upper()}{text[1:]}." for text in sentences]


def environment(folder: Path, config: Config, digest: str, run_id: str | None) -> dict[str, str]:
    """List what it takes to reproduce a run."""
    revision = git_revision(Path.cwd())
    commit = f"{revision['commit']}{' with uncommitted changes' if revision['dirty'] else ''}" if revision else "none"
    return {
        "folder": str(folder.resolve()),
        "MLflow run": run_id or "not tracked",
        "data digest": digest,
        "seed": str(config["seed"]),
        "git revision": commit,
        **package_versions(),
    }


def report_facts(
    trained: TrainedRun,
    config: Config,
    **provenance: Any,  # noqa: ANN401 (environment, command: handed on)
) -> RunFacts:
    """Put together what the report and the model card say.

    Args:
        trained: what they say it of.
        config: of the run, plain.
        provenance: ``environment`` and ``command`` of :class:`cxrnet.reporting.report_data.RunFacts`.
    """
    data, weights, phases, results = trained.data, trained.weights, trained.phases, trained.results
    bundle = trained.bundled.bundle
    rule = rule_of(bundle)
    backbone = config["model"]["backbone"]
    start = {
        "imagenet": "from ImageNet weights",
        "file": f"from the weights in {Path(weights.detail).name}",
        "random": "from scratch",
    }[weights.origin]
    names = ", then ".join(f"{phase.name} (trainable: {phase.trainable})" for phase in phases)
    rules = check_policy(config["operating_points"] or {}, bundle.classes)
    chosen = {name: str(rule) if isinstance(rule, Rule) else "given" for name, rule in rules.items()}
    return RunFacts(
        title=f"{backbone} on {sources_of(data)}",
        summary=f"{backbone}, trained {start} on {len(data.rows('train'))} images of {len(data.classes)} classes. "
        f"Phases: {names}.",
        created=time.strftime("%Y-%m-%d %H:%M"),
        warnings=written_out(trained.warnings),
        known_issues=issues_of(data.known_issues),
        classes=data.classes,
        data={split: _split_facts(data, split) for split in SPLITS if len(data.rows(split))},
        metrics=results.metrics,
        analyses=results.analyses,
        baselines=results.baselines,
        without_leaked=results.without_leaked,
        points={name: PointFacts(value, chosen[name]) for name, value in bundle.operating_points.items()},
        chosen=trained.bundled.thresholds,
        weighing=trained.bundled.weighing,
        deferral=None
        if bundle.defer_below is None
        else DeferralFacts(bundle.defer_below, config["defer"], rule.certainty_name),
        decision="" if rule.deciding_weights is None else decision_text(rule.deciding_weights, rule.points),
        temperature=trained.bundled.temperature,
        level=config["evaluation"]["level"],
        methods=methods_of(data, weights, phases, config),
        phases=phases,
        plots=results.plots,
        config_yaml=OmegaConf.to_yaml(config),
        **provenance,
    )


def _split_facts(data: XrayDataModule, split: str) -> SplitFacts:
    patients = data.rows(split)["patient_id"].nunique()
    return SplitFacts(dict(zip(data.classes, data.counts(split), strict=True)), patients or None)


def methods_of(
    data: XrayDataModule, weights: LoadedWeights, phases: Sequence[PhaseFacts], config: Config
) -> dict[str, str]:
    """Describe a run under the names of :attr:`cxrnet.reporting.report_data.RunFacts.methods`."""
    kept = next(phase for phase in phases if phase.kept)
    limit = f"at most {data.limit} images of each class in each split" if data.limit else "all images of the manifest"
    which = "the last epoch of phase {}, and {}" if kept.keep == "last" else "the epoch of phase {} with the best {}"
    return {
        "sources": sources_of(data),
        "preprocessing": f"grey, {data.size[0]} x {data.size[1]} pixels (resize: {data.resize}), normalised as the "
        "weights of the backbone want it",
        "selection": f"{limit}; {data.left_out} could not be read" if data.left_out else limit,
        "split": _split(config),
        "level": _level(data.manifest),
        "characteristics": _characteristics(data.manifest),
        "initial weights": weights.detail if weights.pretrained else "random",
        "training": f"{_call(config['optimizer'])}; {_call(config['loss'])}; batches of {data.batch_size}, drawn by "
        f"{data.sampler}; augmentation: {_augmentation(config, phases)}; {_phases(phases)}; seed {config['seed']}",
        "final model": f"{which.format(kept.name, kept.monitor)} on the validation images: {kept.kept_epoch}, "
        f"{kept.value:.4g}",
        "software": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    }


def _split(config: Config) -> str:
    """Say how the images were split: as ``data.split`` says, or, in a cross-validation, by the fold."""
    if config.get("fold") is None:
        return _call(config["data"]["split"])
    fold, folds, by = config["fold"], config["folds"], config["folds_by"]
    text = (
        f"fold {fold} of {folds} is test, the next one validation, the others training "
        f"(fold_manifest(folds={folds}, fold={fold - 1}, by={by}, seed={config['seed']}))"
    )
    return f"{text}; {IMAGE_FOLDS}" if by == "image" else text


def _level(manifest: pd.DataFrame) -> str:
    """Say at which level the splits are disjoint, as far as the data tell."""
    parts = []
    for split, leak in leaks(manifest).items():
        seen = " or ".join(LEAKS_FROM[split])
        patients = f"{leak.same_patient} share a patient" if leak.patients_known else "patients are not known"
        if 0 < leak.patients_known < leak.images:
            patients += f" (not known of {leak.images - leak.patients_known})"
        parts.append(f"of {leak.images} {split} images, {leak.duplicates} have a duplicate in {seen} and {patients}")
    return "; ".join(parts)


def _characteristics(manifest: pd.DataFrame) -> str:
    """Say sex, view and age of the images of each split, where the data have them."""
    parts = []
    for split in SPLITS:
        rows = manifest[manifest["split"] == split]
        known = [
            f"{name} " + ", ".join(f"{value} {n}" for value, n in rows[name].value_counts().items())
            for name in ("sex", "view")
            if name in rows and rows[name].notna().any()
        ]
        ages = pd.to_numeric(rows["age"], errors="coerce") if "age" in rows else pd.Series(dtype=float)
        known += [f"median age {ages.median():.0f} (known of {ages.notna().sum()})"] if ages.notna().any() else []
        parts += [f"{split}: {'; '.join(known)}"] if known else []
    return ". ".join(parts)


def _phases(phases: Sequence[PhaseFacts]) -> str:
    parts = []
    for phase in phases:
        decay = f", weight decay over all of them: {phase.decay:g}" if phase.decay else ""
        parts.append(
            f"phase {phase.name} (trainable: {phase.trainable}, parameters: {phase.parameters:,}, "
            f"learning rate: {phase.lr:g}, epochs: {phase.epochs}{decay})"
        )
    return ", then ".join(parts)


def _augmentation(config: Config, phases: Sequence[PhaseFacts]) -> str:
    """Say how training images were augmented, and in which phases not."""
    if not config["augment"]:
        return "none"
    frozen = [phase.name for phase in phases if phase.trainable == "head"] if config["schedule"]["views"] == 1 else []
    if len(frozen) == len(phases):
        return "none, as the head was trained on the images themselves (schedule.views=1)"
    left_out = f", but not in phase {', '.join(frozen)}, on the images themselves" if frozen else ""
    return f"{_call(config['augment'])}{left_out}"


def _call(node: Mapping[str, Any]) -> str:
    """Write a part of the configuration as a call: ``Adam(weight_decay=0.0)``."""
    if "_target_" not in node:
        return ", ".join(f"{name}={value}" for name, value in node.items())
    settings = ", ".join(f"{name}={value}" for name, value in node.items() if not name.startswith("_"))
    return f"{node['_target_'].rpartition('.')[2]}({settings})"
