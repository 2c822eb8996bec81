"""Read a finished run for a comparison, from the run's folder or from a table of predictions."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas.api.types import is_bool_dtype

from cxrnet.core.config import Config, flat, read_config
from cxrnet.data.leaks import LEAKS_FROM, leaked_images
from cxrnet.data.manifest import digest, read_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import LEAKED, read_predictions
from cxrnet.reporting.wording import BASELINES
from cxrnet.tracking.names import WHERE
from cxrnet.tracking.record import read_record
from cxrnet.tracking.store import printable
from cxrnet.workflows.resume import COMMAND
from cxrnet.workflows.run_context import RUN_FACTS, read_run_facts
from cxrnet.workflows.sweep import job_names

PREDICTIONS, MANIFEST, METRICS = "predictions.parquet", "manifest.parquet", "metrics.json"
LONGEST_NAME = 50
FILES = (PREDICTIONS, MANIFEST, RUN_FACTS, METRICS, "config.yaml")
"""The files that a run is read from."""
NO_HASHES = pd.Series(dtype="string", index=pd.Index([], dtype="string"))


@dataclass(frozen=True)
class FinishedRun:
    """A run that left predictions.

    Attributes:
        name: that it has by itself: of its folder, its file or, in MLflow, its run.
        place: where it was found, as the user knows it.
        table: predictions, of ``test`` or, where there is none, of ``val``.
        facts: what is known of it, plain values, for the leaderboard.
        overrides: that it was started with, but for :data:`cxrnet.tracking.names.WHERE`; ``None`` where not known.
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


def read_run(place: Path, uri: str | None) -> FinishedRun:
    """Read a run folder, or a table of predictions, which any program may have written.

    Args:
        place: of the folder or the file.
        uri: of the MLflow at hand; ``None`` for none.

    Raises:
        CxrnetError: there are no predictions, or they can't be used.
    """
    folder, file = (place, place / PREDICTIONS) if place.is_dir() else (place.parent, place)
    if not file.is_file():
        lacks = f"has no {PREDICTIONS}" if place.is_dir() else "is neither a folder, a file nor an MLflow run id"
        raise CxrnetError(f"runs: '{place}' {lacks}; give folders of finished runs, tables of predictions or run ids")
    table = headline(read_predictions(file))
    split = {"split": ", ".join(table["split"].dropna().unique())} if table["split"].notna().any() else {}
    if file.name != PREDICTIONS:
        return FinishedRun(file.stem, str(place), table, dict(split), None, NO_HASHES, None, _leaked(None, table))
    manifest = read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    leaked, record = _leaked(manifest, table), read_record(folder)
    hashes = NO_HASHES if manifest is None else manifest.set_index("image_id")["sha256"].dropna()
    known = {
        "leaked images": None if leaked is None else len(leaked),
        "manifest digest": None if manifest is None else digest(manifest)[:12],
    }
    try:
        facts, overrides = _facts(folder) | split | _baselines(folder) | known, _overrides(folder)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CxrnetError(
            f"runs: '{folder}' holds a damaged {RUN_FACTS}, {METRICS} or config.yaml; copy it again, or give '{file}'"
        ) from error
    return FinishedRun(
        name=folder.resolve().name,
        place=str(place),
        table=table,
        facts={name: value for name, value in facts.items() if value is not None},
        overrides=overrides,
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


def named(runs: Sequence[FinishedRun]) -> dict[str, FinishedRun]:
    """Name runs by the overrides that not all of them have, else by their own names, else by their places.

    Raises:
        CxrnetError: a run is there twice.
    """
    times = Counter(run.run_id or str(Path(run.place).resolve()) for run in runs)
    if twice := [run for run, count in times.items() if count > 1]:
        raise CxrnetError(f"runs: '{twice[0]}' is given more than once; give each run once")
    started = [run.overrides for run in runs if run.overrides is not None]
    by_overrides = iter(job_names(started) if len(started) > 1 else [""] * len(started))
    names = []
    for run in runs:
        name = "" if run.overrides is None else next(by_overrides)
        # The number of a job tells nothing, and half a command line is no name.
        names.append(run.name if not name or name.startswith("job ") or len(name) > LONGEST_NAME else name)
    return {
        name if names.count(name) == 1 else f"{name} ({run.place})": run for name, run in zip(names, runs, strict=True)
    }


def check_same_files(runs: Mapping[str, FinishedRun]) -> None:
    """Check that images of the same name are the same images, as far as the runs' manifests tell.

    Raises:
        CxrnetError: they aren't.
    """
    known = [(name, run.hashes) for name, run in runs.items() if len(run.hashes)]
    for name, hashes in known[1:]:
        first, reference = known[0]
        shared = hashes.index.intersection(reference.index)
        different = shared[(hashes[shared] != reference[shared]).to_numpy(bool)]
        if len(different):
            raise CxrnetError(
                f"runs: '{name}' and '{first}' are tested on different data: {len(different)} of {len(shared)} images "
                f"have the same image_id and other files (as '{different[0]}'); compare runs on the same data"
            )


def _leaked(manifest: pd.DataFrame | None, table: pd.DataFrame) -> frozenset[str] | None:
    """Read it from the table, as that of several folds has it, else from the splits of the manifest."""
    if LEAKED in table and is_bool_dtype(table[LEAKED]):
        return frozenset(table["image_id"][table[LEAKED].fillna(False).astype(bool)])
    if manifest is None or manifest["split"].isna().all():
        return None
    splits = set(table["split"].dropna()) & set(LEAKS_FROM)
    leaked = {name for split in splits for name in leaked_images(manifest, split)}
    return frozenset(leaked.intersection(table["image_id"]))


def _overrides(folder: Path) -> list[str] | None:
    command = read_run_facts(folder).get("command") or read_record(folder).get("command", [])
    if tuple(command[: len(COMMAND)]) != COMMAND:
        return None
    return [word for word in map(str, command[len(COMMAND) :]) if not word.lstrip("+~").startswith(WHERE)]


def _facts(folder: Path) -> dict[str, object]:
    """Collect what the configuration and the facts of the run tell; the names are columns of the leaderboard."""
    config, facts = flat(read_config(folder) or {}), read_run_facts(folder)
    phases = facts.get("phases", [])
    return {
        "backbone": config.get("model.backbone"),
        "phases": ", ".join(dict.fromkeys(phase["name"] for phase in phases)) or None,
        "parameters": facts.get("parameters"),
        "trained parameters": max((phase["trained_parameters"] for phase in phases), default=None),
        "training seconds": sum(phase["seconds"] for phase in phases) if phases else None,
        "networks": len(facts["runs"]) if "runs" in facts else None,
        "weights": facts.get("weights", {}).get("origin"),
        **_repeated(config),
    }


def _baselines(folder: Path) -> dict[str, object]:
    """Read the balanced accuracy of the trivial baselines, beside which that of the run stands."""
    if not (folder / METRICS).is_file():
        return {}
    splits = json.loads((folder / METRICS).read_text(encoding="utf-8")).get("baselines", {})
    return {
        f"{title}: balanced accuracy": f"{metrics[name]['balanced_accuracy']['value']:.3f}"
        for metrics in splits.values()
        for name, title in BASELINES.items()
        if name in metrics and "value" in metrics[name].get("balanced_accuracy", {})
    }


def _repeated(config: Config) -> dict[str, object]:
    """Read seeds and folds: those of one of several runs, or of the table of all of them."""
    seed, seeds, folds = config.get("seed"), config.get("seeds"), config.get("folds")
    of_all = "fold" not in config  # the configuration of one of them has it
    if of_all and seeds:
        seed = seeds[0] if len(seeds) == 1 else f"{seeds[0]}, the first of {', '.join(map(str, seeds))}"
    if not folds:
        return {"seed": seed}
    part = "" if of_all else f"{config['fold']} of "
    return {"seed": seed, "folds": f"{part}{folds}, by {config['folds_by']}"}
