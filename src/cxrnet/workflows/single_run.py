"""One run on data that are ready: from a network with its starting weights to results and a report.

    network and weights -> phases -> bundle -> predictions -> results -> report

Everything is written to the run's folder first and to MLflow second, so a server that is away loses nothing.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich import get_console

from cxrnet.core import console
from cxrnet.core.config import Config
from cxrnet.core.process import is_main_process
from cxrnet.data.conflicts import conflict_statement, write_conflicts
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import leak_statement, seen_before
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.evaluation.prior import Mix
from cxrnet.inference import mix_tags
from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.models.losses import corrected_twice
from cxrnet.models.network import Network
from cxrnet.reporting.model_card import make_card, write_card
from cxrnet.reporting.report import render_report, thumbnail_verdict
from cxrnet.reporting.results import Results, write_results
from cxrnet.reporting.run_page import run_page
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.training.baselines import baseline_predictions
from cxrnet.training.callbacks import PhaseProgress
from cxrnet.training.checkpoints import trained_so_far
from cxrnet.training.history import History, metrics_of
from cxrnet.training.phases import PhaseResult
from cxrnet.training.schedule import Schedule, enabled_phases
from cxrnet.workflows.build import make_bundle, make_network, predict_splits, train_network
from cxrnet.workflows.describe import (
    IMAGE_FOLDS,
    SPLITS,
    environment,
    report_facts,
    say_bundled,
    say_data,
    say_model,
    say_phase,
    sources_of,
)
from cxrnet.workflows.resume import check_same_data
from cxrnet.workflows.run_facts import write_run_facts


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        score: the monitored validation metric of the kept weights.
        results: the numbers; ``None`` in the processes of a distributed training that don't speak for it.
        warnings: what a reader must know before the numbers.
    """

    score: float
    results: Results | None
    warnings: list[str]


def run_once(
    config: Config,
    data: XrayDataModule,
    warnings: Sequence[str],
    run: TrackedRun,
    folder: Path,
    command: Sequence[str],
    resumed: bool,
) -> Outcome:
    """Train on data that are set up, evaluate and report.

    Args:
        config: plain.
        data: set up and split.
        warnings: about the data.
        run: that tracks it.
        folder: of the run.
        command: that makes it from the beginning, for the report.
        resumed: the folder's run goes on.
    """
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    schedule: Schedule = instantiate(config["schedule"], _convert_="object")
    console.heading("Model")
    network, weights = make_network(config["model"], data)
    say_model(network, weights)
    run.set_tags(
        {"weights.origin": weights.origin, "weights.detail": weights.detail, "weights.fallback": weights.fallback}
    )
    phases, history = _train(network, data, weights, schedule, config, run, folder, resumed)
    kept = next(phase for phase in phases if phase.kept)
    if not is_main_process():
        return Outcome(kept.kept_score, None, [])
    with get_console().status("evaluating"):
        bundled = make_bundle(network, data, config, folder / "bundle")
        headline = "test" if len(data.rows("test")) else "val"
        results = write_results(
            folder,
            predict_splits(bundled.bundle, data, config),
            baseline_predictions(data, headline),
            data.classes,
            config["evaluation"],
            history.table(),
            kept.kept_epoch,
            bundled.temperature.value,
            seen_before(data.manifest, headline),
            Mix(bundled.bundle.prior),
            bundled.bundle.temperature_offset,
        )
    say_bundled(bundled)
    run.set_tags(mix_tags(bundled.bundle, Mix(bundled.bundle.prior)))
    warnings = [f"trained from scratch: {weights.detail}", *warnings] if weights.fallback else list(warnings)
    provenance = {
        "environment": environment(folder, config, digest(data.manifest), run.run_id),
        "command": shlex.join(command),
        "config_yaml": OmegaConf.to_yaml(config),
    }
    facts = report_facts(data, weights, phases, bundled, results, warnings, config, **provenance)
    render_report(facts, folder / "report.html")
    write_card(make_card(facts), folder)
    write_run_facts(folder, network, weights, phases, command)
    if verdict := thumbnail_verdict(results.metrics[headline], results.baselines["thumbnail"]):
        warnings.append(verdict)
    run.log_page(**run_page(results, warnings, shlex.join(command)))
    run.log_results(folder)
    run.log_bundle(folder / "bundle", data.classes, bundled.bundle.refer_below is not None)
    return Outcome(kept.kept_score, results, warnings)


def _train(
    network: Network,
    data: XrayDataModule,
    weights: LoadedWeights,
    schedule: Schedule,
    config: Config,
    run: TrackedRun,
    folder: Path,
    resumed: bool,
) -> tuple[list[PhaseResult], History]:
    console.heading("Training")
    trained = trained_so_far(folder) if resumed else []
    if trained:
        rows = trained[-1].rows
        console.say("resumed", f"in phase '{trained[-1].name}', {len(rows)} epochs are done")
        for row in rows:  # the last may have been saved and not logged, or all while nothing was tracked
            run.log_metrics(metrics_of(row), row["epoch"])
    planned = enabled_phases(schedule, weights.pretrained)
    if data.augment is not None and schedule.views == 1 and any(phase.trainable == "head" for phase in planned):
        console.say(
            "augmentation", "not on the frozen backbone: its head trains on the images themselves (schedule.views=1)"
        )
    phases, history = train_network(
        network,
        data,
        planned,
        schedule,
        config,
        folder,
        callbacks=lambda phase: [PhaseProgress(phase.name, phase.epochs)],
        log_metrics=run.log_metrics,
        trained=trained,
    )
    for phase in phases:
        say_phase(phase, schedule.monitor)
    return phases, history


def state_data(data: XrayDataModule, config: Config, run: TrackedRun, folder: Path, resumed: bool) -> list[str]:
    """Say what the data are, write their manifest and log it.

    Args:
        data: set up and split.
        config: plain.
        run: that tracks it.
        folder: of the run.
        resumed: the folder's run goes on.

    Returns:
        What :func:`data_warnings` does, and what was said while the data were read.

    Raises:
        CxrnetError: the data of a resumed run have changed.
    """
    warnings = data_warnings(data, config)
    if is_main_process():
        if resumed:
            check_same_data(folder, data.manifest)
        say_data(data, warnings)
        file = folder / "manifest.parquet"
        write_manifest(data.manifest, file)
        write_conflicts(data.copies, data.manifest, folder)
        counts = {split: dict(zip(data.classes, data.counts(split), strict=True)) for split in SPLITS}
        run.log_dataset(sources_of(data), digest(data.manifest), str(file), counts, "training")
    return [*warnings, *data.notes]  # the console has them, from when the data were read


def data_warnings(data: XrayDataModule, config: Config) -> list[str]:
    """What a reader must know of the data before the numbers, in sentences."""
    warnings = leak_statement(data.manifest) + conflict_statement(data.copies, data.manifest)
    if config["folds"] and config["folds_by"] == "image":
        warnings.insert(0, IMAGE_FOLDS)
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were used (data.limit)")
    return warnings + corrected_twice(data.sampler, config["loss"]["class_weights"])
