"""Compare runs: the order of the steps.

runs -> names -> comparison -> files -> MLflow -> console
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich import get_console

from cxrnet.cli.app import config_folder
from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.core import console
from cxrnet.core.config import Config, flat, plain_config
from cxrnet.core.machine import machine_told
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.comparison import ComparisonSettings, compare
from cxrnet.reporting.comparison import ComparedRuns, say_comparison, verdict, warnings_of, write_comparison
from cxrnet.tracking.read import fetch_files, finished_runs, run_name
from cxrnet.tracking.record import RECORD
from cxrnet.tracking.run import track
from cxrnet.tracking.store import opened, tracking_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.workflows.added_keys import check_added_keys
from cxrnet.workflows.finished_run import FILES, PREDICTIONS, FinishedRun, check_same_files, named, read_run

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
    places, experiment, sweep = config["runs"], config["mlflow_experiment"], config["sweep"]
    given = [
        key for key, value in (("runs", places), ("experiment", experiment), ("sweep", sweep)) if value is not None
    ]
    if len(given) != 1:
        what = "too much" if given else "nothing"
        raise CxrnetError(f"runs: {what} to compare; give one of runs=[...], experiment=<name> and sweep=<folder>")
    if not isinstance(places, list | None):
        raise CxrnetError(f"runs: '{places}' is no list; give runs=[<one>,<another>]")
    if places is not None:
        runs = [_of_place(str(place), uri) for place in places]
    else:
        runs = _of_folder(Path(str(sweep)), uri) if experiment is None else _of_experiment(str(experiment), uri)
    if len(runs) < 2:
        found = f"{len(runs)} run{'' if len(runs) == 1 else 's'} with predictions found"
        raise CxrnetError(f"{given[0]}: {found}; a comparison needs at least two, tested on the same images")
    return runs


def _of_folder(folder: Path, uri: str | None) -> list[FinishedRun]:
    """Read the runs in a folder, without their folds and seeds, which lie one floor deeper."""
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
    with opened(uri, make=False) as client:
        ids = finished_runs(client, experiment)
        runs = [run for run_id in ids if (run := _of_mlflow(client, run_id)) is not None]
    if lost := len(ids) - len(runs):
        console.say("left out", f"{lost} of {len(ids)} finished runs of '{experiment}', which have no predictions")
    return runs


def _of_place(place: str, uri: str | None) -> FinishedRun:
    """Read a run by its folder, its table or its id."""
    if Path(place).exists() or not RUN_ID.fullmatch(place):
        return read_run(Path(place), uri)
    if uri is None:
        raise CxrnetError(f"runs: '{place}' is a run id, and tracking=none knows of none; give the folder of the run")
    with opened(uri, make=False) as client:
        run = _of_mlflow(client, place)
    if run is None:
        raise CxrnetError(f"runs: the MLflow run '{place}' has no {PREDICTIONS}; give finished runs")
    return run


def _of_mlflow(client: "MlflowClient", run_id: str) -> FinishedRun | None:
    """Read a run from MLflow; ``None`` where it has no predictions."""
    with TemporaryDirectory() as scratch:
        fetch_files(client, run_id, FILES, Path(scratch))
        if not (Path(scratch) / PREDICTIONS).is_file():
            return None
        run = read_run(Path(scratch), None)
    return replace(run, name=run_name(client, run_id), place=f"MLflow run {run_id[:8]}", run_id=run_id)


PAGE = "comparison.html"
LONGEST_LABEL = 80  # two of them and a metric stand in a name, for which MLflow has 250 characters


def compare_runs(config: DictConfig, folder: Path, command: Sequence[str]) -> None:
    """Find runs, compare them, write what was found, and tell MLflow.

    Args:
        config: as composed from ``conf/compare.yaml``.
        folder: where everything is written; refused if it holds a comparison already.
        command: that is run.

    Raises:
        CxrnetError: a mistake in the configuration, or runs that can't be compared.
    """
    refuse_used(folder, PAGE, "a comparison")
    plain = plain_config(config)
    _check(plain)
    console.log_to(folder)
    check_added_keys(plain, config_folder(), "compare")
    outputs, tracking = Path(plain["outputs"]), plain["tracking"]
    uri = tracking_uri(tracking["uri"], outputs) if tracking["enabled"] else None
    console.heading("Runs")
    with get_console().status("reading runs"):
        runs = named(find_runs(plain, uri))
    _say_runs(runs)
    check_same_files(runs)
    compared = _compare(runs, plain)
    # Beside the runs, where they are of one experiment.
    experiment = str(plain["mlflow_experiment"] or tracking["experiment"])
    with track(folder, uri, experiment, outputs, "comparison", command) as tracked, machine_told():
        with get_console().status("drawing"):
            files = write_comparison(compared, folder)
        tracked.log_params(flat(plain) | {f"place.{rank}": run for rank, run in enumerate(compared.comparison.runs, 1)})
        _track(tracked, compared, [run.run_id for run in runs.values() if run.run_id is not None])
        for file in files:
            tracked.log_artifact(file)
    say_comparison(compared)
    mlflow = f"run {tracked.run_id}" if tracked.run_id else "not tracked"
    say_places({"page": str(shown(folder) / PAGE), "everything": str(shown(folder)), "MLflow": mlflow})


def _check(config: Config) -> None:
    """Refuse what would be noticed late; :func:`cxrnet.evaluation.comparison.compare` refuses the rest."""
    if not isinstance(config["metrics"], list) or not config["metrics"]:
        raise CxrnetError(f"metrics: '{config['metrics']}' is no list of metrics; give metrics=[accuracy,brier]")
    if not isinstance(config["also"], list):
        raise CxrnetError(f"also: '{config['also']}' is no list of metrics; give also=[ece,log_loss], or also=[]")
    if type(config["bins"]) is not int or config["bins"] < 1:
        raise CxrnetError(f"bins: {config['bins']} is no number of bins; give a whole number from 1 on")
    if config["resamples"] == 0:  # an evaluation can do without
        raise CxrnetError("resamples: the paired tests need the bootstrap; give a whole number from 100 on")


def _say_runs(runs: Mapping[str, FinishedRun]) -> None:
    for name, run in runs.items():
        console.say("run", f"{name}: {run.place}")
    if any(run.facts.get("split") == "val" for run in runs.values()):
        console.warn("no test images: these are validation images, on which each run chose its weights")


def _compare(runs: Mapping[str, FinishedRun], config: Config) -> ComparedRuns:
    settings = ComparisonSettings(**{field.name: config[field.name] for field in fields(ComparisonSettings)})
    with get_console().status("comparing"):
        comparison = compare({name: run.table for name, run in runs.items()}, settings)
    return ComparedRuns(
        comparison,
        {name: run.facts for name, run in runs.items()},
        {name: run.leaked for name, run in runs.items() if run.leaked is not None},
    )


def _track(tracked: TrackedRun, compared: ComparedRuns, ids: Sequence[str]) -> None:
    """Log metrics and p values, and point each run that was compared to the comparison.

    The metrics of the leaderboard have the ends of their intervals, ``accuracy/<run>``,
    ``accuracy/ci_low/<run>``; the p of each pair of runs is also corrected by Holm, ``p_holm/accuracy/<run> against
    <run>``.
    """
    comparison = compared.comparison
    tracked.set_tags({"cxrnet.compares": ", ".join(ids), "cxrnet.best_run": comparison.runs[0]})
    # The description that MLflow's page of a run shows.
    tracked.set_tags({"mlflow.note.content": "\n\n".join([verdict(compared), *warnings_of(compared)])})
    labels = labels_of(comparison.runs)
    metrics = comparison.metrics[comparison.metrics["metric"].isin(list(comparison.shown))]
    named = {
        f"{row['metric']}{end}/{labels[row['run']]}": row[column]
        for row in metrics.to_dict("records")
        for column, end in (("value", ""), ("low", "/ci_low"), ("high", "/ci_high"))
    }
    named |= {
        f"{p}/{test['metric']}/{labels[test['a']]} against {labels[test['b']]}": test[p]
        for test in comparison.tests.to_dict("records")
        for p in ("p", "p_holm")
    }
    tracked.log_metrics({name: value for name, value in named.items() if not isnan(value)}, 0)
    for run_id in ids:
        tracked.set_tags({"cxrnet.compared_in": tracked.run_id}, of=run_id)


def labels_of(runs: Sequence[str]) -> dict[str, str]:
    """Name each run as MLflow takes it in the name of a metric; the same names get their place."""
    short = [re.sub(r"[^\w.\- ]", "_", run)[:LONGEST_LABEL] for run in runs]
    return {
        run: label if short.count(label) == 1 else f"{label} {place}"
        for place, (run, label) in enumerate(zip(runs, short, strict=True), 1)
    }
