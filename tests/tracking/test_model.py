"""A bundle through MLflow and back."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrnet.inference import predict_bytes, predictor
from cxrnet.models.bundle import Bundle, save_bundle
from cxrnet.models.network import Network, NetworkConfig
from cxrnet.tracking.model import BundleModel, signature
from cxrnet.tracking.run import track

CLASSES = ("Covid", "Lung Opacity", "Normal")


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    half = (0.5,) * 3
    config = NetworkConfig(
        "custom_cnn", CLASSES, (64, 64), half, half, "average", None, (), "relu", False, 0.0, 0.0, "softmax"
    )
    bundle = Bundle(Network(config).eval(), "stretch", 1.0, {}, "0" * 64, {}, {})
    save_bundle(bundle, tmp_path / "bundle")
    return bundle


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_mlflow_loads_the_bundle_by_model_and_by_run(
    bundle, uri, outputs, client, tmp_path, capfd, recwarn, monkeypatch
):
    import mlflow

    with track(tmp_path / "run", uri, "models", outputs) as run:
        run.log_bundle(tmp_path / "bundle", CLASSES)
    assert run.unsent == 0
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr() == ("", "")
    stored = client.get_run(run.run_id)
    address = stored.data.tags["cxrnet.model_uri"]
    model_id = address.removeprefix("models:/")
    assert client.get_logged_model(model_id).status == "READY"
    assert [output.model_id for output in stored.outputs.model_outputs] == [model_id]

    files = [png(seed) for seed in range(3)]
    expected = predict_bytes(bundle, predictor(bundle, 32, torch.device("cpu")), files, ["a", "b", "c"])
    table = pd.DataFrame({"image": files}, index=[7, 8, 9])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # mlflow.set_tracking_uri would leave it to the tests that follow
    for place in (address, f"runs:/{run.run_id}/bundle"):
        model = mlflow.pyfunc.load_model(place)
        answer = model.predict(table)
        assert list(answer.columns) == ["predicted", "prob_Covid", "prob_Lung Opacity", "prob_Normal"]
        assert list(answer.index) == [7, 8, 9]
        np.testing.assert_allclose(answer.iloc[:, 1:].to_numpy(), expected, atol=1e-6)
        assert list(answer["predicted"]) == [CLASSES[best] for best in expected.argmax(axis=1)]
    assert model.metadata.signature.inputs.input_names() == ["image"]
    assert model.metadata.signature.outputs.input_names() == list(answer.columns)
    place = Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://").replace("%20", " "))
    kept = {file.name for file in place.rglob("*")}
    assert {"MLmodel", "model.safetensors", "bundle.json"} <= kept
    assert not [name for name in kept if name.endswith(("pkl", "pickle"))]


def test_calls_that_are_left_to_a_reader_are_marked(bundle, tmp_path):
    files = [png(seed) for seed in range(3)]
    highest = predict_bytes(bundle, predictor(bundle, 32, torch.device("cpu")), files, ["a", "b", "c"]).max(axis=1)
    cutoff = float(np.sort(highest)[:2].mean())
    save_bundle(dataclasses.replace(bundle, refer_below=cutoff), tmp_path / "bundle")
    answer = BundleModel(tmp_path / "bundle").predict(pd.DataFrame({"image": files}))
    assert answer["referred"].tolist() == (highest < cutoff).tolist()
    assert answer["referred"].sum() == 1
    assert signature(CLASSES, refers=True).outputs.input_names() == list(answer.columns)


def test_the_logged_model_predicts_by_the_decision_weights(bundle, tmp_path):
    files = [png(seed) for seed in range(3)]
    probabilities = predict_bytes(bundle, predictor(bundle, 32, torch.device("cpu")), files, ["a", "b", "c"])
    least = CLASSES[probabilities.mean(axis=0).argmin()]
    weights = {name: 1e6 if name == least else 1.0 for name in CLASSES}
    save_bundle(dataclasses.replace(bundle, decision_weights=weights), tmp_path / "bundle")
    answer = BundleModel(tmp_path / "bundle").predict(pd.DataFrame({"image": files}))
    assert answer["predicted"].tolist() == [least] * 3
    np.testing.assert_allclose(answer.iloc[:, 1:].to_numpy(), probabilities, atol=1e-6)
