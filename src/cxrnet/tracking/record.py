"""What is known of a run: ``run.json`` in its folder, who is at work there now, and what MLflow has of it."""

import json
import logging
import os
import posixpath
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from cxrnet.core.atomic import write_json
from cxrnet.errors import CxrnetError
from cxrnet.tracking.names import artifact_folder
from cxrnet.tracking.store import opened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger("cxrnet")

RECORD = "run.json"
_BESIDE = ("manifest.parquet", "predictions.parquet", "metrics.json", "model_card.json")
PRUNED, PRUNED_TAG = "PRUNED", "cxrnet.pruned"
"""Status in a record of a run that a search has stopped. MLflow has no such one: there it is FINISHED, with a tag."""


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a run; empty where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder: Path, record: Mapping[str, object]) -> None:
    """Write the record of a run, whole or not at all."""
    write_json(folder / RECORD, record)


def start_of(command: Sequence[str]) -> dict[str, object]:
    """Describe a start: when, by which command, and which process runs it."""
    return {"started": now(), "command": list(command), "process": os.getpid(), "host": socket.gethostname()}


def last_start(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the last start in a record: of the run, or of the last time it was resumed."""
    resumptions = record.get("resumptions", [])
    return resumptions[-1] if resumptions else record


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder.

    The operating system gives the lock back when a process dies, however it does. Where the file system has no locks,
    a warning says that the user has to see to it.

    Raises:
        CxrnetError: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        start = last_start(read_record(folder))
        who = f"process {start.get('process')} on {start.get('host')}" if start else "another process"
        raise CxrnetError(f"'{folder}': {who} is at work on this run; wait for its end, or end it") from error
    except (OSError, NotImplementedError) as error:
        log.warning(
            "'%s' can't be locked (%s): two commands at once would spoil the run, and nothing keeps them apart; don't "
            "resume it while it still runs",
            folder,
            error,
        )
    try:
        yield
    finally:
        lock.release()


def now() -> str:
    """Return the local time, with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def finished_runs(client: "MlflowClient", experiment: str) -> list[str]:
    """Return ids of the finished runs of an experiment, the oldest first, without pruned ones and parts of another one.

    Raises:
        CxrnetError: there is no such experiment.
    """
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage == "deleted":
        names = sorted(each.name for each in client.search_experiments())
        raise CxrnetError(f"mlflow_experiment: MLflow has no '{experiment}'; it has {', '.join(names)}")
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [found.experiment_id],
            "attributes.status = 'FINISHED'",
            order_by=["attributes.start_time"],
            page_token=token,
        )
        runs += page
        if not (token := page.token):
            break
    ids = {run.info.run_id for run in runs}
    whole = [run for run in runs if PRUNED_TAG not in run.data.tags]
    return [run.info.run_id for run in whole if run.data.tags.get("mlflow.parentRunId") not in ids]


def fetch_files(client: "MlflowClient", run_id: str, names: Sequence[str], folder: Path) -> None:
    """Copy files of a run into a folder; names that the run doesn't have are left out.

    They are looked for in the folders of their kinds, and at the top, where runs had them before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: (posixpath.join(artifact_folder(name), name), name) for name in names}
    folders = {None, *filter(None, map(artifact_folder, names))}
    there = {file.path for each in folders for file in client.list_artifacts(run_id, each)}
    for name, paths in wanted.items():
        if path := next(filter(there.__contains__, paths), None):
            file = Path(client.download_artifacts(run_id, path, str(folder)))
            if file != folder / name:
                file.rename(folder / name)


def fetch_run(uri: str, run_id: str, scratch: Path) -> Path:
    """Find the folder of a run, or get its bundle, manifest, predictions and card from MLflow.

    Args:
        uri: what :func:`cxrnet.tracking.store.tracking_uri` returned.
        run_id: MLflow's name of the run.
        scratch: an empty folder, for what has to be fetched.

    Returns:
        The run's own folder where it is on this machine still, else ``scratch``. ``bundle/`` is there; the other
        files as far as the run has logged them.

    Raises:
        CxrnetError: the store can't be read or has no such run, or the run has no bundle.
    """
    with opened(uri, make=False) as client:
        tags = client.get_run(run_id).data.tags
        folder = Path(tags.get("cxrnet.run_dir", ""))
        if read_record(folder).get("run_id") == run_id and (folder / "bundle").is_dir():
            return folder
        if "cxrnet.model_uri" not in tags:
            raise CxrnetError(f"bundle: MLflow run '{run_id}' has no bundle; give a run of cxrnet.train that finished")
        _fetch_bundle(client, tags["cxrnet.model_uri"], f"MLflow run '{run_id}'", scratch)
        fetch_files(client, run_id, _BESIDE, scratch)
    return scratch


def fetch_registered(uri: str, name: str, version: str | None, alias: str | None, scratch: Path) -> str | None:
    """Get the bundle of a registered model, and the files of its run, from MLflow.

    Args:
        uri: what :func:`cxrnet.tracking.store.tracking_uri` returned.
        name: of the model.
        version: its number; ``None`` where there is an alias.
        alias: of a version.
        scratch: an empty folder, which gets ``bundle/`` and the other files as far as the run has logged them.

    Returns:
        The id of the run that made it; ``None`` where MLflow doesn't know it.

    Raises:
        CxrnetError: the store can't be read, has no such model, or it is no bundle.
    """
    said = f"models:/{name}@{alias}" if alias else f"models:/{name}/{version}"
    with opened(uri, make=False) as client:
        from mlflow.exceptions import MlflowException

        try:
            if version is None:
                version = str(client.get_model_version_by_alias(name, str(alias)).version)
            found = client.get_model_version(name, version)
        except MlflowException as error:
            raise CxrnetError(f"bundle: MLflow has no registered model '{said}'; correct its name") from error
        _fetch_bundle(client, str(found.source), said, scratch)
        if found.run_id:
            fetch_files(client, found.run_id, _BESIDE, scratch)
        return found.run_id or None


def register_model(uri: str, run_id: str, name: str, alias: str) -> str:
    """Put the logged model of a run into the registry, once, and give that version an alias; return its number.

    Raises:
        CxrnetError: the store can't be read, the run has no model, or name or alias won't do.
    """
    with opened(uri, make=False) as client:
        from mlflow.exceptions import MlflowException

        address = client.get_run(run_id).data.tags.get("cxrnet.model_uri")
        if address is None:
            raise CxrnetError(f"register: MLflow run '{run_id}' has no model; give a run of cxrnet.train that finished")
        logged = client.get_logged_model(address.removeprefix("models:/"))
        source = logged.artifact_location  # by its address, MLflow looks in the tracking store of the whole process
        try:
            with suppress(MlflowException):  # it is there already; what else may be wrong is told below
                client.create_registered_model(name)
            there = [each for each in client.search_model_versions(f"name='{name}'") if each.source == source]
            version = str(
                (there or [client.create_model_version(name, source, run_id, model_id=logged.model_id)])[0].version
            )
            client.set_registered_model_alias(name, alias, version)
        except MlflowException as error:
            reason = str(error).partition("\n")[0]
            raise CxrnetError(f"register: '{name}@{alias}' won't do for MLflow ({reason}); give other names") from error
    return version


def _fetch_bundle(client: "MlflowClient", address: str, said: str, scratch: Path) -> None:
    from mlflow.artifacts import download_artifacts

    (scratch / "model").mkdir()
    # Asked for by models:/..., MLflow looks for the model in the tracking store of the whole process.
    logged = address.startswith("models:/m-")
    place = client.get_logged_model(address.removeprefix("models:/")).artifact_location if logged else address
    model = download_artifacts(artifact_uri=place, dst_path=str(scratch / "model"), tracking_uri=client.tracking_uri)
    file = next(Path(model).rglob("bundle.json"), None)
    if file is None:
        raise CxrnetError(f"bundle: the model of {said} is no bundle of cxrnet; give one that cxrnet.train made")
    file.parent.rename(scratch / "bundle")
