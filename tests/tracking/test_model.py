"""A bundle through MLflow and back."""

import dataclasses
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrnet.evaluation.predictions import softmax
from cxrnet.inference import predict_images, read_bytes
from cxrnet.models.bundle import load_bundle, save_bundle
from cxrnet.tracking.model import BundleModel, signature
from cxrnet.tracking.run import track

CLASSES = ("Covid", "Lung Opacity", "Normal")


def probabilities_of(bundle, files):
    return softmax(predict_images(bundle, read_bytes(bundle, files, list("abc")), 32, torch.device("cpu")))


@pytest.fixture
def bundle(make_bundle, tmp_path):
    return load_bundle(make_bundle(tmp_path / "run", classes=CLASSES))


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
        run.log_bundle(run.folder / "bundle", CLASSES)
    assert run.unsent == 0
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr() == ("", "")
    stored = client.get_run(run.run_id)
    address = stored.data.tags["cxrnet.model_uri"]
    model_id = address.removeprefix("models:/")
    assert client.get_logged_model(model_id).status == "READY"
    assert [output.model_id for output in stored.outputs.model_outputs] == [model_id]

    files = [png(seed) for seed in range(3)]
    expected = probabilities_of(bundle, files)
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


def test_deferred_predictions_are_marked(bundle, tmp_path):
    files = [png(seed) for seed in range(3)]
    highest = probabilities_of(bundle, files).max(axis=1)
    threshold = float(np.sort(highest)[:2].mean())
    save_bundle(dataclasses.replace(bundle, defer_below=threshold), tmp_path / "bundle")
    answer = BundleModel(tmp_path / "bundle").predict(pd.DataFrame({"image": files}))
    assert answer["deferred"].tolist() == (highest < threshold).tolist()
    assert answer["deferred"].sum() == 1
    assert signature(CLASSES, defers=True).outputs.input_names() == list(answer.columns)


def test_the_logged_model_predicts_by_the_decision_weights(bundle, tmp_path):
    files = [png(seed) for seed in range(3)]
    probabilities = probabilities_of(bundle, files)
    least = CLASSES[probabilities.mean(axis=0).argmin()]
    weights = {name: 1e6 if name == least else 1.0 for name in CLASSES}
    save_bundle(dataclasses.replace(bundle, decision_weights=weights), tmp_path / "bundle")
    answer = BundleModel(tmp_path / "bundle").predict(pd.DataFrame({"image": files}))
    assert answer["predicted"].tolist() == [least] * 3
    np.testing.assert_allclose(answer.iloc[:, 1:].to_numpy(), probabilities, atol=1e-6)


ELSEWHERE = """
import importlib.util, sys
from pathlib import Path
sys.path = [place for place in sys.path if not (Path(place) / "cxrnet" / "__init__.py").is_file()]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
found = importlib.util.find_spec("cxrnet")
assert found is None or found.origin is None  # an editable install leaves a folder with the configs
import mlflow.pyfunc, pandas as pd
answer = mlflow.pyfunc.load_model(sys.argv[1]).predict(pd.DataFrame({"image": [Path(sys.argv[2]).read_bytes()]}))
print(sys.modules["cxrnet"].__file__, answer["predicted"][0], sep="|")
"""


def test_the_logged_model_brings_its_code_and_names_what_pip_can_get(bundle, uri, outputs, client, tmp_path):
    with track(tmp_path / "run", uri, "models", outputs) as run:
        run.log_bundle(run.folder / "bundle", CLASSES)
    model_id = client.get_run(run.run_id).data.tags["cxrnet.model_uri"].removeprefix("models:/")
    place = Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://").replace("%20", " "))
    shutil.copytree(place, tmp_path / "elsewhere")
    (tmp_path / "one.png").write_bytes(png(0))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ELSEWHERE, tmp_path / "elsewhere", tmp_path / "one.png"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, predicted = done.stdout.strip().split("|")
    assert code.startswith(str(tmp_path / "elsewhere" / "code"))
    assert predicted in CLASSES
    lines = (place / "requirements.txt").read_text().splitlines()
    assert {"torch", "lightning", "mlflow", "safetensors"} <= {line.partition("==")[0] for line in lines}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert not any(line.startswith("cxrnet") for line in lines)


def test_the_same_bundle_is_one_model_and_another_one_another(make_bundle, tracked, client):
    for seed, models in ((0, 1), (0, 1), (1, 2)):
        with tracked(resume=True, experiment="resumed") as run:
            run.log_bundle(make_bundle(run.folder, seed), ("a", "b"))
        stored = client.get_run(run.run_id)
        logged = client.search_logged_models([stored.info.experiment_id])
        assert len(logged) == models
        assert len(stored.outputs.model_outputs) == models
    newest = max(logged, key=lambda model: model.creation_timestamp)
    assert stored.data.tags["cxrnet.model_uri"] == f"models:/{newest.model_id}"
