"""``python -m cxrnet.train``, step by step: data, network, phases, bundle, predictions, metrics, report.

Everything is written to the run's folder first and to MLflow second, so a server that is away loses nothing.
"""

from collections.abc import Sequence
from dataclasses import replace

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import Callback
from rich import get_console

from cxrnet.cli.run_folder import places_of_run
from cxrnet.core import console
from cxrnet.core.config import Config
from cxrnet.core.process import is_main_process
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import leaked_images, write_conflicts
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.errors import Pruned
from cxrnet.evaluation.decision import Mix
from cxrnet.evaluation.threshold_selection import check_policy
from cxrnet.inference import mix_tags
from cxrnet.models.network import count_parameters
from cxrnet.reporting.model_card import make_card, write_card
from cxrnet.reporting.report import render_report, thumbnail_verdict
from cxrnet.reporting.results import write_results, write_trial
from cxrnet.reporting.run_page import run_page
from cxrnet.reporting.run_pictures import run_pictures
from cxrnet.reporting.training_run import (
    SPLITS,
    TrainedRun,
    augmentation_text,
    data_warnings,
    environment,
    report_facts,
    say_bundle,
    say_data,
    say_model,
    say_phase,
    say_result,
    say_views,
    sources_of,
)
from cxrnet.reporting.wording import command_text, gate_text
from cxrnet.training.baselines import baseline_predictions
from cxrnet.training.callbacks import PhaseProgress
from cxrnet.training.checkpoints import Progress, metrics_of, trained_so_far
from cxrnet.training.phases import run_phases
from cxrnet.training.schedule import Phase, PhaseResult
from cxrnet.training.trainer import Training
from cxrnet.workflows.build import (
    check_parts,
    make_bundle,
    make_data,
    make_network,
    make_training,
    predict_test,
)
from cxrnet.workflows.cross_validation import Outcome, train_parts
from cxrnet.workflows.maps import map_pictures
from cxrnet.workflows.resume import check_same_data
from cxrnet.workflows.run_context import RunContext, opened, write_run_facts
from cxrnet.workflows.trial import with_pruning

UNTESTED = (
    "The test images were left alone (test=false): the metrics are of the validation images, on which epochs and "
    "thresholds were chosen, and flatter the network."
)
LEFT_OUT = (
    "plots, intervals, baselines, report, model card and the bundle in MLflow are left out; the best trial gets them"
)


def train(begun: RunContext, parts: Sequence[Config]) -> float | str:
    """Train, evaluate and report.

    ``parts`` are the configurations of the runs over folds or seeds, none for a single run.

    Returns:
        The monitored validation metric of the kept weights, for sweepers; over folds and seeds its mean. Never a test
        result: a sweep that sees the test set tunes on it. Of a trial that a search has pruned: when.

    Raises:
        CxrnetError: a mistake in the configuration or the data.
    """
    processes = check_parts(begun.config, begun.folder, begun.command)
    try:
        with opened(replace(begun, processes=processes)) as run:
            console.heading("Data")
            data = make_data(run.config["data"])
            check_policy(run.config["operating_points"] or {}, data.classes)
            outcome = train_parts(run, parts, data, train_once) if parts else train_once(run, data)
    except Pruned as pruned:
        console.say("search", str(pruned))
        return str(pruned)
    if outcome.results is not None:
        say_result(outcome.results, outcome.warnings, places_of_run(run.folder, run.tracker.run_id, run.uri))
    return outcome.score


def train_once(run: RunContext, data: XrayDataModule) -> Outcome:
    """Train on data that are set up, evaluate and report."""
    run = replace(run, data_digest=digest(data.manifest))
    warnings = _log_data(run, data)
    pl.seed_everything(run.config["seed"], workers=True, verbose=False)
    console.heading("Model")
    network, weights = make_network(run.config["model"], data)
    say_model(network, weights)
    run.tracker.set_tags({f"weights.{name}": getattr(weights, name) for name in ("origin", "detail", "fallback")})
    if weights.fallback:
        warnings.insert(0, f"trained from scratch: {weights.detail}")

    console.heading("Training")
    training = _training(run, data, weights.pretrained)
    say_views(data, training.schedule.views, [phase.trainable for phase in training.phases])
    phases, history = run_phases(network, data, training, _trained_before(run))
    for phase in phases:
        say_phase(phase)
    kept = next(phase for phase in phases if phase.kept)
    _log_fitted(run, phases)
    if not is_main_process():
        return Outcome(kept.kept_score)

    with get_console().status("evaluating"):
        bundled = make_bundle(run, network, data, phases)
        if run.search is not None and not run.config["test"]:
            write_trial(run.folder, bundled.validation, history.table())
            write_run_facts(run, count_parameters(network).total, weights, phases)
            run.tracker.log_results(run.folder)
            console.say("trial", LEFT_OUT)
            return Outcome(kept.kept_score)
        tested, turned_away = predict_test(bundled.bundle, data, run.config)
        predictions = pd.concat([bundled.validation, *tested])
        bundled = replace(bundled, gate=gate_text(bundled.bundle.gate, turned_away, sum(map(len, tested))))
        if tested:
            run.tracker.log_metrics({"test/turned_away": turned_away / len(tested[0])}, 0)
        headline = "test" if (predictions["split"] == "test").any() else "val"
        results = write_results(
            run.folder,
            predictions.reset_index(drop=True),
            baseline_predictions(data, headline),
            data.classes,
            run.config["evaluation"],
            history.table(),
            kept.kept_epoch,
            bundled.temperature.value,
            leaked_images(data.manifest, headline),
            Mix(bundled.bundle.prior),
            bundled.bundle.temperature_offset,
            {phase.name: (phase.l2, phase.losses) for phase in phases if phase.losses},
        )
    say_bundle(bundled)
    write_run_facts(run, count_parameters(network).total, weights, phases)
    stated_on = predictions[predictions["split"] == headline]
    _report(run, TrainedRun(data, weights, phases, bundled, results, warnings), stated_on)
    verdict = thumbnail_verdict(results.metrics[headline], results.baselines["thumbnail"])
    warnings = [*warnings, verdict] if verdict else warnings
    run.tracker.log_page(**run_page(results, warnings, command_text(run.command)))
    return Outcome(kept.kept_score, results, warnings)


def _training(run: RunContext, data: XrayDataModule, pretrained: bool) -> Training:
    """Make the training of a run, which shows and logs its progress, and which a search may prune."""
    training = make_training(run.config, data, pretrained, run.folder)
    training = replace(training.with_callbacks(_progress), log_metrics=run.tracker.log_metrics)
    if run.search is not None and run.sweep is not None:
        return with_pruning(training, run.search, run.sweep, run.job or 0)
    return training


def _log_fitted(run: RunContext, phases: Sequence[PhaseResult]) -> None:
    """Log which heads were fitted at once, and the losses that their L2 was chosen by."""
    run.tracker.set_tags({f"fitted.{phase.name}": phase.fitted for phase in phases if phase.fitted})
    for phase in phases:
        for step, (strength, loss) in enumerate(phase.losses, 1):
            run.tracker.log_metrics({f"l2/{phase.name}": strength, f"l2/{phase.name}/log_loss": loss}, step)


def _report(run: RunContext, trained: TrainedRun, predictions: pd.DataFrame) -> None:
    """Write report and model card; log everything that lies in the folder.

    ``predictions`` are those of the split that the result is stated on.
    """
    bundle, number = trained.bundled.bundle, run.config["report"]["images"]
    augmentation = augmentation_text(run.config, trained.phases)
    overlays, maps = map_pictures(bundle.network, trained.data, predictions, number)
    facts = report_facts(
        trained,
        run.config,
        environment=environment(run.folder, run.config, run.data_digest, run.tracker.run_id),
        command=command_text(run.command),
        pictures=run_pictures(trained.data, predictions, number, augmentation, overlays, maps),
    )
    render_report(facts, run.folder / "report.html")
    write_card(make_card(facts), run.folder)
    run.tracker.set_tags(mix_tags(bundle, Mix(bundle.prior)))
    run.tracker.log_results(run.folder)
    run.tracker.log_bundle(run.folder / "bundle", bundle.classes, bundle.defer_below is not None)


def _progress(phase: Phase) -> list[Callback]:
    return [PhaseProgress(phase.name, phase.epochs)]


def _log_data(run: RunContext, data: XrayDataModule) -> list[str]:
    """Say what the data are, write and log their manifest; return what a reader must know of them."""
    warnings = data_warnings(data, run.config)
    if is_main_process():
        if run.resumed:
            check_same_data(run.folder, run.data_digest)
        say_data(data, warnings, run.processes)
        file = run.folder / "manifest.parquet"
        write_manifest(data.manifest, file)
        write_conflicts(data.duplicates, data.manifest, run.folder)
        counts = {split: dict(zip(data.classes, data.counts(split), strict=True)) for split in SPLITS}
        run.tracker.log_dataset(sources_of(data), run.data_digest, str(file), counts, "training")
    if not run.config["test"]:
        warnings = [*warnings, UNTESTED]
    return [*warnings, *data.notes]  # the console has these, from when the data were read


def _trained_before(run: RunContext) -> list[Progress]:
    """Read what a resumed run has trained; MLflow gets it again, as it may have been saved and not logged."""
    trained = trained_so_far(run.folder) if run.resumed else []
    if trained:
        epochs = len(trained[-1].rows)
        done = f"{epochs} epoch{' is' if epochs == 1 else 's are'} done"
        if trained[-1].batches:
            done += f", and {trained[-1].batches} batches of the next"
        console.say("resumed", f"in phase '{trained[-1].name}', {done}")
        for row in trained[-1].rows:
            run.tracker.log_metrics(metrics_of(row), row["epoch"])
    return trained
