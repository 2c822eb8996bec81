import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import FORMAT, Bundle, device_of, load_bundle, save_bundle

FRESH_PROCESS = """
import sys, numpy as np, torch
from cxrnet.models.bundle import load_bundle
bundle = load_bundle(sys.argv[1])
images = torch.from_numpy(np.load(sys.argv[2]))
with torch.inference_mode():
    np.save(sys.argv[3], bundle.network(images).numpy())
"""


@pytest.fixture
def bundle(make_network) -> Bundle:
    network = make_network(classes=("Normal", "Lungen-Trübung", "COVID-19"), size=(48, 32), hidden=(8,))
    return Bundle(
        network=network,
        resize="pad",
        temperature=1.5,
        operating_points={"screening": {"COVID-19": 0.2}},
        manifest_digest="ab" * 32,
        versions={"torch": "2.15"},
        training={"model": {"backbone": "custom_cnn"}, "seed": 3, "limit": None},
    )


@pytest.fixture
def folder(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "run 1" / "bundle")
    return tmp_path / "run 1" / "bundle"


def test_everything_comes_back(bundle, folder):
    again = load_bundle(folder)
    assert again.classes == ("Normal", "Lungen-Trübung", "COVID-19")
    assert again.network.config == bundle.network.config
    for field in dataclasses.fields(Bundle):
        if field.name != "network":
            assert getattr(again, field.name) == getattr(bundle, field.name)
    assert not any(module.training for module in again.network.modules())
    assert not any(p.requires_grad for p in again.network.parameters())


def test_a_cutoff_for_a_reader_comes_back_where_there_is_one(bundle, folder):
    assert "refer_below" not in json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    save_bundle(dataclasses.replace(bundle, refer_below=0.625), folder)
    assert load_bundle(folder).refer_below == 0.625


def test_prior_and_decision_weights_come_back(bundle, folder):
    prior = {"Normal": 0.7, "Lungen-Trübung": 0.2, "COVID-19": 0.1}
    weights = {"Normal": 1.0, "Lungen-Trübung": 3.5, "COVID-19": 7.0}
    save_bundle(dataclasses.replace(bundle, prior=prior, decision_weights=weights), folder)
    again = load_bundle(folder)
    assert (again.prior, again.decision_weights) == (prior, weights)


def test_a_bundle_of_format_2_knows_no_prior_and_weighs_nothing(folder):
    """As they were written before there were priors: the fields of then, by hand."""
    description = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    fields = (
        "network",
        "output",
        "resize",
        "temperature",
        "operating_points",
        "manifest_digest",
        "versions",
        "training",
    )
    old = {"format": 2, **{name: description[name] for name in fields}, "refer_below": 0.5}
    (folder / "bundle.json").write_text(json.dumps(old), encoding="utf-8")
    again = load_bundle(folder)
    assert (again.temperature, again.refer_below) == (1.5, 0.5)
    assert (again.prior, again.decision_weights) == (None, None)


PRIOR = {"Normal": 0.7, "Lungen-Trübung": 0.2, "COVID-19": 0.1}


@pytest.mark.parametrize("name", ["prior", "decision_weights"])
@pytest.mark.parametrize(
    "values",
    [[0.7, 0.2, 0.1], {"Normal": 1.0}, {**PRIOR, "Other": 0.1}, {**PRIOR, "Normal": 0}, {**PRIOR, "Normal": -0.7}]
    + [{**PRIOR, "Normal": value} for value in (float("inf"), float("nan"), "0.7", None, True)],
    ids=str,
)
def test_a_prior_or_weights_that_are_none_are_refused(folder, name, values):
    _change(folder, **{name: values})
    with pytest.raises(CxrnetError, match=f"is damaged .its {name}"):
        load_bundle(folder)


def test_a_prior_sums_to_one(folder):
    _change(folder, prior={**PRIOR, "Normal": 0.8})
    with pytest.raises(CxrnetError, match="its prior sums to 1"):
        load_bundle(folder)


@pytest.mark.parametrize("backbone", ["custom_cnn", "mobilenet_v2"])
def test_a_fresh_process_gives_the_same_logits(make_network, tmp_path, backbone):
    network = make_network(backbone=backbone, size=(64, 48), std=(0.3, 0.2, 0.1), pool="max")
    network(torch.randint(0, 256, (8, 1, 64, 48)))  # batch norm has running statistics of its own now
    save_bundle(Bundle(network, "crop", 1.0, {}, "", {}, {}), tmp_path / "bundle")
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 64, 48), np.uint8)
    np.save(tmp_path / "images.npy", images)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(images)).numpy()
    names = [str(tmp_path / name) for name in ("bundle", "images.npy", "logits.npy")]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *names], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-6, rtol=0)


def test_there_are_two_files_and_no_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model.safetensors"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bundle"]
    assert (folder / "model.safetensors").read_bytes()[8:9] == b"{"
    assert json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["network"]["size"] == [48, 32]


def test_a_bundle_replaces_an_older_one_whole(bundle, folder):
    (folder / "left over.txt").write_text("old")
    (folder.with_name("bundle.partial")).mkdir()  # of a command that was killed
    save_bundle(dataclasses.replace(bundle, temperature=2.0), folder)
    assert load_bundle(folder).temperature == 2.0
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model.safetensors"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bundle"]


def test_the_older_bundle_survives_a_failing_save(bundle, folder):
    unwritable = dataclasses.replace(bundle, training={"a": object()})
    with pytest.raises(TypeError):
        save_bundle(unwritable, folder)
    assert load_bundle(folder).temperature == 1.5


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(CxrnetError, match=rf"bundle: '{folder}' has no {name}; give the folder 'bundle' of a finished"):
        load_bundle(folder)


def test_no_folder(tmp_path):
    with pytest.raises(CxrnetError, match=r"has no bundle.json; give the folder 'bundle' of a finished run"):
        load_bundle(tmp_path / "nowhere")


def test_a_newer_format(folder):
    _change(folder, format=FORMAT + 1)
    with pytest.raises(CxrnetError, match=f"has format {FORMAT + 1}, this cxrnet reads {FORMAT}; use one that fits"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"network": None},
        {"network": ["custom_cnn"]},
        {"network": {"backbone": "custom_cnn"}},
        {"resize": ...},
        {"output": "sigmoid"},
        {"format": ...},
        {"classes of another network": True, "network": {"backbone": "mobilenet_v2"}},
    ],
    ids=str,
)
def test_a_changed_description(folder, change):
    _change(folder, **change)
    with pytest.raises(CxrnetError, match=rf"bundle: '{folder}' is damaged \(.*\); copy it again or train anew"):
        load_bundle(folder)


def test_tensors_of_another_network(make_network, folder, tmp_path):
    save_bundle(Bundle(make_network(hidden=(4,)), "pad", 1.0, {}, "", {}, {}), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with pytest.raises(CxrnetError, match="is damaged"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["bundle.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[]", b'{"format": 1'], ids=["empty", "bytes", "list", "cut"])
def test_damaged_files(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(CxrnetError, match="is damaged") as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_truncated_model(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CxrnetError, match="is damaged"):
        load_bundle(folder)


def _change(folder, **values):
    """Set or, with ``...``, take away entries of the description."""
    path = folder / "bundle.json"
    kept = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps({name: value for name, value in kept.items() if value is not ...}))


def test_devices():
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type in {"cpu", "cuda", "mps", "xpu"}


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "tpu"])
def test_a_device_that_is_not_here(name):
    with pytest.raises(CxrnetError, match=f"device: '{name}' can't be used here; use auto, cpu, cuda or mps"):
        device_of(name)
