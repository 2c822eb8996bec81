"""What is said of a run: on the console while it goes on, in the report when it is done."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from cxrnet import console
from cxrnet.audit.statement import patients_text
from cxrnet.bundling import Bundled
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.evaluation.facts import BandFacts, PhaseFacts, PointFacts, RunFacts, SplitFacts
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.policies import Rule, check_policy
from cxrnet.evaluation.spread import Moments, moments_of
from cxrnet.evaluation.temperature import USELESS
from cxrnet.evaluation.wording import HEADLINE, duration, figure_text, number_text
from cxrnet.inference import rule_of
from cxrnet.methods import faults_of, methods_of, sources_of
from cxrnet.models.network import Network, count_parameters
from cxrnet.models.weights import LoadedWeights
from cxrnet.output_folder import say_places
from cxrnet.provenance import git_revision, package_versions
from cxrnet.results import Results
from cxrnet.training.phases import PhaseResult

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
    if results.unseen:
        _say_unseen(results.unseen)
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
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc_macro"):
        values = [column[name] for column in (metrics, *baselines.values())]  # type: ignore[literal-required]
        table.add_row(HEADLINE[name], figure_text(values[0]), *map(number_text, values[1:]))
    for label, figures in metrics["per_class"].items():
        for name in ("sensitivity", "specificity"):
            others = (number_text(column["per_class"][label][name]) for column in baselines.values())
            table.add_row(f"{label}: {name}", figure_text(figures[name]), *others)
    return table


def _say_unseen(unseen: Evaluation) -> None:
    names = ("accuracy", "balanced_accuracy", "roc_auc_macro")
    figures = ", ".join(f"{HEADLINE[name]} {figure_text(unseen[name])}" for name in names)  # type: ignore[literal-required]
    console.say("unseen", f"the {unseen['accuracy']['n']} images of which neither copy nor patient was seen: {figures}")


def say_bundled(bundled: Bundled) -> None:
    """What was chosen on the validation images."""
    temperature = bundled.temperature
    text = f"{temperature.value:.3g}" if temperature.reason is None else f"1: {temperature.reason}"
    if temperature.offset:  # the report has its numbers
        text = f"{text}, with an offset of each class"
    elif temperature.offset_reason:
        text = f"{text}; {temperature.offset_text(bundled.bundle.classes)}"
    console.say("temperature", f"{text}: {USELESS}" if temperature.useless else text)
    for text in bundled.weighing:
        console.say("costs", text)
    for text in bundled.sentences:
        console.say("threshold", text)
    if (cutoff := bundled.bundle.refer_below) is not None:
        certainty = rule_of(bundled.bundle).certainty_name
        console.say("referral", f"calls are left to a reader where their {certainty} is below {cutoff:.4g}")


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
        known_faults=faults_of(data.known_faults),
        classes=data.classes,
        data={split: _split_facts(data, split) for split in SPLITS if len(data.rows(split))},
        metrics=results.metrics,
        analyses=results.analyses,
        baselines=results.baselines,
        unseen=results.unseen,
        points=_points(bundled, config["operating_points"] or {}),
        chosen=bundled.sentences,
        weighing=bundled.weighing,
        band=_band(bundled, config["refer"]),
        temperature=bundled.temperature,
        level=config["evaluation"]["level"],
        methods=methods_of(data, weights, phases, config),
        phases=[_phase_facts(phase, config["schedule"]["monitor"]) for phase in phases],
        figures=results.figures,
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


def _band(bundled: Bundled, share: float) -> BandFacts | None:
    cutoff = bundled.bundle.refer_below
    return None if cutoff is None else BandFacts(cutoff, share, rule_of(bundled.bundle).certainty_name)


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
