"""Finished runs in MLflow, and their files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.errors import CxrnetError
from cxrnet.tracking.moved import mend_places
from cxrnet.tracking.record import read_record
from cxrnet.tracking.store import SQLITE, answers, prepare_mlflow, printable, quiet, without_secret

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@contextmanager
def reading(uri: str) -> Iterator["MlflowClient"]:
    """Open a store to read from it; nothing is made, but what a moved folder has left wrong is mended.

    Args:
        uri: what :func:`cxrnet.tracking.store.tracking_uri` returned.

    Raises:
        CxrnetError: there is no such store, or it can't be read.
    """
    prepare_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    there = Path(uri.removeprefix(SQLITE)).is_file() if uri.startswith(SQLITE) else answers(uri)
    if not there:
        raise CxrnetError(
            f"tracking: there is no MLflow at '{printable(uri)}'; correct tracking.uri or outputs, or give folders"
        )
    try:
        with quiet():
            if uri.startswith(SQLITE):
                mend_places(Path(uri.removeprefix(SQLITE)))
            yield MlflowClient(uri)
    except (MlflowException, SQLAlchemyError) as error:
        reason = without_secret(str(error).splitlines()[0], uri)
        raise CxrnetError(f"tracking: MLflow at '{printable(uri)}' cannot be read: {reason}") from error


def finished_runs(client: "MlflowClient", experiment: str) -> list[str]:
    """Ids of the finished runs of an experiment, the oldest first; parts of one of them are left out.

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
    """Copy files of a run, of those at the top of its artifacts; names that it doesn't have are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    there = {file.path for file in client.list_artifacts(run_id)}
    for name in names:
        if name in there:
            client.download_artifacts(run_id, name, str(folder))


def run_name(client: "MlflowClient", run_id: str) -> str:
    """The name of a run, as MLflow's pages show it."""
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
    with reading(uri) as client:
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
