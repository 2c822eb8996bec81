"""A run that made a bundle, found by its name in MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.errors import CxrnetError
from cxrnet.tracking.finished import fetch_files, reading
from cxrnet.tracking.record import read_record

if TYPE_CHECKING:
    from mlflow import MlflowClient

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
