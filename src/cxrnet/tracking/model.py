"""A bundle as an MLflow model: no pickle; MLflow loads it through this module.

``mlflow.pyfunc.load_model("runs:/<run id>/bundle")`` gives a model whose ``predict`` takes a table with the column
``image`` (the bytes of an image file) and returns ``predicted`` and ``prob_<class>...``, and ``deferred`` (deferred to
a reader) where the bundle has a deferral threshold.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


class BundleModel:
    """A bundle that takes and returns tables, as MLflow calls it.

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

        Returns:
            N rows with the same index: ``predicted`` (as the bundle's operating points and decision weights say),
            ``deferred`` where the bundle has a deferral threshold, and ``prob_<class>...`` in the
            order of the classes, at the mix of the training images.
        """
        from cxrnet.evaluation.operating_points import decide
        from cxrnet.inference import predict_bytes, rule_of

        classes = self._bundle.classes
        names = [f"row {row}" for row in table.index]
        probabilities = predict_bytes(self._bundle, self._logits, [bytes(image) for image in table["image"]], names)
        answer = pd.DataFrame(probabilities, columns=[f"prob_{name}" for name in classes], index=table.index)
        rule = rule_of(self._bundle)
        predicted = decide(probabilities, classes, rule.points, rule.weights)
        answer.insert(0, "predicted", [classes[index] for index in predicted])
        if rule.defer_below is not None:
            answer.insert(1, "deferred", rule.certainty(probabilities, classes, predicted) < rule.defer_below)
        return answer


def _load_pyfunc(data_path: str) -> BundleModel:
    """Load the model; MLflow finds this function by its name."""
    return BundleModel(Path(data_path))


def signature(classes: Sequence[str], defers: bool) -> "ModelSignature":
    """Return the names and types of the columns that go in and come out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    decisions = [ColSpec("string", "predicted"), *([ColSpec("boolean", "deferred")] if defers else [])]
    probabilities = [ColSpec("double", f"prob_{name}") for name in classes]
    return ModelSignature(inputs=Schema([ColSpec("binary", "image")]), outputs=Schema([*decisions, *probabilities]))
