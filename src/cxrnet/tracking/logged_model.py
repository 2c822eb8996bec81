"""A bundle logged as the model of a run, with the code that loads it and the requirements that pip can get."""

import importlib.metadata
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import cxrnet
from cxrnet.core.provenance import PACKAGES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

NAME = "bundle"
URI_TAG, DIGEST_TAG = "cxrnet.model_uri", "cxrnet.bundle_digest"
CODE = "code/cxrnet.zip"


def log_model(client: "MlflowClient", run_id: str, bundle: Path, classes: Sequence[str], defers: bool) -> None:
    """Log a bundle as the model ``bundle`` of a run; the tag ``cxrnet.model_uri`` has its address in MLflow.

    A model that was begun and not ended is ended; the same bundle is never logged twice.

    Args:
        client: of the store.
        run_id: of the run that made it.
        bundle: its folder.
        classes: in the order of the bundle.
        defers: whether it defers predictions.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run, digest = client.get_run(run_id), _digest(bundle)
    logged = _find_or_create(client, run, digest)
    if logged.status != LoggedModelStatus.READY:
        with TemporaryDirectory() as scratch:
            _save(Path(scratch) / "model", logged, run_id, bundle, classes, defers)
            if _digest(bundle) != digest:  # a run that goes on has put another one there; the next attempt takes that
                raise OSError(f"'{bundle}' has been written anew")
            client.log_model_artifacts(logged.model_id, f"{scratch}/model")
        client.finalize_logged_model(logged.model_id, "READY")
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    client.set_tag(run_id, URI_TAG, f"models:/{logged.model_id}")


def _find_or_create(client: "MlflowClient", run: "Run", digest: str) -> "LoggedModel":
    """Find the model of this bundle, else one whose logging was interrupted, or make a new one."""
    from mlflow.entities import LoggedModelStatus

    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    found = [
        each
        for each in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
        if each.name == NAME
    ]
    for each in found:
        if each.tags.get(DIGEST_TAG) == digest:
            return each
    for each in found:
        if each.status == LoggedModelStatus.PENDING:
            client.set_logged_model_tags(each.model_id, {DIGEST_TAG: digest})
            return each
    return client.create_logged_model(
        experiment_id, name=NAME, source_run_id=run_id, model_type="classifier", tags={DIGEST_TAG: digest}
    )


def _save(folder: Path, logged: "LoggedModel", run_id: str, bundle: Path, classes: Sequence[str], defers: bool) -> None:
    """Write what MLflow keeps: the bundle, the code as one file, the requirements."""
    import mlflow.pyfunc
    from mlflow.models import Model

    from cxrnet.tracking import model

    described = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_id=logged.model_id,
        model_uuid=logged.model_id,
        signature=model.signature(classes, defers),  # as an argument below, it brings a warning about an example
    )
    # mlflow.pyfunc.log_model does the same with the active run and tracking address of the whole process.
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=described,
        loader_module=model.__name__,
        data_path=str(bundle),
        pip_requirements=requirements(),  # MLflow would infer them by loading the model
    )
    # Two hundred small files would each be sent by itself; Python imports from one archive as well. MLflow puts this
    # entry before sys.path.
    _pack(folder / CODE)
    described.flavors["python_function"]["code"] = CODE
    described.save(str(folder / "MLmodel"))


def _pack(archive: Path) -> None:
    package = Path(cxrnet.__file__).parent
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(package.rglob("*.py")):
            packed.write(file, Path("cxrnet") / file.relative_to(package))


def requirements() -> list[str]:
    """List what pip has to install for the code: what cxrnet names, in the version at hand.

    A local label (``2.11.0+cpu``) is left out, as the public index has no such version. Where cxrnet runs without
    having been installed, it can't be asked, and the packages that decide a result are named.
    """
    try:
        required = importlib.metadata.requires("cxrnet") or []
    except importlib.metadata.PackageNotFoundError:
        required = [name for name in PACKAGES if name != "cxrnet"]
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _digest(bundle: Path) -> str:
    """Return the digest that ``bundle.json`` holds, of all that it says and of the weights."""
    return str(json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["digest"])
