"""One experiment from configuration to results: the order of the steps.

data -> one run, or one for each fold and seed -> what is said in the end
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich import get_console

from cxrnet import console
from cxrnet.audit.statement import leak_statement
from cxrnet.configuration import Config, flat, write_config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.evaluation.operating_points import check_operating_points
from cxrnet.models.losses import corrected_twice
from cxrnet.repeats import check_repeats, run_repeats
from cxrnet.resume import check_same_data
from cxrnet.single_run import run_once
from cxrnet.starting import check_config, is_main_process, start
from cxrnet.summary import SPLITS, say_data, say_results, sources_of
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.tracked import TrackedRun
from cxrnet.training.schedule import check_finetune


def run_experiment(config: DictConfig, folder: Path, name: str, command: Sequence[str], in_sweep: bool) -> float:
    """Train, evaluate and report.

    Args:
        config: as composed from ``conf/train.yaml``.
        folder: of this run; refused if it holds a run already, unless ``resume`` says that it goes on.
        name: of the run in MLflow.
        command: what makes this run from its beginning, for the report and for a resumption.
        in_sweep: this is one of several jobs.

    Returns:
        The monitored validation metric of the kept weights, for sweepers; over folds and seeds its mean. Never a test
        result: a sweep that sees the test set tunes on it.

    Raises:
        CxrnetError: a mistake in the configuration or the data.
    """
    plain, resumed = start(config, folder, command, in_sweep)
    tracking, outputs = plain["tracking"], Path(plain["outputs"])
    uri = tracking_uri(tracking["uri"], outputs) if tracking["enabled"] else None
    with track(folder, uri, tracking["experiment"], outputs, name, command, resume=resumed) as run:
        run.log_params(flat(plain))
        if is_main_process():
            run.log_artifact(write_config(folder, plain))
        check_config(plain)
        check_finetune(config["finetune"], config["schedule"])
        repeats = check_repeats(plain)
        data = _load_data(plain["data"])
        check_operating_points(plain["operating_points"], data.classes)
        if repeats:
            outcome = run_repeats(repeats, config, data, run, folder, name, command, uri)
        else:
            warnings = _warnings(data, plain)
            if is_main_process():
                _state_data(data, warnings, run, folder, resumed)
            outcome = run_once(plain, data, warnings, run, folder, command, resumed)
    if outcome.results is not None:
        say_results(outcome.results, outcome.warnings, _places(folder, run, uri))
    return outcome.score


def _load_data(config: Config) -> XrayDataModule:
    console.heading("Data")
    # `root` is there to be overridden in one short place; the source gets it by interpolation.
    data: XrayDataModule = instantiate({name: value for name, value in config.items() if name != "root"})
    with get_console().status("reading images"):
        data.setup()
    return data


def _warnings(data: XrayDataModule, config: Config) -> list[str]:
    warnings = leak_statement(data.manifest)
    if data.left_out:
        warnings.append(f"{data.left_out} images could not be read and were left out (data.on_error=skip)")
    if data.limit is not None:
        warnings.append(f"no more than {data.limit} images of each class in each split were used (data.limit)")
    return warnings + corrected_twice(data.sampler, config["loss"]["class_weights"])


def _state_data(data: XrayDataModule, warnings: Sequence[str], run: TrackedRun, folder: Path, resumed: bool) -> None:
    if resumed:
        check_same_data(folder, data.manifest)
    say_data(data, warnings)
    write_manifest(data.manifest, folder / "manifest.parquet")
    counts = {split: dict(zip(data.classes, data.counts(split), strict=True)) for split in SPLITS}
    run.log_dataset(sources_of(data), digest(data.manifest), str(folder / "manifest.parquet"), counts, "training")


def _places(folder: Path, run: TrackedRun, uri: str | None) -> dict[str, str]:
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    files = {"report": "report.html", "bundle": "bundle", "spread": "repeats.csv"}
    places = {label: str(shown / file) for label, file in files.items() if (folder / file).exists()}
    places["everything"] = str(shown)
    if uri is None:
        return {**places, "MLflow": "not tracked"}
    address = f"mlflow ui --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else uri
    return {**places, "MLflow": f"run {run.run_id}", "MLflow UI": address}
