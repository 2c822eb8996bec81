"""What the contenders measure that don't train."""

import pandas as pd
import pytest

from cxrnet.benchmarking.contenders import commands, decoder, growing, machine, own, plain
from cxrnet.benchmarking.overrides import train_overrides


def test_the_decoder_and_the_first_set_up_see_the_same_images(images, make_plan, tmp_path):
    decoded = decoder.decode(str(images), [[32, 32], [16, 8]])
    phase = {"trainable": "head", "epochs": 1, "lr": 1e-3}
    overrides = train_overrides(
        make_plan(), images, "mobilenet_v2", "none", phase, views=1, augment=False, bf16=False, cache=tmp_path / "cache"
    )
    assert decoded["images"] == own.setup(overrides, fresh=True)["images"] == 27
    assert decoded["images_per_second"] * decoded["seconds"] == pytest.approx(27)
    assert decoder.decode(str(images), [])["images"] == 27


def test_predicting_a_folder(images, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark"])
    monkeypatch.setattr(plain, "WORKERS", 0)
    own.write_bundle(str(tmp_path / "bundle"), "mobilenet_v2", "none", [32, 32])
    output = tmp_path / "a folder" / "predictions.csv"
    output.parent.mkdir()
    numbers = own.predict(str(tmp_path / "bundle"), str(images / "val"), str(output), 4, "cpu")
    assert numbers["images"] == len(pd.read_csv(output)) == 9
    numbers = plain.predict(str(images / "val"), "mobilenet_v2", [32, 32], 4, "cpu")
    assert numbers["images_per_second"] * numbers["seconds"] == pytest.approx(9)


def test_where_weights_come_from():
    assert own.find_weights("mobilenet_v2", "none", [32, 32])["origin"] == "random"


def test_a_manifest_of_many_rows_and_a_growing_set(images, tmp_path):
    file = str(tmp_path / "rows.parquet")
    growing.write_rows(file, 200, seed=0)
    numbers = growing.manifest(file, seed=0)
    assert numbers["rows"] == 200
    numbers = growing.setup(str(images / "train"), 18, [32, 32], 8, seed=0, scratch=str(tmp_path))
    assert numbers["ms_per_image"] == pytest.approx(1000 * numbers["seconds"] / 18)


def test_the_cache_of_a_growing_set_lies_in_the_scratch_folder_alone(images, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        growing.setup(str(images / "train"), 18, [32, 32], 8, seed=0, scratch=str(tmp_path / "no folder"))


def test_a_command_that_should_fail_must():
    assert commands.run(["-c", "raise SystemExit(3)"], fails=True).keys() == {"seconds"}
    with pytest.raises(RuntimeError, match="ended with 3"):
        commands.run(["-c", "raise SystemExit(3)"], fails=False)
    with pytest.raises(RuntimeError, match="ended with 0"):
        commands.run(["-c", "pass"], fails=True)


def test_the_machine_is_told():
    facts = machine.facts("cpu")
    assert facts["device"] == "cpu"
    assert facts["accelerator"] is None
    assert facts["cores"] >= 1
    assert facts["processor"]
    assert {"torch", "python"} <= set(facts["versions"])
