"""A training run in words: on the console, step by step, and the facts of its report and model card."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from rich.table import Table as RichTable

from cxrnet.cli.run_folder import say_places
from cxrnet.core import console
from cxrnet.core.config import Config
from cxrnet.core.machine import git_revision, package_versions
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import LEAKS_FROM, conflict_statement, leak_statement, leaks, patients_text
from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.comparison import SUMMARY
from cxrnet.evaluation.threshold_selection import Rule, check_policy
from cxrnet.inference import rule_of
from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.models.bundle import Bundle
from cxrnet.models.losses import corrected_twice
from cxrnet.models.network import Network, count_parameters
from cxrnet.reporting.report import RunFacts, SplitFacts
from cxrnet.reporting.results import Results
from cxrnet.reporting.wording import (
    HEADLINE,
    USELESS,
    duration,
    head_text,
    issues_of,
    metric_text,
    number_text,
    offset_text,
    written_out,
)
from cxrnet.training.schedule import PhaseResult

SPLITS = ("train", "val", "test")
_IMAGE_FOLDS = (
    "the folds part IMAGES, NOT PATIENTS (folds_by=image): images of one patient and duplicates of one image may be in "
    "training and test, which flatters every metric; it shows what such a leak does and is no result"
)


@dataclass(frozen=True)
class Bundled:
    """A bundle and how its numbers were chosen.

    Attributes:
        bundle: as it lies on disk.
        validation: its predictions of the validation images, on which they were.
        temperature: temperature of the bundle, or why it has none.
        thresholds: sentences on what each threshold that a rule chose does on the validation images.
        weighing: sentences on what class weights, a balanced sampler or costs did to the training and do to the
            decision; none where there were none.
        gate: what its gate does, in a sentence; empty until the test images are predicted.
    """

    bundle: Bundle
    validation: pd.DataFrame
    temperature: Temperature
    thresholds: Sequence[str]
    weighing: Sequence[str]
    gate: str = ""


@dataclass(frozen=True)
class TrainedRun:
    """A training and its result; ``warnings`` are what a reader must know before the numbers."""

    data: XrayDataModule
    weights: LoadedWeights
    phases: Sequence[PhaseResult]
    bundled: Bundled
    results: Results
    warnings: Sequence[str]


def say_data(data: XrayDataModule, warnings: Sequence[str], processes: int) -> None:
    """Say what is trained on."""
    console.say("images", f"{len(data.manifest)} from {sources_of(data)}, {data.size[0]} x {data.size[1]} pixels")
    for split in SPLITS:
        counts = ", ".join(f"{name} {n}" for name, n in zip(data.classes, data.counts(split), strict=True))
        console.say(split, f"{len(data.rows(split))} images: {counts}")
    n, batch = len(data.rows("train")), data.batch_size * processes
    if processes > 1:
        console.say("processes", f"{processes}, with {data.batch_size} images each in a batch of {batch}")
    if n % batch == 1 and batch > 1:
        left_out = f"one of the {n} training images is left out, each time another: a last batch of one has no variance"
        console.say("every epoch", left_out)
    console.say("patients", patients_text(data.manifest))
    for text in warnings:
        console.warn(text)


def say_model(network: Network, weights: LoadedWeights) -> None:
    """Say which network is trained, and from which weights."""
    console.say("network", f"{network.config.backbone}, {count_parameters(network).total:,} parameters")
    if network.config.output == "sigmoid":
        console.say("output", f"one sigmoid: the probability of {network.config.classes[-1]}")
    random = "random, nothing is frozen" if weights.fallback else f"random: {weights.detail}"
    console.say("weights", weights.detail if weights.pretrained else random)
    if weights.unused:
        console.say("not used", ", ".join(weights.unused))


def say_views(data: XrayDataModule, views: int, trainable: Collection[object]) -> None:
    """Say so where an augmentation is not used in a phase, as the head trains on the images themselves."""
    if data.augment is not None and views == 1 and "head" in trainable:
        console.say(
            "augmentation", "not on the frozen backbone: its head trains on the images themselves (schedule.views=1)"
        )


def say_phase(facts: PhaseResult) -> None:
    """Say how a phase ended."""
    cached = " on features computed once" if facts.cached else ""
    epochs = "1 epoch" if facts.epochs == 1 else f"{facts.epochs} epochs"
    if text := head_text(facts):
        console.say(facts.name, text.partition(": ")[2])
    done = "fitted at once" if facts.fitted else epochs
    which = "" if facts.fitted else f"{facts.keep} epoch {facts.kept_epoch}, "
    kept = ", which is the result" if facts.kept else ""
    console.say(
        facts.name,
        f"{facts.trained_parameters:,} parameters{cached}, {done} in {duration(facts.seconds)}; "
        f"{which}{facts.monitor} {facts.kept_score:.4f}{kept}",
    )


def say_bundle(bundled: Bundled) -> None:
    """Say what was chosen on the validation images."""
    temperature = bundled.temperature
    text = f"{temperature.value:.3g}" if temperature.reason is None else f"1: {temperature.reason}"
    if temperature.offset:  # the report has its numbers
        text = f"{text}, with an offset of each class"
    elif temperature.offset_reason:
        text = f"{text}; {offset_text(temperature, bundled.bundle.classes)}"
    console.say("temperature", f"{text}: {USELESS}" if temperature.useless else text)
    for text in bundled.weighing:
        console.say("costs", text)
    for text in bundled.thresholds:
        console.say("threshold", text)
    console.say("gate", bundled.gate)
    if (threshold := bundled.bundle.defer_below) is not None:
        certainty = rule_of(bundled.bundle).certainty_name
        console.say("deferral", f"predictions are deferred where their {certainty} is below {threshold:.4g}")


def say_result(results: Results, warnings: Sequence[str], places: Mapping[str, str]) -> None:
    """Show the result beside its trivial baselines, and say what is wrong with it and where things are.

    The table is 80 characters wide if class names allow.
    """
    metrics, baselines = results.metrics[results.headline], results.baselines
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 2), collapse_padding=True)
    table.add_column(f"{results.headline} (n = {metrics['accuracy']['n']})", no_wrap=True)
    table.add_column("network", no_wrap=True)
    for name in baselines:
        table.add_column({"thumbnail": "8x8 thumbnails"}.get(name, name), justify="right")
    for name in SUMMARY:
        others = (number_text(column[name]) for column in baselines.values())
        table.add_row(HEADLINE[name], metric_text(metrics[name]), *others)
    for label, found in metrics["per_class"].items():
        for name in ("sensitivity", "specificity"):
            others = (number_text(column["per_class"][label][name]) for column in baselines.values())
            table.add_row(f"{label}: {name}", metric_text(found[name]), *others)
    console.heading("Result")
    console.show(table)
    if unleaked := results.without_leaked:
        names = ("accuracy", "balanced_accuracy", "roc_auc_macro")
        said = ", ".join(f"{HEADLINE[name]} {metric_text(unleaked[name])}" for name in names)
        console.say("leaked", f"without them, on {unleaked['accuracy']['n']} images: {said}")
    for text in warnings:
        console.warn(text)
    say_places(places)


def data_warnings(data: XrayDataModule, config: Config) -> list[str]:
    """Say what a reader must know of the data before the numbers."""
    warnings = leak_statement(data.manifest) + conflict_statement(data.duplicates, data.manifest)
    if config["folds"] and config["folds_by"] == "image":
        warnings.insert(0, _IMAGE_FOLDS)
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were used (data.limit)")
    return warnings + corrected_twice(data.sampler, config["loss"]["class_weights"])


def sources_of(data: XrayDataModule) -> str:
    """Name the sources that the images come from."""
    return ", ".join(sorted(data.manifest["source"].unique()))


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
    **provenance: Any,  # noqa: ANN401 (environment, command, pictures: handed on)
) -> RunFacts:
    """Put together what the report and the model card say.

    Args:
        trained: what they say it of.
        config: config of the run, plain.
        provenance: ``environment``, ``command`` and ``pictures`` of :class:`cxrnet.reporting.report.RunFacts`.
    """
    data, weights, phases, bundled = trained.data, trained.weights, trained.phases, trained.bundled
    backbone = config["model"]["backbone"]
    start = {
        "imagenet": "from ImageNet weights",
        "file": f"from the weights in {Path(weights.detail).name}",
        "random": "from scratch",
    }[weights.origin]
    names = ", then ".join(f"{phase.name} (trainable: {phase.trainable})" for phase in phases)
    rules = check_policy(config["operating_points"] or {}, bundled.bundle.classes)
    counts = {split: dict(zip(data.classes, data.counts(split), strict=True)) for split in SPLITS}
    patients = {split: data.rows(split)["patient_id"].nunique() or None for split in SPLITS}
    return RunFacts(
        title=f"{backbone} on {sources_of(data)}",
        summary=f"{backbone}, trained {start} on {len(data.rows('train'))} images of {len(data.classes)} classes. "
        f"Phases: {names}.",
        created=time.strftime("%Y-%m-%d %H:%M"),
        warnings=written_out(trained.warnings),
        known_issues=issues_of(data.known_issues),
        classes=data.classes,
        data={split: SplitFacts(counts[split], patients[split]) for split in SPLITS if len(data.rows(split))},
        results=trained.results,
        rule=rule_of(bundled.bundle),
        chosen_for={name: str(rule) if isinstance(rule, Rule) else "given" for name, rule in rules.items()},
        chosen=[*bundled.thresholds, *written_out([f"gate: {bundled.gate}"])],
        weighing=bundled.weighing,
        deferred_share=config["defer"],
        temperature=bundled.temperature,
        level=config["evaluation"]["level"],
        methods=methods_of(data, weights, phases, config),
        phases=phases,
        config_yaml=OmegaConf.to_yaml(config),
        **provenance,
    )


def methods_of(
    data: XrayDataModule, weights: LoadedWeights, phases: Sequence[PhaseResult], config: Config
) -> dict[str, str]:
    """Describe a run under the names of :attr:`cxrnet.reporting.report.RunFacts.methods`."""
    kept = next(phase for phase in phases if phase.kept)
    limit = f"at most {data.limit} images of each class in each split" if data.limit else "all images of the manifest"
    which = "the last epoch of phase {}, and {}" if kept.keep == "last" else "the epoch of phase {} with the best {}"
    score = f"{kept.kept_epoch}, {kept.kept_score:.4g}"
    if kept.fitted:
        which, score = "the head that phase {} fitted, and {}", f"{kept.kept_score:.4g}"
    by_gradient = [phase for phase in phases if not phase.fitted]
    split = _call(config["data"]["split"])
    if config.get("fold") is not None:
        fold, folds, by = config["fold"], config["folds"], config["folds_by"]
        split = (
            f"fold {fold} of {folds} is test, the next one validation, the others training "
            f"(fold_manifest(folds={folds}, fold={fold - 1}, by={by}, seed={config['seed']}))"
            f"{f'; {_IMAGE_FOLDS}' if by == 'image' else ''}"
        )
    return {
        "sources": sources_of(data),
        "preprocessing": f"grey, {data.size[0]} x {data.size[1]} pixels (resize: {data.resize}), normalised as the "
        "weights of the backbone want it",
        "selection": f"{limit}; {data.left_out} could not be read" if data.left_out else limit,
        "split": split,
        "level": _level(data.manifest),
        "characteristics": _characteristics(data.manifest),
        "initial weights": weights.detail if weights.pretrained else "random",
        "training": f"{_call(config['optimizer']) + '; ' if by_gradient else ''}{_call(config['loss'])}; "
        f"batches of {data.batch_size}, drawn by {data.sampler}; augmentation: {augmentation_text(config, phases)}; "
        f"{', then '.join(map(_phase, phases))}; seed {config['seed']}",
        "final model": f"{which.format(kept.name, kept.monitor)} on the validation images: {score}",
        "software": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    }


def _phase(phase: PhaseResult) -> str:
    """Say what a phase trained, and how."""
    decay = f", weight decay over all of them: {phase.decay:g}" if phase.decay else ""
    how = phase.fitted or f"learning rate: {phase.lr:g}, epochs: {phase.epochs}{decay}"
    return f"phase {phase.name} (trainable: {phase.trainable}, parameters: {phase.trained_parameters:,}, {how})"


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


def augmentation_text(config: Config, phases: Sequence[PhaseResult]) -> str:
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
