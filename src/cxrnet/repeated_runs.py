"""The runs over folds and seeds, one after the other; those that were finished before are not done again."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from cxrnet import console
from cxrnet.configuration import Config, flat, plain_config, read_config, write_config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.evaluation.prediction_files import read_predictions
from cxrnet.machine import machine_told
from cxrnet.models.bundle import load_bundle
from cxrnet.pooling import FinishedRepeat, pool
from cxrnet.repeats import Repeat, config_of, resplit_for
from cxrnet.resume import check_same_data
from cxrnet.run_facts import read_run_facts, write_facts_of_all
from cxrnet.single_run import Outcome, run_once
from cxrnet.stating import state_data
from cxrnet.tracking.record import RECORD, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.sync import sync, unsent_runs
from cxrnet.tracking.tracked import TrackedRun


def run_repeats(
    repeats: Sequence[Repeat],
    config: DictConfig,
    data: XrayDataModule,
    run: TrackedRun,
    folder: Path,
    name: str,
    command: Sequence[str],
    uri: str | None,
) -> Outcome:
    """Run each and put together what came.

    A run that was finished before, in a folder that is resumed, is not done again unless it has more to do now.

    Args:
        repeats: from :func:`check_repeats`.
        config: as composed.
        data: set up; its images serve all runs.
        run: the parent.
        folder: of the parent; each run gets a folder in it.
        name: of the parent in MLflow.
        command: of the parent, for the reports.
        uri: of MLflow; ``None`` for no tracking.

    Returns:
        The mean score, and the results on the pooled test predictions of the first seed.

    Raises:
        CxrnetError: one of the splits is not usable, which is told before anything is trained.
    """
    configs = [config_of(config, repeat) for repeat in repeats]
    parts = [resplit_for(data, repeat, plain) for repeat, plain in zip(repeats, configs, strict=True)]
    scores, done = [], []
    for repeat, plain, part in zip(repeats, configs, parts, strict=True):
        child = folder / repeat.name
        scores.append(_run_child(repeat, plain, part, run, child, name, command, uri))
        test = read_predictions(child / "predictions.parquet").query("split == 'test'")
        done.append(FinishedRepeat(repeat, part, test, load_bundle(child / "bundle")))
    plain = plain_config(config)
    del plain["resume"]
    write_facts_of_all(folder, [folder / repeat.name for repeat in repeats], command)
    results, warnings = pool(done, plain, run, folder, command)
    return Outcome(sum(scores) / len(scores), results, warnings)


def _run_child(
    repeat: Repeat,
    config: Config,
    data: XrayDataModule,
    parent: TrackedRun,
    folder: Path,
    name: str,
    command: Sequence[str],
    uri: str | None,
) -> float:
    """Train and evaluate one of the runs, or go on with it; return its score."""
    console.heading(repeat.name)
    if _is_done(folder, config):
        check_same_data(folder, data.manifest)
        console.say("done", "before this run was resumed")
        if any(unsent_runs(folder)):
            sync([folder])
        return _score(folder)
    resumed = (folder / RECORD).is_file()
    experiment, outputs, name = config["tracking"]["experiment"], Path(config["outputs"]), f"{name}_{repeat.name}"
    with (
        track(folder, uri, experiment, outputs, name, parent_run_id=parent.run_id, resume=resumed) as run,
        machine_told(),
    ):
        run.log_params(flat(config))
        run.log_artifact(write_config(folder, config))
        warnings = state_data(data, config, run, folder, resumed)
        return run_once(config, data, warnings, run, folder, command, resumed).score


def _is_done(folder: Path, config: Config) -> bool:
    """Whether a run was finished, and nothing that a resumption may change has given it more to do."""
    began = read_config(folder)
    if began is None or read_record(folder).get("status") != "FINISHED":
        return False
    return all(began.get(key) == config[key] for key in ("schedule", "operating_points", "refer", "evaluation"))


def _score(folder: Path) -> float:
    """The monitored metric of the weights that a finished run kept."""
    return float(next(phase["kept_score"] for phase in read_run_facts(folder)["phases"] if phase["kept"]))
