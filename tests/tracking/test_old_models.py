"""A bundle and an MLflow model of version 5e4d2e3 (bundle format 3, loader ``cxrnet.tracking.model``) still work.

``mlflow_model_5e4d2e3.zip`` is what that version logged: a custom_cnn with few weights that aren't 0, all random.
"""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.tracking.model import BundleModel

PROBABILITIES = [0.33942941895430995, 0.28527700445487997, 0.3752935765908102]
COLUMNS = ["predicted", "deferred", "prob_COVID", "prob_Lung Opacity", "prob_Normal"]


@pytest.fixture
def model(tmp_path):
    with zipfile.ZipFile(Path(__file__).parents[1] / "data_of_old_versions" / "mlflow_model_5e4d2e3.zip") as packed:
        packed.extractall(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def table():
    file = io.BytesIO()
    pixels = np.add.outer(3 * np.arange(40), 2 * np.arange(48)) % 256
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return pd.DataFrame({"image": [file.getvalue()]})


def check(answer):
    assert list(answer.columns) == COLUMNS
    assert answer.iloc[0, :2].tolist() == ["Normal", False]
    np.testing.assert_allclose(answer.iloc[0, 2:].astype(float), PROBABILITIES, atol=1e-6)


def test_an_old_bundle_predicts_what_it_predicted(model, table, caplog):
    check(BundleModel(model / "data" / "bundle").predict(table))
    assert "has format 3 and no digest" in caplog.text


def test_an_old_mlflow_model_predicts_what_it_predicted(model, table):
    import mlflow

    assert "loader_module: cxrnet.tracking.model" in (model / "MLmodel").read_text()
    check(mlflow.pyfunc.load_model(str(model)).predict(table))
