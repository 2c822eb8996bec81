"""Finished runs in MLflow, and their files."""

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.errors import CxrnetError
from cxrnet.tracking.names import artifact_folder
from cxrnet.tracking.record import read_record
from cxrnet.tracking.store import opened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def finished_runs(client: "MlflowClient", experiment: str) -> list[str]:
    """Return ids of the finished runs of an experiment, the oldest first; parts of one of them are left out.

    Raises:
        CxrnetError: there is no such experiment.
    """
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage == "deleted":
        names = sorted(each.name for each in client.search_experiments())
        raise CxrnetError(f"experiment: MLflow has no '{experiment}'; it has {', '.join(names)}")
    runs = _search(client, found.experiment_id)
    ids = {run.info.run_id for run in runs}
    return [run.info.run_id for run in runs if run.data.tags.get("mlflow.parentRunId") not in ids]


def _search(client: "MlflowClient", experiment_id: str) -> "list[Run]":
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], "attributes.status = 'FINISHED'", order_by=["attributes.start_time"], page_token=token
        )
        runs += page
        if not (token := page.token):
            return runs


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


def run_name(client: "MlflowClient", run_id: str) -> str:
    """Return the name of a run, as MLflow's pages show it."""
    return str(client.get_run(run_id).info.run_name)


FILES = ("manifest.parquet", "predictions.parquet", "model_card.json")


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
        (scratch / "model").mkdir()
        _download_bundle(client, tags["cxrnet.model_uri"], scratch)
        fetch_files(client, run_id, FILES, scratch)
    return scratch


def _download_bundle(client: "MlflowClient", model_uri: str, scratch: Path) -> None:
    from mlflow.artifacts import download_artifacts

    # Asked for by models:/..., MLflow looks for the model in the tracking store of the whole process.
    place = client.get_logged_model(model_uri.removeprefix("models:/")).artifact_location
    model = download_artifacts(artifact_uri=place, dst_path=str(scratch / "model"), tracking_uri=client.tracking_uri)
    next(Path(model).rglob("bundle.json")).parent.rename(scratch / "bundle")
