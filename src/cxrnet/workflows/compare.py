"""Runs compared: the order of the steps.

runs -> names -> comparison -> files -> MLflow -> console
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from cxrnet.evaluation.comparison import Comparison, compare
from cxrnet.reporting.comparison import Seen, say_comparison, text_of, write_comparison
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
    with opened(uri, make=False) as client:
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
    with opened(uri, make=False) as client:
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
    comparison = _compare(runs, plain)
    facts = {name: run.facts for name, run in runs.items()}
    seen = {name: run.seen for name, run in runs.items() if run.seen is not None}
    # Beside the runs, where they are of one experiment.
    experiment = str(plain["mlflow_experiment"] or tracking["experiment"])
    with track(folder, uri, experiment, outputs, "comparison", command) as tracked, machine_told():
        with get_console().status("drawing"):
            files = write_comparison(comparison, facts, folder, seen)
        _tell(tracked, comparison, seen, runs, plain, list(files.values()))
    say_comparison(comparison, facts, seen)
    mlflow = f"run {tracked.run_id}" if tracked.run_id else "not tracked"
    say_places({"page": str(shown(folder) / PAGE), "everything": str(shown(folder)), "MLflow": mlflow})


def _check(config: Config) -> None:
    """Refuse what would be noticed late; :func:`compare` refuses the rest."""
    if not isinstance(config["metrics"], list) or not config["metrics"]:
        raise CxrnetError(f"metrics: '{config['metrics']}' is no list of figures; give metrics=[accuracy,brier]")
    if not isinstance(config["also"], list):
        raise CxrnetError(f"also: '{config['also']}' is no list of figures; give also=[ece,log_loss], or also=[]")
    if type(config["bins"]) is not int or config["bins"] < 1:
        raise CxrnetError(f"bins: {config['bins']} is no number of bins; give a whole number from 1 on")
    if config["resamples"] == 0:  # an evaluation can do without
        raise CxrnetError("resamples: the paired tests need the bootstrap; give a whole number from 100 on")


def _say_runs(runs: Mapping[str, FinishedRun]) -> None:
    for name, run in runs.items():
        console.say("run", f"{name}: {run.place}")
    if any(run.facts.get("split") == "val" for run in runs.values()):
        console.warn("no test images: these are validation images, on which each run chose its weights")


def _compare(runs: Mapping[str, FinishedRun], config: Config) -> Comparison:
    tables = {name: run.table for name, run in runs.items()}
    with get_console().status("comparing"):
        names = ("metrics", "by", "resamples", "seed", "level", "bins", "also")
        return compare(tables, **{name: config[name] for name in names})


def _tell(
    tracked: TrackedRun,
    comparison: Comparison,
    seen: Seen,
    runs: Mapping[str, FinishedRun],
    config: Config,
    files: Sequence[Path],
) -> None:
    """One MLflow run holds files, figures and p values, and each run that was compared points to it."""
    text = text_of(comparison, seen)
    ids = [run.run_id for run in runs.values() if run.run_id is not None]
    labels = labels_of(comparison.runs)
    tracked.log_params(flat(config) | {f"place.{rank}": run for rank, run in enumerate(comparison.runs, 1)})
    tracked.set_tags({"cxrnet.compares": ", ".join(ids), "cxrnet.best_run": comparison.runs[0]})
    # The description that MLflow's page of a run shows.
    tracked.set_tags({"mlflow.note.content": "\n\n".join([text.verdict, *text.warnings])})
    for metrics in (*_figures(comparison, labels), *_p_values(comparison, labels)):
        tracked.log_metrics(metrics, 0)
    for file in files:
        tracked.log_artifact(file)
    for run_id in ids:
        tracked.set_tags({"cxrnet.compared_in": tracked.run_id}, of=run_id)


def labels_of(runs: Sequence[str]) -> dict[str, str]:
    """A name for each run that MLflow takes in the name of a metric; those that would be the same get their place."""
    short = [re.sub(r"[^\w.\- ]", "_", run)[:LONGEST_LABEL] for run in runs]
    return {
        run: label if short.count(label) == 1 else f"{label} {place}"
        for place, (run, label) in enumerate(zip(runs, short, strict=True), 1)
    }


def _figures(comparison: Comparison, labels: Mapping[str, str]) -> Iterator[dict[str, float]]:
    """By run, its figures of the leaderboard with the ends of their intervals: ``accuracy/<run>``."""
    figures = comparison.figures[comparison.figures["metric"].isin(list(comparison.shown))]
    for run, rows in figures.groupby("run"):
        named = {
            f"{metric}{end}/{labels[str(run)]}": value
            for column, end in (("value", ""), ("low", "/ci_low"), ("high", "/ci_high"))
            for metric, value in zip(rows["metric"], rows[column], strict=True)
        }
        yield {name: value for name, value in named.items() if not isnan(value)}


def _p_values(comparison: Comparison, labels: Mapping[str, str]) -> Iterator[dict[str, float]]:
    """By metric, the p of each pair of runs, also after Holm's correction: ``p_holm/accuracy/<run> against <run>``."""
    for metric, tests in comparison.tests.groupby("metric"):
        pairs = [f"{labels[a]} against {labels[b]}" for a, b in zip(tests["a"], tests["b"], strict=True)]
        named = {
            f"{column}/{metric}/{pair}": value
            for column in ("p", "p_holm")
            for pair, value in zip(pairs, tests[column], strict=True)
        }
        yield {name: value for name, value in named.items() if not isnan(value)}
