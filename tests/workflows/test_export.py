import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from mlflow import MlflowClient
from PIL import Image

from cxrnet.cli.app import compose_config
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError
from cxrnet.inference import predict_files
from cxrnet.models import exported
from cxrnet.models.bundle import Bundle, load_bundle, save_bundle
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig
from cxrnet.tracking.model import log_model
from cxrnet.tracking.record import write_record
from cxrnet.workflows.export import export
from cxrnet.workflows.settings import Export

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
CLASSES = ("Covid", "Normal", "Viral Pneumonia")
CPU = torch.device("cpu")


@pytest.fixture
def place(make_network, draw, tmp_path, monkeypatch):
    """A folder with a run, whose images lie beside it."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "xrays", classes=CLASSES, images=8)
    manifest = folder("xrays")
    manifest["split"] = pd.array((["train", "val", "test"] * 8)[: len(manifest)], "string")
    (tmp_path / "run").mkdir()
    write_manifest(manifest, tmp_path / "run" / "manifest.parquet")
    network = make_network(classes=CLASSES, size=(40, 32))
    bundle = Bundle(network, "pad", 1.3, {"Covid": 0.35}, digest(manifest), {}, {})
    save_bundle(bundle, tmp_path / "run" / "bundle")
    return tmp_path


def run(*words) -> None:
    export(compose_config(Export, ["bundle=run", *words]))


@pytest.fixture
def onnx(place) -> Path:
    run("format=onnx", "output=out")
    return place / "out" / "model.onnx"


def test_onnx_gives_the_probabilities_of_the_bundle_for_any_number_of_images(onnx, capsys):
    bundle = load_bundle("run/bundle")
    predict = exported.read_onnx(onnx)
    for number in (1, 5):
        images = np.random.default_rng(number).integers(0, 256, (number, 1, 40, 32), np.uint8)
        with torch.inference_mode():
            expected = (bundle.network(torch.from_numpy(images)) / 1.3).softmax(dim=1).numpy()
        np.testing.assert_allclose(predict(images), expected, atol=1e-5)
    facts = json.loads((onnx.parent / "model.json").read_text(encoding="utf-8"))
    assert (facts["classes"], facts["size"], facts["resize"]) == (list(CLASSES), [40, 32], "pad")
    assert facts["operating_points"] == {"Covid": 0.35}
    assert facts["checked"]["images"].startswith("24,")
    assert "Research use only" in facts["notice"]


def test_the_script_of_the_docs_predicts_without_torch(onnx, place):
    script = re.search(r"```python\n(import json\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(script.strip().splitlines()) <= 30
    (place / "predict_onnx.py").write_text(script, encoding="utf-8")
    (place / "torch.py").write_text("raise ImportError('no torch here')", encoding="utf-8")
    rng, bundle = np.random.default_rng(0), load_bundle("run/bundle")
    (place / "some").mkdir()
    for name, size in (("same", (40, 32)), ("wide", (90, 130)), ("tall", (200, 60))):
        small = rng.integers(0, 256, (6, 5), np.uint8)
        Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(place / "some" / f"{name}.png")
    files = sorted(str(path) for path in (place / "some").iterdir())
    command = [sys.executable, "predict_onnx.py", str(onnx), *files]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    expected = pd.concat(predict_files(bundle, "some", 8, CPU, "fail")).set_index("image_id")
    for file, _, *shares in rows:
        name = Path(file).name
        numbers = expected.loc[name, [f"prob_{each}" for each in CLASSES]].astype(float)
        np.testing.assert_allclose(np.array(shares, float), numbers, atol=1e-4 if name == "same.png" else 2e-3)


def test_torch_export_and_the_hub_come_back(place):
    run("format=torch_export", "output=a")
    predict = exported.read_program(place / "a" / "model.pt2")
    images = np.random.default_rng(3).integers(0, 256, (3, 1, 40, 32), np.uint8)
    bundle = load_bundle("run/bundle")
    with torch.inference_mode():
        expected = (bundle.network(torch.from_numpy(images)) / 1.3).softmax(dim=1).numpy()
    np.testing.assert_allclose(predict(images), expected, atol=1e-5)
    run("format=huggingface", "output=b")
    assert load_bundle(place / "b").classes == CLASSES
    card = ModelCard.load(place / "b" / "README.md")
    assert card.data.library_name == "cxrnet"
    assert "Research use only" in card.content
    assert json.loads((place / "b" / "config.json").read_text(encoding="utf-8"))["classes"] == list(CLASSES)


def test_what_eight_bits_cost_is_stated(place, capsys):
    run("format=onnx_int8", "output=out")
    said = capsys.readouterr().out
    assert re.search(r"accuracy 0\.\d+ to 0\.\d+ \(change [+-]0\.\d+, 95 % CI [+-]0\.\d+ to", " ".join(said.split()))
    assert sorted(path.name for path in (place / "out").iterdir()) == ["model.int8.onnx", "model.json"]


def test_what_predicts_otherwise_is_not_written(place, monkeypatch):
    whole = exported.export_program

    def wrong(bundle):
        return whole(dataclasses.replace(bundle, temperature=0.5))

    monkeypatch.setattr(exported, "export_program", wrong)
    with pytest.raises(CxrnetError, match=r"^format: the exported model predicts otherwise"):
        run("format=onnx", "output=out")
    assert not (place / "out").exists()
    assert not list(place.glob("*.partial"))


def test_other_images_may_be_given_and_must_where_the_run_is_not_known(place, capsys):
    (place / "run" / "manifest.parquet").unlink()
    with pytest.raises(CxrnetError, match=r"^images: the run's images don't lie beside the bundle; give images="):
        run("format=onnx", "output=out")
    with pytest.raises(CxrnetError, match=r"^format: onnx_int8 takes its ranges from training images"):
        run("format=onnx_int8", "images=xrays", "output=out")
    run("format=torch_export", "images=xrays", "count=5", "output=out")
    assert "5, on which it was checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "format: nothing to do; give format=<format> or register=<name>"),
        (["format=huggingface", "output=xrays"], "output: 'xrays' is there already"),
        (["register=chest"], "register: the run of the bundle isn't known in MLflow"),
    ],
)
def test_mistakes_are_one_line(place, words, message):
    with pytest.raises(CxrnetError, match=message):
        run(*words)


def test_without_the_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(CxrnetError, match=r"onnxruntime is not installed; pip install 'cxrnet\[onnx\]'"):
        exported.needed("onnxruntime")


def test_the_model_of_a_run_is_registered_once(place, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (place / "outputs").mkdir()
    client = MlflowClient(f"sqlite:///{place}/outputs/mlflow.db")
    run_id = client.create_run(client.create_experiment("x", f"{place}/artifacts")).info.run_id
    log_model(client, run_id, place / "run" / "bundle", CLASSES, False)
    write_record(place / "run", {"run_id": run_id})
    run("register=chest")
    run("register=chest", "alias=best")
    assert client.get_model_version_by_alias("chest", "best").version in (1, "1")
    assert "models:/chest@best, version 1" in capsys.readouterr().out
    export(compose_config(Export, ["bundle=models:/chest@candidate", "format=huggingface", "output=again"]))
    assert load_bundle("again").classes == CLASSES
    with pytest.raises(CxrnetError, match=r"^register: 'a/b@candidate' won't do for MLflow"):
        run("register=a/b")


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50", "vgg16", "timm/convnext_atto"])
def test_every_backbone_is_exported(backbone, tmp_path):
    torch.manual_seed(0)
    pool = "own" if backbone.startswith("timm/") else "average"
    network = Network(NetworkConfig(backbone=backbone, classes=CLASSES, size=(64, 64), pool=pool)).eval()
    exported.write_onnx(Bundle(network, "pad", 1.0, {}, "", {}, {}), tmp_path / "m.onnx", {})
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(exported.read_onnx(tmp_path / "m.onnx")(images), expected, atol=1e-4)
