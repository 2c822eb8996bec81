import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrnet.data.images.reader import Images
from cxrnet.data.images.store import load_images
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import Mix
from cxrnet.evaluation.predictions import logits_of, probabilities_of
from cxrnet.inference import (
    judge,
    mix_facts,
    predict_files,
    predict_images,
    predict_manifest,
    read_bytes,
)
from cxrnet.models.bundle import Bundle

CPU = torch.device("cpu")
CLASSES = ("Viral Pneumonia", "Covid", "Normal")


def predict(bundle, path, batch_size=5, on_error="fail") -> pd.DataFrame:
    return pd.concat(predict_files(bundle, path, batch_size, CPU, on_error), ignore_index=True)


def predict_all(bundle, manifest) -> pd.DataFrame:
    return pd.concat(predict_manifest(bundle, manifest, 8, CPU, "fail"), ignore_index=True)


@pytest.fixture
def bundle(make_network) -> Bundle:
    network = make_network(classes=CLASSES, size=(40, 32), dropout=0.5)
    network(torch.randint(0, 256, (16, 1, 40, 32)))  # running statistics that are not 0 and 1
    return Bundle(network, "pad", 1.0, {}, "", {}, {})


def test_logits_do_not_depend_on_batches_mode_or_chance(bundle):
    images = np.random.default_rng(0).integers(0, 256, (7, 40, 32), np.uint8)
    bundle.network.train()
    tables = [predict_images(bundle, images, size, CPU) for size in (1, 3, 7, 100)]
    assert tables[0].shape == (7, 3)
    assert tables[0].dtype == np.float32
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], atol=1e-6)


def test_what_decides_and_what_is_deferred_is_said_of_a_bundle(bundle):
    weighed = dataclasses.replace(bundle, decision_weights=dict(zip(CLASSES, (7.0, 3.5, 1.0), strict=True)))
    assert list(mix_facts(bundle, Mix())) == ["probabilities"]
    assert "weight x probability" in mix_facts(weighed, Mix())["decision"]
    some = mix_facts(dataclasses.replace(weighed, operating_points={"Covid": 0.7}, defer_below=0.6), Mix())
    assert "Covid 0.7" in some["thresholds"]
    assert "of the classes without a threshold" in some["decision"]
    assert "share in the sum of weight x probability is below 0.6" in some["deferral"]
    points = {"Covid": 0.7, "Viral Pneumonia": 0.5}
    alone = mix_facts(dataclasses.replace(weighed, operating_points=points, defer_below=0.6), Mix())
    assert "Viral Pneumonia 0.5" in alone["thresholds"]
    assert alone["decision"].startswith("Normal where no threshold is reached")
    assert "their probability is below 0.6" in alone["deferral"]


def test_the_temperature_divides_the_logits(bundle):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 32), np.uint8)
    hot = dataclasses.replace(bundle, temperature=2.0)
    np.testing.assert_allclose(
        2 * predict_images(hot, images, 3, CPU), predict_images(bundle, images, 3, CPU), rtol=1e-6
    )


def test_convolutions_do_not_round_to_tf32_and_others_may_go_on_doing_so(bundle):
    seen = []
    bundle.network.backbone.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    predict_images(bundle, np.zeros((3, 40, 32), np.uint8), 2, CPU)
    assert seen[1:] == [False, False]  # the first call only looks for what can be fused
    assert torch.backends.cudnn.allow_tf32 is before


def test_a_manifest_is_prepared_as_the_bundle_says(bundle, xrays):
    manifest = folder(xrays)
    predictions = predict_all(bundle, manifest)
    _, images = load_images(manifest, (40, 32), "pad", "fail")
    np.testing.assert_allclose(logits_of(predictions), predict_images(bundle, images, 8, CPU), atol=1e-6)
    assert predictions["image_id"].tolist() == manifest["image_id"].tolist()
    assert predictions["label"].tolist() == manifest["label"].tolist()
    assert [name for name in predictions if name.startswith("prob_")] == [f"prob_{name}" for name in CLASSES]


def test_beside_the_cpu_no_file_is_read_while_the_network_works(bundle, draw, tmp_path):
    root = draw(tmp_path / "set", images=4)  # of each of three classes; eight are read at a time
    parts = predict_files(bundle, root, 1, CPU, "skip")
    ids = next(parts)["image_id"].tolist()
    later = [file for file in root.rglob("*.png") if file.relative_to(root).as_posix() not in ids]
    for file in later:
        file.write_bytes(b"broken")
    assert (len(ids), len(later), list(parts)) == (8, 4, [])


def test_a_folder_of_images_without_labels(bundle, xrays, tmp_path):
    predictions = predict(bundle, xrays)
    assert len(predictions) == 36
    assert predictions["label"].isna().all()
    assert set(predictions["predicted"]) <= set(CLASSES)
    assert predictions["image_id"].tolist()[0] == "Covid/00.png"
    expected = predict_all(bundle, folder(xrays))
    np.testing.assert_allclose(probabilities_of(predictions), probabilities_of(expected), atol=1e-6)


def test_one_file_gives_what_it_gives_among_others(bundle, xrays):
    (row,) = predict(bundle, str(xrays / "Normal" / "03.png")).to_dict("records")
    all_of_them = predict(bundle, xrays).set_index("image_id")
    assert row["image_id"] == "03.png"
    assert row["prob_Covid"] == pytest.approx(all_of_them.loc["Normal/03.png", "prob_Covid"], abs=1e-6)


def test_an_image_without_an_extension_is_read_when_it_is_named(bundle, xrays, tmp_path):
    file = tmp_path / "radiograph"
    file.write_bytes((xrays / "Covid" / "01.png").read_bytes())
    assert len(predict(bundle, file)) == 1


def test_bytes_in_memory(bundle, xrays):
    files = sorted((xrays / "Covid").iterdir())
    images = read_bytes(bundle, [file.read_bytes() for file in files], [file.name for file in files])
    expected = logits_of(predict(bundle, xrays / "Covid"))
    np.testing.assert_allclose(predict_images(bundle, images, 32, CPU), expected, atol=1e-6)


def test_the_folder_one_stands_in(bundle, xrays, monkeypatch):
    named = predict(bundle, xrays / "Covid")
    monkeypatch.chdir(xrays / "Covid")
    assert predict(bundle, Path()).drop(columns="path").equals(named.drop(columns="path"))


def test_nothing_there(bundle, tmp_path):
    with pytest.raises(CxrnetError, match=r"input: '.*nowhere' doesn't exist; give an image file, a folder"):
        predict(bundle, tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(CxrnetError, match=f"input: no images below '{tmp_path}'; it looks for .png"):
        predict(bundle, tmp_path)


def test_pipes_and_devices_are_refused_and_never_waited_for(bundle, draw, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(CxrnetError, match=f"input: '{path}' is a pipe, device or socket; give an image file"):
            predict(bundle, path)
    root = draw(tmp_path / "set", images=2)
    os.mkfifo(root / "Covid" / "pipe.png")
    with pytest.raises(CxrnetError, match=r"1 not a file.*pipe\.png"):
        predict(bundle, root)
    assert len(predict(bundle, root, on_error="skip")) == 6


def test_unreadable_images(bundle, draw, tmp_path):
    root = draw(tmp_path / "set", images=2)
    (root / "Covid" / "00.png").write_bytes(b"broken")
    with pytest.raises(CxrnetError, match=r"1 of 6 files give no image .*00.png.* or set on_error=skip to"):
        predict(bundle, root)
    predictions = predict(bundle, root, on_error="skip")
    assert "Covid/00.png" not in predictions["image_id"].tolist()
    assert len(predictions) == 5
    with pytest.raises(CxrnetError, match=r"00.png' is not an image"):
        read_bytes(bundle, [b"broken"], ["00.png"])


def test_masks_are_left_out_or_told(bundle, draw, tmp_path, caplog):
    root = draw(tmp_path / "set", images=2)
    for name in ("Covid/masks/00.png", "Normal/odd.png"):
        (root / name).parent.mkdir(exist_ok=True)
        mask = np.hypot(*np.mgrid[-24:24, -24:24]) < 15
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / name)
    ids = predict(bundle, root)["image_id"].tolist()
    assert len(ids) == 7
    assert "Covid/masks/00.png" not in ids
    assert "left out: 1 masks" in caplog.text
    assert "1 of 7 images has two grey levels or one, as masks and blank pictures do: Normal/odd.png" in caplog.text


def test_the_table_is_a_table_of_predictions(bundle, xrays):
    predictions = predict(bundle, xrays)
    assert isinstance(predictions, pd.DataFrame)
    assert (predictions["source"] == xrays.name).all()
    assert predictions["split"].isna().all()


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_what_no_file_is_called_does_not_exist(bundle, name):
    with pytest.raises(CxrnetError, match=r"^input: '.*' doesn't exist"):
        predict(bundle, name)


def test_what_is_strange_has_no_class_and_the_rest_the_same_numbers(bundle, gated, tmp_path):
    gated_bundle, noise = gated(bundle)
    images = np.concatenate([noise(bundle, 5, 7), np.zeros((2, 40, 32), np.uint8)])
    for place, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{place}.png")
    plain, asked = (
        pd.concat(predict_files(gated_bundle, tmp_path, 3, CPU, "fail", gate=gate), ignore_index=True)
        for gate in (False, True)
    )
    assert "turned_away" not in plain
    assert asked["turned_away"].tolist() == [False] * 5 + [True] * 2
    assert asked["predicted"].isna().tolist() == asked["prob_Covid"].isna().tolist() == asked["turned_away"].tolist()
    same = [name for name in plain if name.startswith(("prob_", "logit_"))]
    pd.testing.assert_frame_equal(asked.loc[:4, same], plain.loc[:4, same], check_exact=True)
    whole = predict_files(bundle, tmp_path, 3, CPU, "fail", gate=True)  # a bundle without a gate
    assert not pd.concat(whole)["turned_away"].any()


def test_logits_of_a_judge_are_those_of_the_predictor_and_negatives_are_told(bundle, gated):
    gated_bundle, noise = gated(bundle)
    dark = Images.all_of((noise(bundle, 4, 8) // 3).astype(np.uint8))
    shifted = dataclasses.replace(gated_bundle.gate, limits=(-1e9, -1e9))
    judged = judge(dataclasses.replace(bundle, gate=shifted), 3, CPU)(dark)
    np.testing.assert_array_equal(judged.logits, predict_images(bundle, dark, 3, CPU))
    assert judged.turned_away.all()
    assert not judged.inverted.any()
    negative = Images.all_of(255 - (noise(bundle, 4, 9).astype(int) + 90).clip(0, 255).astype(np.uint8))
    assert judge(gated_bundle, 3, CPU)(negative).turned_away.shape == (4,)
