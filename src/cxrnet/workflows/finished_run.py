"""Finished runs: from a folder, from MLflow, or from a table of predictions, which any program may have written."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pandas as pd
from pandas.api.types import is_bool_dtype

from cxrnet.core import console
from cxrnet.core.config import Config, flat, read_config
from cxrnet.data.leaks import LEAKS_FROM, leaked_images
from cxrnet.data.manifest import digest, read_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import LEAKED, read_predictions
from cxrnet.reporting.wording import BASELINES
from cxrnet.tracking.names import says_where
from cxrnet.tracking.record import RECORD, fetch_files, finished_runs, read_record
from cxrnet.tracking.store import opened, printable
from cxrnet.workflows.resume import COMMAND
from cxrnet.workflows.run_context import RUN_FACTS, RUN_ID, read_run_facts

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREDICTIONS, _METRICS = "predictions.parquet", "metrics.json"
_FILES = (PREDICTIONS, "manifest.parquet", RUN_FACTS, _METRICS, "config.yaml")
"""The files that a run is read from."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that left predictions.

    Attributes:
        name: name that it has by itself: of its folder, its file or, in MLflow, its run.
        place: where it was found, as the user knows it.
        table: predictions, of ``test`` or, where there is none, of ``val``.
        facts: what is known of it, plain values, for the leaderboard.
        overrides: overrides of its command, without the folder that it writes to; ``None`` where not known.
        hashes: SHA-256 of the image files by ``image_id``, as far as they are known.
        run_id: in the MLflow at hand.
        leaked: ``image_id`` of the images of the table that were leaked into training: their patient, or a duplicate,
            is in train or, for test images, in train or val, over folds of the fold that tests them. ``None`` where
            neither the table nor a manifest tells.
    """

    name: str
    place: str
    table: pd.DataFrame
    facts: dict[str, object]
    overrides: list[str] | None
    hashes: "pd.Series[str]"
    run_id: str | None
    leaked: frozenset[str] | None


def find_runs(config: Config, uri: str | None) -> list[FinishedRun]:
    """Find and read the runs of a plain configuration, in folders and in the MLflow at an address, if there is one.

    Raises:
        CxrnetError: it isn't said where to look, fewer than two runs are there, or one can't be read.
    """
    given = {key: config[key] for key in ("runs", "mlflow_experiment", "sweep") if config[key] is not None}
    if len(given) != 1:
        what = "too much" if given else "nothing"
        raise CxrnetError(f"runs: {what} to compare; give one of runs=[...], mlflow_experiment=<name>, sweep=<folder>")
    ((key, places),) = given.items()
    if key == "runs" and not isinstance(places, list):
        raise CxrnetError(f"runs: '{places}' is no list; give runs=[<one>,<another>]")
    if key == "runs":
        runs = [_of_place(str(place), uri) for place in places]
    else:
        runs = _of_folder(Path(str(places)), uri) if key == "sweep" else _of_experiment(str(places), uri)
    if len(runs) < 2:
        found = f"{len(runs)} run{'' if len(runs) == 1 else 's'} with predictions found"
        raise CxrnetError(f"{key}: {found}; a comparison needs at least two, tested on the same images")
    return runs


def _of_folder(folder: Path, uri: str | None) -> list[FinishedRun]:
    """Read the runs in a folder, without their folds and seeds, which lie one floor deeper."""
    if not folder.is_dir():
        raise CxrnetError(f"sweep: '{folder}' is not a folder; give the one that holds the jobs, outputs/sweeps/<time>")
    runs = []
    for place in sorted(folder.iterdir()):
        if place.is_symlink() and place.resolve().parent == folder.resolve():  # the link to the best job
            continue
        if (place / PREDICTIONS).is_file():
            runs.append(read_run(place, uri))
        elif (place / RECORD).is_file():
            console.say("left out", f"{place}, which has no predictions")
    return runs


def _of_experiment(experiment: str, uri: str | None) -> list[FinishedRun]:
    if uri is None:
        raise CxrnetError("mlflow_experiment: tracking=none knows of none; leave it out, or give run folders")
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
        fetch_files(client, run_id, _FILES, Path(scratch))
        if not (Path(scratch) / PREDICTIONS).is_file():
            return None
        run = read_run(Path(scratch), None)
    name = str(client.get_run(run_id).info.run_name)
    return replace(run, name=name, place=f"MLflow run {run_id[:8]}", run_id=run_id)


def read_run(place: Path, uri: str | None) -> FinishedRun:
    """Read a run folder or a table of predictions; ``uri`` is that of the MLflow at hand.

    Raises:
        CxrnetError: there are no predictions, or they can't be used.
    """
    folder, file = (place, place / PREDICTIONS) if place.is_dir() else (place.parent, place)
    if not file.is_file():
        lacks = f"has no {PREDICTIONS}" if place.is_dir() else "is neither a folder, a file nor an MLflow run id"
        raise CxrnetError(f"runs: '{place}' {lacks}; give folders of finished runs, tables of predictions or run ids")
    table = headline(read_predictions(file))
    split = {"split": ", ".join(table["split"].dropna().unique())} if table["split"].notna().any() else {}
    hashes = pd.Series(dtype="string", index=pd.Index([], dtype="string"))
    if file.name != PREDICTIONS:
        return FinishedRun(file.stem, str(place), table, dict(split), None, hashes, None, _leaked(None, table))
    manifest = read_manifest(found) if (found := folder / "manifest.parquet").is_file() else None
    leaked, record = _leaked(manifest, table), read_record(folder)
    if manifest is not None:
        hashes = manifest.set_index("image_id")["sha256"].dropna()
    known = {
        "leaked images": None if leaked is None else len(leaked),
        "manifest digest": None if manifest is None else digest(manifest)[:12],
    }
    try:
        facts = _facts(folder) | split | _baselines(folder) | known
        command = read_run_facts(folder).get("command") or record.get("command", [])
        own = tuple(command[: len(COMMAND)]) == COMMAND
        words = [word for word in map(str, command[len(COMMAND) :]) if not says_where(word.lstrip("+~").split("=")[0])]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CxrnetError(
            f"runs: '{folder}' holds a damaged {RUN_FACTS}, {_METRICS} or config.yaml; copy it again, or give '{file}'"
        ) from error
    return FinishedRun(
        name=folder.resolve().name,
        place=str(place),
        table=table,
        facts={name: value for name, value in facts.items() if value is not None},
        overrides=words if own else None,
        hashes=hashes[hashes.index.isin(table["image_id"])],
        run_id=record.get("run_id") if uri and record.get("tracking_uri") == printable(uri) else None,
        leaked=leaked,
    )


def headline(predictions: pd.DataFrame) -> pd.DataFrame:
    """Take the rows that a result is stated on: of test, else of val; all where the table knows of neither."""
    for split in ("test", "val"):
        rows = predictions[(predictions["split"] == split).fillna(False).to_numpy(bool)]
        if len(rows):
            return rows
    return predictions


def _leaked(manifest: pd.DataFrame | None, table: pd.DataFrame) -> frozenset[str] | None:
    """Read it from the table, as that of several folds has it, else from the splits of the manifest."""
    if LEAKED in table and is_bool_dtype(table[LEAKED]):
        return frozenset(table["image_id"][table[LEAKED].fillna(False).astype(bool)])
    if manifest is None or manifest["split"].isna().all():
        return None
    splits = set(table["split"].dropna()) & set(LEAKS_FROM)
    leaked = {name for split in splits for name in leaked_images(manifest, split)}
    return frozenset(leaked.intersection(table["image_id"]))


def _facts(folder: Path) -> dict[str, object]:
    """Collect what the configuration and the facts of the run tell; the names are columns of the leaderboard."""
    config, facts = flat(read_config(folder) or {}), read_run_facts(folder)
    phases = facts.get("phases", [])
    seed, seeds, folds = config.get("seed"), config.get("seeds"), config.get("folds")
    of_all = "fold" not in config  # the configuration of one of several runs has it
    if of_all and seeds:
        seed = seeds[0] if len(seeds) == 1 else f"{seeds[0]}, the first of {', '.join(map(str, seeds))}"
    part = "" if of_all else f"{config['fold']} of "
    return {
        "backbone": config.get("model.backbone"),
        "phases": ", ".join(dict.fromkeys(phase["name"] for phase in phases)) or None,
        "parameters": facts.get("parameters"),
        "trained parameters": max((phase["trained_parameters"] for phase in phases), default=None),
        "training seconds": sum(phase["seconds"] for phase in phases) if phases else None,
        "networks": len(facts["runs"]) if "runs" in facts else None,
        "weights": facts.get("weights", {}).get("origin"),
        "seed": seed,
        "folds": f"{part}{folds}, by {config['folds_by']}" if folds else None,
    }


def _baselines(folder: Path) -> dict[str, object]:
    """Read the balanced accuracy of the trivial baselines, beside which that of the run stands."""
    if not (folder / _METRICS).is_file():
        return {}
    splits = json.loads((folder / _METRICS).read_text(encoding="utf-8")).get("baselines", {})
    return {
        f"{title}: balanced accuracy": f"{metrics[name]['balanced_accuracy']['value']:.3f}"
        for metrics in splits.values()
        for name, title in BASELINES.items()
        if name in metrics and "value" in metrics[name].get("balanced_accuracy", {})
    }
