import dataclasses
import hashlib
import json
import logging
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import FORMAT, Bundle, device_of, load_bundle, save_bundle, sign_bundle

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
        operating_points={"COVID-19": 0.2},
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


def test_a_deferral_threshold_comes_back_where_there_is_one(bundle, folder):
    assert "defer_below" not in json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    save_bundle(dataclasses.replace(bundle, defer_below=0.625), folder)
    assert load_bundle(folder).defer_below == 0.625


def test_prior_and_decision_weights_come_back(bundle, folder):
    prior = {"Normal": 0.7, "Lungen-Trübung": 0.2, "COVID-19": 0.1}
    weights = {"Normal": 1.0, "Lungen-Trübung": 3.5, "COVID-19": 7.0}
    save_bundle(dataclasses.replace(bundle, prior=prior, decision_weights=weights), folder)
    again = load_bundle(folder)
    assert (again.prior, again.decision_weights) == (prior, weights)


def test_a_bundle_of_format_2_knows_no_prior_and_weighs_nothing(folder, caplog):
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
    with caplog.at_level(logging.WARNING, "cxrnet"):
        again = load_bundle(folder)
    assert "has format 2 and no digest" in caplog.text
    assert (again.temperature, again.defer_below) == (1.5, 0.5)
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
    with pytest.raises(CxrnetError, match=r"its prior is .* that sum to 1"):
        load_bundle(folder)


def described(folder) -> dict:
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))


HUGE = 10**400

WRONG = [
    ({"temperature": value}, "temperature") for value in (-1, 0, float("nan"), float("inf"), HUGE, "1.5", True, None)
]
WRONG += [({"operating_points": value}, "operating_points") for value in ([0.5], {"COVID-19": 1.5}, {"COVID-19": None})]
WRONG += [({"operating_points": dict.fromkeys(names, 0.5)}, "operating_points") for names in (["?"], PRIOR)]
WRONG += [({"temperature_offset": value}, "temperature_offset") for value in ([0.0], [0, 0, float("nan")], "abc", 1)]
WRONG += [({"defer_below": value}, "defer_below") for value in (1.01, -0.1, float("nan"), "0.5")]
WRONG += [({"resize": "squash"}, "resize"), ({"resize": ["pad"]}, "resize"), ({"output": "sigmoid"}, "output")]
WRONG += [
    ({"versions": {"torch": 2}}, "versions"),
    ({"training": []}, "training"),
    ({"manifest_digest": 3}, "manifest_digest"),
]
WRONG += [({"digest": None}, "digest"), ({"weights_sha256": ...}, "has no weights_sha256"), ({"digest": ...}, "digest")]
WRONG += [({"temprature": 1.0}, "a field 'temprature', which is not known")]
WRONG_NETWORK = [("mean", value) for value in ([0.5, 0.5, float("nan")], [0.5], 0.5, None, [True] * 3)]
WRONG_NETWORK += [("std", value) for value in ([0.5, 0.5, 0.0], [0.5, 0.5, -1], [0.5, 0.5, float("inf")])]
WRONG_NETWORK += [("classes", value) for value in ([], ["a"], ["a", "a", "b"], ["a", "", "b"], ["a", 1, "b"], "abc")]
WRONG_NETWORK += [("size", value) for value in ([0, 32], [32], [32.0, 32], [True, 32], [10**6, 10**6], [HUGE, 32])]
WRONG_NETWORK += [("l2", value) for value in (-1, float("nan"))] + [("dropout", 1.5), ("dropout", [float("nan")])]
WRONG_NETWORK += [("hidden", [0]), ("hidden", None), ("pool_window", [4]), ("batch_norm", 1), ("output", "logit")]
WRONG_NETWORK += [("backbone", 3), ("pool", None), ("more", 1)]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=str)
def test_a_field_out_of_its_range_is_refused_by_name(folder, change, said):
    _change(folder, **change)
    with pytest.raises(CxrnetError, match=rf"is damaged \(it.* {said}.*\); copy it again or train anew") as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), WRONG_NETWORK, ids=str)
def test_a_field_of_the_network_out_of_its_range_is_refused_by_name(folder, name, value):
    _change(folder, network={**described(folder)["network"], name: value})
    with pytest.raises(CxrnetError, match=rf"is damaged \(.*{name}"):
        load_bundle(folder)


def test_a_change_that_is_in_range_is_told_until_it_is_signed(folder, bundle):
    network = described(folder)["network"]
    _change(folder, network={**network, "classes": network["classes"][::-1]})
    with pytest.raises(CxrnetError, match=r"its bundle.json is not as it was written.*cxrnet.sign bundle="):
        load_bundle(folder)
    assert sign_bundle(folder) == described(folder)["digest"]
    assert load_bundle(folder).classes == bundle.classes[::-1]
    assert load_bundle(folder).temperature == 1.5


def test_the_order_of_thresholds_is_part_of_what_is_signed(bundle, folder):
    save_bundle(dataclasses.replace(bundle, operating_points={"COVID-19": 0.2, "Normal": 0.9}), folder)
    _change(folder, operating_points={"Normal": 0.9, "COVID-19": 0.2})
    with pytest.raises(CxrnetError, match="is not as it was written"):
        load_bundle(folder)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 1.0])
def test_a_bit_of_the_weights(folder, place):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[round(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    with pytest.raises(CxrnetError, match="is damaged"):
        load_bundle(folder)


def test_weights_of_another_training_are_told(make_network, folder):
    """They fit, so that nothing but their SHA-256 tells them."""
    other = make_network(classes=("Normal", "Lungen-Trübung", "COVID-19"), size=(48, 32), hidden=(8,))
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    save_bundle(Bundle(other, "pad", 1.0, {}, "", {}, {}), folder.with_name("other"))
    shutil.copy(folder.with_name("other") / "model.safetensors", folder)
    with pytest.raises(CxrnetError, match=r"its model.safetensors is not as it was written"):
        load_bundle(folder)
    sign_bundle(folder)
    torch.testing.assert_close(load_bundle(folder).network.state_dict(), other.state_dict())


def test_a_bundle_of_format_3_is_read_with_a_word_until_it_is_signed(bundle, folder, caplog):
    _change(folder, format=3, weights_sha256=..., digest=...)
    with caplog.at_level(logging.WARNING, "cxrnet"):
        assert load_bundle(folder).temperature == bundle.temperature
        assert "has format 3 and no digest" in caplog.text
        caplog.clear()
        sign_bundle(folder)
        assert load_bundle(folder).temperature == bundle.temperature
    assert not caplog.records
    _change(folder, format=3, weights_sha256=..., digest=..., temperature=-1)
    with pytest.raises(CxrnetError, match=r"its temperature is -1; it must be a number above 0"):
        load_bundle(folder)


def test_a_bundle_of_format_4_keeps_its_deferral_threshold_and_its_digest(bundle, folder):
    save_bundle(dataclasses.replace(bundle, defer_below=0.625), folder)
    text = (folder / "bundle.json").read_text(encoding="utf-8")
    old = json.loads(text.replace('"defer_below"', '"refer_below"')) | {"format": 4}
    signed = json.dumps({name: value for name, value in old.items() if name != "digest"}, separators=(",", ":"))
    (folder / "bundle.json").write_text(json.dumps(old | {"digest": hashlib.sha256(signed.encode()).hexdigest()}))
    assert load_bundle(folder).defer_below == 0.625
    sign_bundle(folder)
    assert (folder / "bundle.json").read_text(encoding="utf-8") == text
    _change(folder, **old)
    with pytest.raises(CxrnetError, match="a field 'refer_below', which is not known"):
        load_bundle(folder)
    _change(folder, defer_below=..., refer_below=0.5)
    with pytest.raises(CxrnetError, match=r"its bundle.json is not as it was written"):
        load_bundle(folder)


def test_a_digest_counts_whatever_the_format_says(folder):
    classes = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["network"]["classes"]
    text = (folder / "bundle.json").read_text(encoding="utf-8")
    for name, other in zip(classes[:2], classes[1::-1], strict=True):
        text = text.replace(f'"{name}"', f'"<{other}>"')
    text = text.replace('"<', '"').replace('>"', '"').replace(f'"format": {FORMAT}', '"format": 3')
    (folder / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(CxrnetError, match=r"its bundle.json is not as it was written"):
        load_bundle(folder)


def test_a_field_that_stands_there_twice_is_refused(folder):
    text = (folder / "bundle.json").read_text(encoding="utf-8")
    (folder / "bundle.json").write_text(text.replace('"temperature":', '"temperature": 3, "temperature":'), "utf-8")
    with pytest.raises(CxrnetError, match="'temperature' stands there twice"):
        load_bundle(folder)


def test_a_class_that_no_file_can_hold_is_refused_by_signing_too(folder):
    text = (folder / "bundle.json").read_text(encoding="utf-8")
    first = json.loads(text)["network"]["classes"][0]
    (folder / "bundle.json").write_text(text.replace(f'"{first}"', '"\\ud800"'), encoding="utf-8")
    with pytest.raises(CxrnetError, match=r"data\.classes: "):
        sign_bundle(folder)


def test_a_configuration_of_any_kind_can_be_signed(bundle, folder):
    """With numbers as keys, which JSON has as text, values that are not finite, and tuples."""
    odd = {"classes": {0: "normal", 1: None}, "clip": float("inf"), "lr": float("nan"), "size": (1, 2), "rate": 1e-5}
    save_bundle(dataclasses.replace(bundle, training=odd), folder)
    assert load_bundle(folder).training["size"] == [1, 2]
    text = (folder / "bundle.json").read_text(encoding="utf-8")
    sign_bundle(folder)
    assert (folder / "bundle.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "change",
    [{"hidden": [2**31 - 1] * 2}, {"size": [9000, 9000], "pool": "flatten"}, {"hidden": [8] * 5000}],
    ids=["widths", "size", "number"],
)
def test_layers_that_the_weights_do_not_have_are_refused_before_they_are_made(folder, change):
    _change(folder, network={**described(folder)["network"], **change})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CxrnetError, match=r"is damaged \("):
        load_bundle(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


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
    with pytest.raises(
        CxrnetError, match=f"has format {FORMAT + 1}, this cxrnet reads 2 to {FORMAT}; use one that fits"
    ):
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


def test_a_gate_comes_back_and_is_signed_with_the_weights(bundle, gated, tmp_path):
    with_gate, noise = gated(bundle)
    save_bundle(with_gate, tmp_path / "bundle")
    again = load_bundle(tmp_path / "bundle")
    for name in ("mean", "directions", "nearest"):
        np.testing.assert_array_equal(getattr(again.gate, name), getattr(with_gate.gate, name))
    assert again.gate.limits == with_gate.gate.limits
    assert described(tmp_path / "bundle")["format"] == FORMAT
    np.testing.assert_array_equal(
        again.network(torch.from_numpy(noise(bundle, 2, 1)).unsqueeze(1)),
        bundle.network.eval()(torch.from_numpy(noise(bundle, 2, 1)).unsqueeze(1)).detach(),
    )


def test_a_gate_without_its_numbers_or_of_other_values_is_damage(bundle, gated, tmp_path):
    save_bundle(gated(bundle)[0], tmp_path / "bundle")
    file = tmp_path / "bundle" / "bundle.json"
    description = described(tmp_path / "bundle")
    for change in ({"gate": {"centre": [1, 2]}}, {"gate": {"centre": "near"}}, {"gate": None}):
        file.write_text(json.dumps({**description, **change}), encoding="utf-8")
        with pytest.raises(CxrnetError, match=r"is damaged \(its gate"):
            load_bundle(tmp_path / "bundle")
