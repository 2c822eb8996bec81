"""What is said of a run: on the console while it goes on, in the report when it is done."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from cxrnet.cli.run_folder import say_places
from cxrnet.core import console
from cxrnet.core.provenance import git_revision, package_versions
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import SEEN_BEFORE, leaks, patients_text
from cxrnet.evaluation.catalogue import shown_in
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.over_runs import Moments, moments_of
from cxrnet.evaluation.threshold_selection import Rule, check_policy
from cxrnet.inference import rule_of
from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.models.network import Network, count_parameters
from cxrnet.reporting.report_data import DeferralFacts, PhaseFacts, PointFacts, RunFacts, SplitFacts
from cxrnet.reporting.results import Results
from cxrnet.reporting.sentences import USELESS, offset_text
from cxrnet.reporting.wording import HEADLINE, duration, metric_text, number_text
from cxrnet.training.phases import PhaseResult
from cxrnet.workflows.build import Bundled

IMAGE_FOLDS = (
    "the folds part IMAGES, NOT PATIENTS (folds_by=image): images of one patient and copies of one image may be in "
    "training and test, which flatters every figure; it shows what such a leak does and is no result"
)


def methods_of(
    data: XrayDataModule, weights: LoadedWeights, phases: Sequence[PhaseResult], config: Mapping[str, Any]
) -> dict[str, str]:
    """Describe a run under the names of :attr:`cxrnet.reporting.report_data.RunFacts.methods`."""
    schedule, kept = config["schedule"], next(phase for phase in phases if phase.kept)
    return {
        "sources": sources_of(data),
        "preprocessing": f"grey, {data.size[0]} x {data.size[1]} pixels (resize: {data.resize}), normalised as the "
        "weights of the backbone want it",
        "selection": _selection(data),
        "split": _split(config),
        "level": _level(data.manifest),
        "characteristics": _characteristics(data.manifest),
        "initial weights": weights.detail if weights.pretrained else "random",
        "training": f"{_call(config['optimizer'])}; {_call(config['loss'])}; batches of {data.batch_size}, drawn by "
        f"{data.sampler}; augmentation: {_augmentation(config, phases)}; {_phases(phases)}; seed {config['seed']}",
        "final model": f"{_choice(kept, schedule['monitor'])}: {kept.kept_epoch}, {kept.kept_score:.4g}",
        "software": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    }


def sources_of(data: XrayDataModule) -> str:
    """Names of the sources that the images come from."""
    return ", ".join(sorted(data.manifest["source"].unique()))


def faults_of(known: Mapping[str, Sequence[str]]) -> list[str]:
    """What is documented to be wrong with data, by source, as sentences.

    >>> faults_of({"north": ["patients are not known"]})
    ['north: patients are not known.']
    """
    return [f"{source}: {text}." for source, faults in known.items() for text in faults]


def _selection(data: XrayDataModule) -> str:
    limit = f"at most {data.limit} images of each class in each split" if data.limit else "all images of the manifest"
    return f"{limit}; {data.left_out} could not be read" if data.left_out else limit


def _split(config: Mapping[str, Any]) -> str:
    """How the images were split: as ``data.split`` says, or, of one run of a cross-validation, by its fold."""
    if config.get("fold") is None:
        return _call(config["data"]["split"])
    fold, folds, by = config["fold"], config["folds"], config["folds_by"]
    text = (
        f"fold {fold} of {folds} is test, the next one validation, the others training "
        f"(fold_manifest(folds={folds}, fold={fold - 1}, by={by}, seed={config['seed']}))"
    )
    return f"{text}; {IMAGE_FOLDS}" if by == "image" else text


def _level(manifest: pd.DataFrame) -> str:
    """At which level the splits are disjoint, as far as the data tell."""
    parts = []
    for split, leak in leaks(manifest).items():
        seen = " or ".join(SEEN_BEFORE[split])
        patients = f"{leak.same_patient} share a patient" if leak.patients_known else "patients are not known"
        if 0 < leak.patients_known < leak.images:
            patients += f" (not known of {leak.images - leak.patients_known})"
        parts.append(f"of {leak.images} {split} images, {leak.copies} have a copy in {seen} and {patients}")
    return "; ".join(parts)


def _characteristics(manifest: pd.DataFrame) -> str:
    """Sex, view and age of the images of each split, where the data have them."""
    parts = []
    for split in ("train", "val", "test"):
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


def _phases(phases: Sequence[PhaseResult]) -> str:
    parts = []
    for phase in phases:
        decay = f", weight decay over all of them: {phase.decay:g}" if phase.decay else ""
        parts.append(
            f"phase {phase.name} (trainable: {phase.trainable}, parameters: {phase.trained_parameters:,}, "
            f"learning rate: {phase.lr:g}, epochs: {phase.epochs}{decay})"
        )
    return ", then ".join(parts)


def _augmentation(config: Mapping[str, Any], phases: Sequence[PhaseResult]) -> str:
    """How training images were augmented, and in which phases not."""
    if not config["augment"]:
        return "none"
    frozen = [phase.name for phase in phases if phase.trainable == "head"] if config["schedule"]["views"] == 1 else []
    if len(frozen) == len(phases):
        return "none, as the head was trained on the images themselves (schedule.views=1)"
    left_out = f", but not in phase {', '.join(frozen)}, on the images themselves" if frozen else ""
    return f"{_call(config['augment'])}{left_out}"


def _choice(kept: PhaseResult, monitor: str) -> str:
    """Which epoch the final weights are from."""
    if kept.keep == "last":
        return f"the last epoch of phase {kept.name}, and {monitor} on the validation images"
    return f"the epoch of phase {kept.name} with the best {monitor} on the validation images"


def _call(node: Mapping[str, Any]) -> str:
    """Write a part of the configuration as a call: ``Adam(weight_decay=0.0)``."""
    if "_target_" not in node:
        return ", ".join(f"{name}={value}" for name, value in node.items())
    settings = ", ".join(f"{name}={value}" for name, value in node.items() if not name.startswith("_"))
    return f"{node['_target_'].rpartition('.')[2]}({settings})"


SPLITS = ("train", "val", "test")


def say_data(data: XrayDataModule, warnings: Sequence[str]) -> None:
    """What data."""
    console.say("images", f"{len(data.manifest)} from {sources_of(data)}, {data.size[0]} x {data.size[1]} pixels")
    for split in SPLITS:
        counts = ", ".join(f"{name} {n}" for name, n in zip(data.classes, data.counts(split), strict=True))
        console.say(split, f"{len(data.rows(split))} images: {counts}")
    if (n := len(data.rows("train"))) % data.batch_size == 1 and data.batch_size > 1:
        left_out = f"one of the {n} training images is left out, each time another: a last batch of one has no variance"
        console.say("every epoch", left_out)
    console.say("patients", patients_text(data.manifest))
    for text in warnings:
        console.warn(text)


def say_model(network: Network, weights: LoadedWeights) -> None:
    """What model, with which weights."""
    console.say("network", f"{network.config.backbone}, {count_parameters(network).total:,} parameters")
    if network.config.output == "sigmoid":
        console.say("output", f"one sigmoid: the probability of {network.config.classes[-1]}")
    console.say("weights", weights.detail if weights.pretrained else _why_random(weights))
    if weights.unused:
        console.say("not used", ", ".join(weights.unused))


def _why_random(weights: LoadedWeights) -> str:
    return "random, nothing is frozen" if weights.fallback else f"random: {weights.detail}"


def say_phase(result: PhaseResult, monitor: str) -> None:
    """What came of a phase."""
    cached = " on features computed once" if result.cached else ""
    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    kept = ", which is the result" if result.kept else ""
    console.say(
        result.name,
        f"{result.trained_parameters:,} parameters{cached}, {epochs} in {duration(result.seconds)}; "
        f"{result.keep} epoch {result.kept_epoch}, {monitor} {result.kept_score:.4f}{kept}",
    )


def say_results(results: Results, warnings: Sequence[str], places: Mapping[str, str]) -> None:
    """The result beside its trivial baselines, what is wrong with it, and where things are."""
    console.heading("Result")
    console.show(_result_table(results))
    if results.without_leaked:
        _say_unseen(results.without_leaked)
    for text in warnings:
        console.warn(text)
    say_places(places)


def _result_table(results: Results) -> Table:
    """The network with its intervals, the baselines beside it; 80 characters wide where class names allow."""
    metrics, baselines = results.metrics[results.headline], results.baselines
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), collapse_padding=True)
    table.add_column(f"{results.headline} (n = {metrics['accuracy']['n']})", no_wrap=True)
    table.add_column("network", no_wrap=True)
    for name in baselines:
        table.add_column({"thumbnail": "8x8 thumbnails"}.get(name, name), justify="right")
    for name in (spec.name for spec in shown_in("summary")):
        values = [column[name] for column in (metrics, *baselines.values())]
        table.add_row(HEADLINE[name], metric_text(values[0]), *map(number_text, values[1:]))
    for label, figures in metrics["per_class"].items():
        for name in ("sensitivity", "specificity"):
            others = (number_text(column["per_class"][label][name]) for column in baselines.values())
            table.add_row(f"{label}: {name}", metric_text(figures[name]), *others)
    return table


def _say_unseen(unseen: Evaluation) -> None:
    names = ("accuracy", "balanced_accuracy", "roc_auc_macro")
    metrics = ", ".join(f"{HEADLINE[name]} {metric_text(unseen[name])}" for name in names)
    console.say("leaked", f"without them, on {unseen['accuracy']['n']} images: {metrics}")


def say_bundled(bundled: Bundled) -> None:
    """What was chosen on the validation images."""
    temperature = bundled.temperature
    text = f"{temperature.value:.3g}" if temperature.reason is None else f"1: {temperature.reason}"
    if temperature.offset:  # the report has its numbers
        text = f"{text}, with an offset of each class"
    elif temperature.offset_reason:
        text = f"{text}; {offset_text(temperature, bundled.bundle.classes)}"
    console.say("temperature", f"{text}: {USELESS}" if temperature.useless else text)
    for text in bundled.weighing:
        console.say("costs", text)
    for text in bundled.sentences:
        console.say("threshold", text)
    if (cutoff := bundled.bundle.refer_below) is not None:
        certainty = rule_of(bundled.bundle).certainty_name
        console.say("deferral", f"predictions are deferred to a reader where their {certainty} is below {cutoff:.4g}")


def say_spread(spread: pd.DataFrame, pooled: pd.DataFrame | None, level: float) -> None:
    """The headline figures over the runs of a repetition: mean, standard deviation, smallest, largest.

    Over seeds, the interval of the mean too.

    Args:
        spread: one row a run, one column a figure.
        pooled: one row a seed, ``images`` and figures of all of its folds together; ``None`` where there are not both.
        level: of the interval.
    """
    console.heading("Over the runs")
    if pooled is None:
        console.show(_spread_table(spread, f"test, {len(spread)} runs", level))
        return
    console.show(_spread_table(pooled, f"{len(pooled)} seeds, n = {pooled['images'].max()}", level))
    console.show(_spread_table(spread, f"{len(spread)} folds, sd in a seed", level))


def _spread_table(spread: pd.DataFrame, title: str, level: float) -> Table:
    found = moments_of(spread, level)
    over_seeds = any(moments.interval for moments in found.values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), collapse_padding=True)
    table.add_column(title)
    for name in ("mean", "sd", "lowest", "highest", *([f"mean, {level:.0%} over seeds"] if over_seeds else [])):
        table.add_column(name, justify="right")
    for name, moments in found.items():
        values = (moments.mean, moments.sd, moments.lowest, moments.highest)
        cells = ["n/a" if value is None else f"{value:.3f}" for value in values]
        table.add_row(HEADLINE[name], *cells, *([_between(moments)] if over_seeds else []))
    return table


def _between(moments: Moments) -> str:
    return "n/a" if moments.interval is None else "{:.3f} to {:.3f}".format(*moments.interval)


def report_facts(
    data: XrayDataModule,
    weights: LoadedWeights,
    phases: Sequence[PhaseResult],
    bundled: Bundled,
    results: Results,
    warnings: Sequence[str],
    config: Mapping[str, Any],
    **provenance: Any,  # noqa: ANN401 (environment, command, config_yaml: handed on)
) -> RunFacts:
    """The facts of the report."""
    backbone = config["model"]["backbone"]
    start = {
        "imagenet": "from ImageNet weights",
        "file": f"from the weights in {Path(weights.detail).name}",
        "random": "from scratch",
    }[weights.origin]
    names = ", then ".join(f"{phase.name} (trainable: {phase.trainable})" for phase in phases)
    return RunFacts(
        title=f"{backbone} on {sources_of(data)}",
        summary=f"{backbone}, trained {start} on {len(data.rows('train'))} images of {len(data.classes)} classes. "
        f"Phases: {names}.",
        created=time.strftime("%Y-%m-%d %H:%M"),
        warnings=written_out(warnings),
        known_issues=faults_of(data.known_faults),
        classes=data.classes,
        data={split: _split_facts(data, split) for split in SPLITS if len(data.rows(split))},
        metrics=results.metrics,
        analyses=results.analyses,
        baselines=results.baselines,
        without_leaked=results.without_leaked,
        points=_points(bundled, config["operating_points"] or {}),
        chosen=bundled.sentences,
        weighing=bundled.weighing,
        deferral=_deferral(bundled, config["refer"]),
        temperature=bundled.temperature,
        level=config["evaluation"]["level"],
        methods=methods_of(data, weights, phases, config),
        phases=[_phase_facts(phase, config["schedule"]["monitor"]) for phase in phases],
        plots=results.plots,
        **provenance,
    )


def written_out(sentences: Sequence[str]) -> list[str]:
    """Sentences as a page has them, of those of the console."""
    return [f"{text[0].upper()}{text[1:]}." for text in sentences]


def environment(folder: Path, config: Mapping[str, Any], digest: str, run_id: str | None) -> dict[str, str]:
    """What it takes to reproduce a run."""
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


def _points(bundled: Bundled, policy: Mapping[str, Any]) -> dict[str, PointFacts]:
    rules = check_policy(policy, bundled.bundle.classes)
    chosen = {name: str(rule) if isinstance(rule, Rule) else "given" for name, rule in rules.items()}
    return {name: PointFacts(value, chosen[name]) for name, value in bundled.bundle.operating_points.items()}


def _deferral(bundled: Bundled, share: float) -> DeferralFacts | None:
    cutoff = bundled.bundle.refer_below
    return None if cutoff is None else DeferralFacts(cutoff, share, rule_of(bundled.bundle).certainty_name)


def _split_facts(data: XrayDataModule, split: str) -> SplitFacts:
    patients = data.rows(split)["patient_id"].nunique()
    return SplitFacts(dict(zip(data.classes, data.counts(split), strict=True)), patients or None)


def _phase_facts(phase: PhaseResult, monitor: str) -> PhaseFacts:
    return PhaseFacts(
        name=phase.name,
        trainable=phase.trainable,
        parameters=phase.trained_parameters,
        epochs=phase.epochs,
        keep=phase.keep,
        kept_epoch=phase.kept_epoch,
        monitor=monitor,
        value=phase.kept_score,
        seconds=phase.seconds,
        cached=phase.cached,
        kept=phase.kept,
    )
