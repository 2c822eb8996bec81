"""A bundle as an MLflow model, without pickle: MLflow loads it through this module.

``mlflow.pyfunc.load_model("runs:/<run id>/bundle")`` gives a model whose ``predict`` takes a table with the column
``image`` (the bytes of an image file) and returns ``predicted``, ``prob_<class>...``, ``turned_away`` (by the bundle's
gate), and ``deferred`` (deferred to a reader) where the bundle has a deferral threshold. It comes with the code that
loads it.
"""

import importlib.metadata
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import cxrnet
from cxrnet.core.machine import PACKAGES

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature

_NAME, _DIGEST_TAG, _CODE = "bundle", "cxrnet.bundle_digest", "code/cxrnet.zip"


class BundleModel:
    """A bundle that takes and returns tables, as MLflow calls it.

    Args:
        folder: the bundle.
    """

    def __init__(self, folder: Path) -> None:
        from cxrnet.inference import judge
        from cxrnet.models.bundle import device_of, load_bundle

        self._bundle = load_bundle(folder)
        self._judge = judge(self._bundle, batch_size=32, device=device_of("cpu"))

    def predict(self, table: "pd.DataFrame") -> "pd.DataFrame":
        """Classify images.

        Args:
            table: N rows; the column ``image`` holds the bytes of image files.

        Returns:
            N rows with the same index: ``predicted`` by the bundle's operating points and decision weights,
            ``prob_<class>...`` in the order of the classes, at the mix of the training images, and, where the bundle
            has a gate, ``turned_away``: whether the image isn't like those of the training; then they are empty.
        """
        import numpy as np
        import pandas as pd

        from cxrnet.evaluation.decision import decide
        from cxrnet.evaluation.predictions import softmax
        from cxrnet.inference import read_bytes, rule_of

        classes = self._bundle.classes
        names = [f"row {row}" for row in table.index]
        judged = self._judge(read_bytes(self._bundle, [bytes(image) for image in table["image"]], names))
        probabilities = softmax(judged.logits)
        rule = rule_of(self._bundle)
        predicted = decide(probabilities, classes, rule.points, rule.weights)
        answer = pd.DataFrame({"predicted": np.array(classes, object)[predicted]}, index=table.index)
        if rule.defer_below is not None:
            answer["deferred"] = rule.certainty(probabilities, classes, predicted) < rule.defer_below
        answer[[f"prob_{name}" for name in classes]] = probabilities
        if self._bundle.gate is None:
            return answer
        told = {name: answer[name].mask(judged.turned_away) for name in answer if name != "deferred"}
        return answer.assign(**told, turned_away=judged.turned_away)


def _load_pyfunc(data_path: str) -> BundleModel:
    """Load the model; MLflow finds this function by its name."""
    return BundleModel(Path(data_path))


def signature(classes: Sequence[str], defers: bool, gated: bool = False) -> "ModelSignature":
    """Return the names and types of the columns that go in and come out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    decisions = [ColSpec("string", "predicted"), *([ColSpec("boolean", "deferred")] if defers else [])]
    probabilities = [ColSpec("double", f"prob_{name}") for name in classes]
    gate = [ColSpec("boolean", "turned_away")] if gated else []
    outputs = Schema([*decisions, *probabilities, *gate])
    return ModelSignature(inputs=Schema([ColSpec("binary", "image")]), outputs=outputs)


def log_model(client: "MlflowClient", run_id: str, bundle: Path, classes: Sequence[str], defers: bool) -> None:
    """Log a bundle as the model ``bundle`` of a run; the tag ``cxrnet.model_uri`` has its address in MLflow.

    A model that was begun and not ended is ended; the same bundle is never logged twice.

    Args:
        client: client of the store.
        run_id: id of the run that made it.
        bundle: its folder.
        classes: in the order of the bundle.
        defers: whether it defers predictions.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run, digest = client.get_run(run_id), _digest(bundle)
    gated = "gate" in json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    logged = _find_or_create(client, run, digest)
    if logged.status != LoggedModelStatus.READY:
        with TemporaryDirectory() as scratch:
            _save(Path(scratch) / "model", logged, run_id, bundle, signature(classes, defers, gated))
            if _digest(bundle) != digest:  # a run that goes on has put another one there; the next attempt takes that
                raise OSError(f"'{bundle}' has been written anew")
            client.log_model_artifacts(logged.model_id, f"{scratch}/model")
        client.finalize_logged_model(logged.model_id, "READY")
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    client.set_tag(run_id, "cxrnet.model_uri", f"models:/{logged.model_id}")


def _digest(bundle: Path) -> str:
    """Return the digest that ``bundle.json`` holds, of all that it says and of the weights."""
    return str(json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["digest"])


def _find_or_create(client: "MlflowClient", run: "Run", digest: str) -> "LoggedModel":
    """Find the model of this bundle, else one whose logging was interrupted, or make a new one."""
    from mlflow.entities import LoggedModelStatus

    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    logged = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    found = [each for each in logged if each.name == _NAME]
    for each in found:
        if each.tags.get(_DIGEST_TAG) == digest:
            return each
    for each in found:
        if each.status == LoggedModelStatus.PENDING:
            client.set_logged_model_tags(each.model_id, {_DIGEST_TAG: digest})
            return each
    return client.create_logged_model(
        experiment_id, name=_NAME, source_run_id=run_id, model_type="classifier", tags={_DIGEST_TAG: digest}
    )


def _save(folder: Path, logged: "LoggedModel", run_id: str, bundle: Path, signed: "ModelSignature") -> None:
    """Write what MLflow keeps: the bundle, the code as one file, the requirements."""
    import mlflow.pyfunc
    from mlflow.models import Model

    described = Model(
        artifact_path=logged.artifact_location,
        run_id=run_id,
        model_id=logged.model_id,
        model_uuid=logged.model_id,
        signature=signed,  # as an argument below, it brings a warning about an example
    )
    # mlflow.pyfunc.log_model does the same with the active run and tracking address of the whole process.
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=described,
        loader_module=__name__,
        data_path=str(bundle),
        pip_requirements=_requirements(),  # MLflow would infer them by loading the model
    )
    # Two hundred small files would each be sent by itself; Python imports from one archive as well. MLflow puts this
    # entry before sys.path.
    package = Path(cxrnet.__file__).parent
    (folder / _CODE).parent.mkdir()
    with zipfile.ZipFile(folder / _CODE, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(package.rglob("*.py")):
            packed.write(file, Path("cxrnet") / file.relative_to(package))
    described.flavors["python_function"]["code"] = _CODE
    described.save(str(folder / "MLmodel"))


def _requirements() -> list[str]:
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
