"""A bundle as an MLflow model: no pickle, the loader is this module.

``mlflow.pyfunc.load_model("runs:/<run id>/bundle")`` gives a model whose ``predict`` takes a table with the column
``image`` (the bytes of an image file) and returns ``predicted`` and ``prob_<class>...``, and ``referred`` where the
bundle leaves calls to a reader.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pandas as pd

from cxrnet import __version__
from cxrnet.tracking.tracked import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

NAME = "bundle"


class BundleModel:
    """What MLflow calls: a bundle that takes and returns tables.

    Args:
        folder: the bundle.
    """

    def __init__(self, folder: Path) -> None:
        from cxrnet.inference import predictor
        from cxrnet.models.bundle import device_of, load_bundle

        self._bundle = load_bundle(folder)
        self._logits = predictor(self._bundle, batch_size=32, device=device_of("cpu"))

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """Classify images.

        Args:
            table: N rows; the column ``image`` holds the bytes of image files.
            params: of MLflow's interface; there are none.

        Returns:
            N rows with the same index: ``predicted`` (as the bundle's operating points and decision weights say),
            ``referred`` (left to a reader) where the bundle has a cut-off for that, and ``prob_<class>...`` in the
            order of the classes, at the mix of the training images.
        """
        from cxrnet.evaluation.operating_points import decide
        from cxrnet.inference import predict_bytes, rule_of

        classes = self._bundle.classes
        names = [f"row {row}" for row in table.index]
        probabilities = predict_bytes(self._bundle, self._logits, [bytes(image) for image in table["image"]], names)
        answer = pd.DataFrame(probabilities, columns=[f"prob_{name}" for name in classes], index=table.index)
        rule = rule_of(self._bundle)
        called = decide(probabilities, classes, rule.points, rule.weights)
        answer.insert(0, "predicted", [classes[index] for index in called])
        if rule.refer_below is not None:
            answer.insert(1, "referred", rule.certainty(probabilities, classes, called) < rule.refer_below)
        return answer


def _load_pyfunc(data_path: str) -> BundleModel:
    """Load the model; MLflow finds this function by its name."""
    return BundleModel(Path(data_path))


def signature(classes: Sequence[str], refers: bool) -> "ModelSignature":
    """Names and types of the columns that go in and come out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    calls = [ColSpec("string", "predicted"), *([ColSpec("boolean", "referred")] if refers else [])]
    probabilities = [ColSpec("double", f"prob_{name}") for name in classes]
    return ModelSignature(inputs=Schema([ColSpec("binary", "image")]), outputs=Schema([*calls, *probabilities]))


def log_bundle(run: TrackedRun, folder: Path, classes: Sequence[str], refers: bool = False) -> None:
    """Log a bundle as the model ``bundle`` of a run; the tag ``cxrnet.model_uri`` has its address in MLflow.

    Args:
        run: the run that made it.
        folder: the bundle; must stay in place until the run ends.
        classes: in the order of the bundle.
        refers: whether it leaves calls to a reader.
    """

    def call(client: "MlflowClient", run_id: str) -> None:
        import mlflow.pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        # mlflow.pyfunc.log_model does the same with the active run and tracking address of the whole process.
        experiment_id = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(experiment_id, name=NAME, source_run_id=run_id, model_type="classifier")
        with TemporaryDirectory() as scratch:
            mlflow.pyfunc.save_model(
                path=f"{scratch}/model",
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=run_id,
                    model_id=logged.model_id,
                    model_uuid=logged.model_id,
                    signature=signature(classes, refers),  # as an argument below, it brings a warning about an example
                ),
                loader_module=__name__,
                data_path=str(folder),
                pip_requirements=[f"cxrnet=={__version__}"],  # MLflow would infer them by loading the model
            )
            client.log_model_artifacts(logged.model_id, f"{scratch}/model")
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        client.set_tag(run_id, "cxrnet.model_uri", f"models:/{logged.model_id}")

    run.send("log the bundle", call)
