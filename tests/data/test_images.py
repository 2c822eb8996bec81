import io
import logging
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.decode import read_image
from cxrnet.data.images import load_images, resize
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError

GREY = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2  # (40, 60), 0..196


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def manifest_of(folder: Path, files: dict[str, bytes | None]) -> pd.DataFrame:
    for name, data in files.items():
        if data is not None:
            (folder / name).write_bytes(data)
    rows = {"image_id": list(files), "path": [str(folder / name) for name in files], "label": "a", "source": "s"}
    return make_manifest(pd.DataFrame(rows), "test")


def png_of_size(width: int, height: int) -> bytes:
    """A small file that says it is large."""
    data = encode(Image.new("L", (1, 1)))
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("rule", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(32, 32), (20, 50), (96, 48), (1, 1)])
def test_resize_gives_the_size_asked_for(rule, size):
    out = resize(GREY, size, rule)
    assert out.shape == size
    assert out.dtype == np.uint8


def test_pad_keeps_the_aspect_and_centres_over_black():
    out = resize(np.full((50, 100), 200, np.uint8), (40, 40), "pad")
    assert (out[:10] == 0).all()
    assert (out[30:] == 0).all()
    assert (out[10:30] == 200).all()


def test_crop_keeps_the_aspect_and_the_centre():
    image = np.zeros((50, 100), np.uint8)
    image[:, 25:75] = 200
    assert (resize(image, (20, 20), "crop")[:, 1:-1] == 200).all()
    upright = np.zeros((100, 50), np.uint8)
    upright[25:75] = 200
    assert (resize(upright, (30, 30), "crop")[1:-1] == 200).all()


def test_stretch_uses_the_whole_image():
    image = np.zeros((50, 100), np.uint8)
    image[:, 50:] = 200
    out = resize(image, (10, 10), "stretch")
    assert (out[:, :4] == 0).all()
    assert (out[:, 6:] == 200).all()


def test_reduction_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert np.abs(resize(stripes, (8, 8), "stretch").astype(int) - 127).max() < 8


def test_an_image_of_the_right_size_is_not_touched():
    for rule in ("stretch", "pad", "crop"):
        np.testing.assert_array_equal(resize(GREY, GREY.shape, rule), GREY)


def test_load_images_fills_the_manifest_and_keeps_the_order(tmp_path):
    files = {f"{i:02d}.png": encode(Image.fromarray(np.full((8 + i, 9), i, np.uint8))) for i in range(30)}
    manifest = manifest_of(tmp_path, files)
    loaded, images = load_images(manifest, (6, 5), "stretch", "fail")
    assert images.shape == (30, 6, 5)
    assert images[:, 0, 0].tolist() == list(range(30))
    assert loaded["height"].tolist() == [8 + i for i in range(30)]
    assert loaded["width"].eq(9).all()
    assert loaded["sha256"].str.len().eq(64).all()
    assert loaded["sha256"].nunique() == 30
    assert manifest["sha256"].isna().all()


def bad_files(folder: Path) -> pd.DataFrame:
    good = encode(Image.fromarray(GREY))
    files = {f"good{i}.png": good for i in range(3)}
    files |= {"empty.png": b"", "text.png": b"hello", "cut.png": good[: len(good) // 2], "gone.png": None}
    files |= {"bomb.png": png_of_size(10_000, 10_000)} | {f"text{i}.jpg": b"hello" for i in range(7)}
    return manifest_of(folder, files)


def test_fail_names_the_first_ten_files_and_counts_all_by_kind(tmp_path):
    with pytest.raises(CxrnetError) as caught:
        load_images(bad_files(tmp_path), (8, 8), "pad", "fail")
    message = str(caught.value)
    assert "12 of 15 files give no image" in message
    assert "(1 empty, 1 missing, 8 not an image, 1 too many pixels, 1 truncated)" in message
    assert message.count("(not an image)") == 6
    assert "gone.png' (missing)" in message
    assert "and 2 more" in message
    assert "data.on_error=skip" in message
    assert "\n" not in message


def test_skip_leaves_bad_files_out_and_warns_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "cxrnet"), warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded, images = load_images(bad_files(tmp_path), (8, 8), "pad", "skip")
    assert loaded["image_id"].tolist() == ["good0.png", "good1.png", "good2.png"]
    assert images.shape == (3, 8, 8)
    assert loaded.index.tolist() == [0, 1, 2]
    (record,) = caplog.records
    assert "12 of 15 files" in record.getMessage()


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_no_image_left_is_an_error(tmp_path, on_error):
    with pytest.raises(CxrnetError, match=r"2 of 2 files give no image .2 missing.*not one image is left"):
        load_images(manifest_of(tmp_path, {"a.png": None, "b.png": None}), (8, 8), "pad", on_error)


def test_unknown_settings(tmp_path):
    manifest = manifest_of(tmp_path, {"a.png": encode(Image.fromarray(GREY))})
    with pytest.raises(CxrnetError, match=r"data.on_error: 'ignore' is not known; use fail or skip"):
        load_images(manifest, (8, 8), "pad", "ignore")
    with pytest.raises(CxrnetError, match=r"data.resize: 'squash' is not known; use stretch, pad, crop"):
        load_images(manifest, (8, 8), "squash", "fail")
    with pytest.raises(CxrnetError, match=r"data.size: \(0, 8\) is not a size"):
        load_images(manifest, (0, 8), "pad", "fail")


@pytest.mark.shared
def test_real_files_of_every_kind(shared):
    folder = shared / "data" / "covid_chestxray" / "images"
    kinds = {"P": 3, "RGBA": 82, "png called jpg": 17}
    seen = dict.fromkeys(kinds, 0)
    for path in folder.iterdir():
        with Image.open(path) as image:
            mode, size, kind = image.mode, image.size, image.format
        seen["P"] += mode == "P"
        seen["RGBA"] += mode == "RGBA"
        called_jpg = path.suffix.lower() in (".jpg", ".jpeg") and kind == "PNG"
        seen["png called jpg"] += called_jpg
        if mode in ("P", "RGBA") or called_jpg:
            read = read_image(path.read_bytes(), path.name)
            assert read.shape == size[::-1]
            assert read.std() > 10
    assert seen == kinds
