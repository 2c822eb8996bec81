"""One experiment from configuration to report: the order of the steps.

    data -> network and weights -> phases -> bundle -> predictions -> results -> report

Everything is written to the run's folder first and to MLflow second, so a server that is away loses nothing.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from hydra.utils import instantiate
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich import get_console

from cxrnet import console
from cxrnet.audit.statement import leak_statement
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.report import render_report, thumbnail_verdict
from cxrnet.inference import predict_images
from cxrnet.models.bundle import Bundle, device_of, load_bundle, save_bundle
from cxrnet.models.network import Network, NetworkConfig
from cxrnet.models.weights import LoadedWeights, load_weights
from cxrnet.provenance import package_versions
from cxrnet.results import Results, flat_metrics, write_results
from cxrnet.summary import (
    SPLITS,
    environment,
    report_facts,
    say_data,
    say_model,
    say_phase,
    say_results,
    sources_of,
)
from cxrnet.tracking.model import log_bundle
from cxrnet.tracking.run import TrackedRun, track
from cxrnet.tracking.store import tracking_uri
from cxrnet.training.baselines import baseline_predictions
from cxrnet.training.history import History
from cxrnet.training.phases import PhaseResult, run_phases
from cxrnet.training.progress import PhaseProgress
from cxrnet.training.schedule import Schedule, enabled_phases

Config = dict[str, Any]


def run_experiment(config: DictConfig, folder: Path, name: str, command: Sequence[str], in_sweep: bool) -> float:
    """Train, evaluate and report.

    Args:
        config: as composed from ``conf/train.yaml``.
        folder: of this run; refused if it holds a run already.
        name: of the run in MLflow.
        command: what the user typed, for the report.
        in_sweep: this is one of several jobs.

    Returns:
        The monitored validation metric of the kept weights, for sweepers. Never a test result: a sweep that sees
        the test set tunes on it.

    Raises:
        CxrnetError: a mistake in the configuration or the data.
    """
    if is_main_process() and (folder / "run.json").exists():
        raise CxrnetError(f"'{folder}' holds a run already; start again a second later or give hydra.run.dir=<folder>")
    get_console().quiet = not is_main_process()
    console.log_to(folder)
    plain: Config = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    if in_sweep:
        _begin_job(plain["trainer"], command)
    yaml = OmegaConf.to_yaml(config, resolve=True)
    tracking, outputs = plain["tracking"], Path(plain["outputs"])
    uri = tracking_uri(tracking["uri"], outputs) if tracking["enabled"] else None
    with track(folder, uri, tracking["experiment"], outputs, name=name) as run:
        run.log_params(_flat(plain))
        run.log_config(yaml)
        _check_seed(plain["seed"])
        pl.seed_everything(plain["seed"], workers=True, verbose=False)
        schedule: Schedule = instantiate(plain["schedule"], _convert_="object")
        data, warnings = _prepare_data(plain["data"], run, folder)
        network, weights = _prepare_network(plain["model"], data, run)
        phases, history = _train(network, data, weights, schedule, plain, run, folder)
        kept = next(phase for phase in phases if phase.kept)
        if not is_main_process():
            return kept.best_score
        predictions = _predict(_save(network, data, plain, folder), data, plain)
        headline = "test" if len(data.rows("test")) else "val"
        baselines = baseline_predictions(data, headline)
        results = write_results(folder, predictions, baselines, history.table(), kept.best_epoch, data.classes)
        if weights.fallback:
            warnings.insert(0, f"trained from scratch: {weights.detail}")
        facts = report_facts(
            data,
            weights,
            phases,
            results,
            warnings,
            plain,
            environment=environment(folder, plain, digest(data.manifest), run.run_id),
            command=shlex.join(command),
            config_yaml=yaml,
        )
        render_report(facts, folder / "report.html")
        _track_results(run, folder, data, results, kept)
    if verdict := thumbnail_verdict(results.metrics[headline], results.baselines["thumbnail"]):
        warnings.append(verdict)
    say_results(results, warnings, _places(folder, run, uri))
    return kept.best_score


def _begin_job(trainer: Config, command: Sequence[str]) -> None:
    """Say which job of a sweep begins."""
    if str(trainer.get("strategy", "")).startswith("ddp"):
        # Lightning starts the other processes with the command line of the whole sweep, and each would begin it anew.
        raise CxrnetError("trainer: a sweep can't train on several devices; give trainer=gpu, or start the jobs singly")
    console.heading(shlex.join(command))


def _check_seed(seed: object) -> None:
    if not isinstance(seed, int) or not 0 <= seed < 2**31:  # phases count on from it, and 2**32 is the end
        raise CxrnetError(f"seed: {seed} is no seed; give a whole number from 0 to 2147483647")


def is_main_process() -> bool:
    """Whether this process speaks for the run; the others of a distributed training only train."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _prepare_data(config: Config, run: TrackedRun, folder: Path) -> tuple[XrayDataModule, list[str]]:
    console.heading("Data")
    # `root` is there to be overridden in one short place; the source gets it by interpolation.
    data: XrayDataModule = instantiate({name: value for name, value in config.items() if name != "root"})
    with get_console().status("reading images"):
        data.setup()
    if not is_main_process():
        return data, []
    warnings = leak_statement(data.manifest)
    if data.left_out:
        warnings.append(f"{data.left_out} images could not be read and were left out (data.on_error=skip)")
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were used (data.limit)")
    say_data(data, warnings)
    write_manifest(data.manifest, folder / "manifest.parquet")
    counts = {split: dict(zip(data.classes, data.counts(split), strict=True)) for split in SPLITS}
    run.log_dataset(sources_of(data), digest(data.manifest), str(folder / "manifest.parquet"), counts, "training")
    return data, warnings


def _prepare_network(config: Config, data: XrayDataModule, run: TrackedRun) -> tuple[Network, LoadedWeights]:
    console.heading("Model")
    architecture = {name: value for name, value in config.items() if name != "weights"}
    network = Network(NetworkConfig.from_dict({**architecture, "classes": data.classes, "size": data.size}))
    weights = load_weights(network.backbone, config["backbone"], str(config["weights"]))
    say_model(network, weights)
    run.set_tags(
        {"weights.origin": weights.origin, "weights.detail": weights.detail, "weights.fallback": weights.fallback}
    )
    return network, weights


def _train(
    network: Network,
    data: XrayDataModule,
    weights: LoadedWeights,
    schedule: Schedule,
    config: Config,
    run: TrackedRun,
    folder: Path,
) -> tuple[list[PhaseResult], History]:
    console.heading("Training")
    phases, history = run_phases(
        network,
        data,
        enabled_phases(schedule, weights.pretrained),
        schedule,
        loss=instantiate(config["loss"])(data.counts("train")),
        optimizer=instantiate(config["optimizer"]),
        trainer=instantiate(config["trainer"]),
        folder=folder,
        seed=config["seed"],
        log_metrics=run.log_metrics,
        callbacks=lambda phase: [PhaseProgress(phase.name, phase.epochs)],
    )
    for phase in phases:
        say_phase(phase, schedule.monitor)
    return phases, history


def _save(network: Network, data: XrayDataModule, config: Config, folder: Path) -> Bundle:
    """Write the bundle and open it again: what is evaluated is what lies on disk."""
    bundle = Bundle(
        network=network,
        resize=data.resize,
        temperature=1.0,
        operating_points={},
        manifest_digest=digest(data.manifest),
        versions=package_versions(),
        training=config,
    )
    save_bundle(bundle, folder / "bundle")
    return load_bundle(folder / "bundle")


def _predict(bundle: Bundle, data: XrayDataModule, config: Config) -> pd.DataFrame:
    device = device_of("cpu" if config["trainer"]["accelerator"] == "cpu" else "auto")
    tables = []
    for split in ("val", "test"):
        if len(rows := data.rows(split)):
            logits = predict_images(bundle, data.arrays(split)[0], data.batch_size, device)
            tables.append(make_predictions(rows, data.classes, logits))
    return pd.concat(tables, ignore_index=True)


def _track_results(run: TrackedRun, folder: Path, data: XrayDataModule, results: Results, kept: PhaseResult) -> None:
    run.log_metrics(flat_metrics(results), kept.best_epoch)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".html", ".txt", ".json", ".csv", ".parquet") and path.name != "run.json":
            run.log_artifact(path)
    log_bundle(run, folder / "bundle", data.classes)


def _places(folder: Path, run: TrackedRun, uri: str | None) -> dict[str, str]:
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    places = {"report": str(shown / "report.html"), "bundle": str(shown / "bundle"), "everything": str(shown)}
    if uri is None:
        return {**places, "MLflow": "not tracked"}
    address = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else uri
    return {**places, "MLflow": f"run {run.run_id}", "MLflow UI": address}


def _flat(value: Any, name: str = "") -> Config:  # noqa: ANN401 (whatever YAML holds)
    """One level of dotted names; the parts of a list of phases are named by the phase."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and "name" in part for part in value):
        value = {part["name"]: part for part in value}
    if not isinstance(value, dict):
        return {name: value}
    return {
        key: leaf for part, inner in value.items() for key, leaf in _flat(inner, f"{name}.{part}".strip(".")).items()
    }
