"""The runs that a comparison is about: in folders, in MLflow, or in tables of any program."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cxrnet import console
from cxrnet.configuration import Config
from cxrnet.errors import CxrnetError
from cxrnet.finished_run import FILES, PREDICTIONS, FinishedRun, read_run
from cxrnet.tracking.finished import fetch_files, finished_runs, reading, run_name
from cxrnet.tracking.record import RECORD

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_ID = re.compile(r"[0-9a-f]{32}")


def find_runs(config: Config, uri: str | None) -> list[FinishedRun]:
    """Find and read runs.

    Args:
        config: plain; one of ``runs``, ``mlflow_experiment`` and ``sweep`` says where to look.
        uri: of MLflow; ``None`` for none.

    Raises:
        CxrnetError: it isn't said where to look, fewer than two runs are there, or one can't be read.
    """
    ways: dict[str, tuple[str, Callable[[], list[FinishedRun]]]] = {
        "runs": ("runs", lambda: [_of_place(str(place), uri) for place in config["runs"]]),
        "mlflow_experiment": ("experiment", lambda: _of_experiment(str(config["mlflow_experiment"]), uri)),
        "sweep": ("sweep", lambda: _of_folder(Path(str(config["sweep"])), uri)),
    }
    given = [ways[name] for name in ways if config[name] is not None]
    if len(given) != 1:
        what = "too much" if given else "nothing"
        raise CxrnetError(f"runs: {what} to compare; give one of runs=[...], experiment=<name> and sweep=<folder>")
    if not isinstance(config["runs"], list | None):
        raise CxrnetError(f"runs: '{config['runs']}' is no list; give runs=[<one>,<another>]")
    key, find = given[0]
    runs = find()
    if len(runs) < 2:
        found = f"{len(runs)} run{'' if len(runs) == 1 else 's'} with predictions found"
        raise CxrnetError(f"{key}: {found}; a comparison needs at least two, tested on the same images")
    return runs


def _of_folder(folder: Path, uri: str | None) -> list[FinishedRun]:
    """The runs in a folder; those inside a run, its folds and seeds, lie one floor deeper."""
    if not folder.is_dir():
        raise CxrnetError(f"sweep: '{folder}' is not a folder; give the one that holds the jobs, outputs/sweeps/<time>")
    runs = []
    for place in sorted(folder.iterdir()):
        if (place / PREDICTIONS).is_file():
            runs.append(read_run(place, uri))
        elif (place / RECORD).is_file():
            console.say("left out", f"{place}, which has no predictions")
    return runs


def _of_experiment(experiment: str, uri: str | None) -> list[FinishedRun]:
    if uri is None:
        raise CxrnetError("experiment: tracking=none knows of no experiments; leave it out, or give run folders")
    with reading(uri) as client:
        ids = finished_runs(client, experiment)
        runs = [run for run_id in ids if (run := _of_mlflow(client, run_id)) is not None]
    if lost := len(ids) - len(runs):
        console.say("left out", f"{lost} of {len(ids)} finished runs of '{experiment}', which have no predictions")
    return runs


def _of_place(place: str, uri: str | None) -> FinishedRun:
    """A run by its folder, its table or its id."""
    if Path(place).exists() or not RUN_ID.fullmatch(place):
        return read_run(Path(place), uri)
    if uri is None:
        raise CxrnetError(f"runs: '{place}' is a run id, and tracking=none knows of none; give the folder of the run")
    with reading(uri) as client:
        run = _of_mlflow(client, place)
    if run is None:
        raise CxrnetError(f"runs: the MLflow run '{place}' has no {PREDICTIONS}; give finished runs")
    return run


def _of_mlflow(client: "MlflowClient", run_id: str) -> FinishedRun | None:
    """A run as MLflow knows it; None where it has no predictions."""
    with TemporaryDirectory() as scratch:
        fetch_files(client, run_id, FILES, Path(scratch))
        if not (Path(scratch) / PREDICTIONS).is_file():
            return None
        run = read_run(Path(scratch), None)
    return replace(run, name=run_name(client, run_id), place=f"MLflow run {run_id[:8]}", run_id=run_id)
