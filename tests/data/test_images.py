import contextlib
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

from cxrnet.data.decode import ImageError, read_image
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


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_grey_is_read_as_it_is(kind):
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(GREY), kind), "x"), GREY)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_formats(kind, mode):
    read = read_image(encode(Image.fromarray(GREY).convert(mode), kind, quality=95), "x")
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - GREY).max() < 8


def test_colour_becomes_luma():
    read = read_image(encode(Image.new("RGB", (2, 2), (255, 0, 0))), "x")
    assert (read == 76).all()  # 0.299 * 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_black(mode):
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(Image.fromarray(np.where(np.arange(60) < 30, 0, 255).astype(np.uint8)[None].repeat(40, 0)))
    read = read_image(encode(image), "x")
    assert (read[:, :30] == 0).all()
    np.testing.assert_array_equal(read[:, 30:], GREY[:, 30:])


def test_half_transparent_pixels_are_half_as_bright():
    assert (read_image(encode(Image.new("LA", (2, 2), (200, 128))), "x") == 100).all()


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 10, 10, 200, 200, 200])
    image.putdata([0, 1])
    assert read_image(encode(image), "x").tolist() == [[10, 200]]
    assert read_image(encode(image, transparency=1), "x").tolist() == [[10, 0]]
    assert read_image(encode(image, transparency=bytes([0, 255])), "x").tolist() == [[0, 200]]


def test_grey_with_a_transparent_value():
    assert read_image(encode(Image.fromarray(GREY[:1, :3]), transparency=4), "x").tolist() == [[0, 2, 0]]


def test_one_bit_and_cmyk():
    bits = Image.fromarray(GREY > 100)
    assert set(np.unique(read_image(encode(bits), "x"))) == {0, 255}
    cmyk = read_image(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 55)), "JPEG", quality=95), "x")
    assert np.abs(cmyk.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_from_its_own_range(kind):
    twelve_bits = np.array([[1000, 2000], [3000, 5095]], np.uint16)
    assert read_image(encode(Image.fromarray(twelve_bits), kind), "x").tolist() == [[0, 62], [125, 255]]


def test_16_bit_big_endian_and_32_bit():
    values = np.array([[100, 200], [300, 400]], np.int32)
    big_endian = Image.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes())
    for image in (big_endian, Image.fromarray(values), Image.fromarray(values.astype(np.float32))):
        assert read_image(encode(image, "TIFF"), "x").tolist() == [[0, 85], [170, 255]]


def test_constant_16_bit_image_is_black():
    assert (read_image(encode(Image.fromarray(np.full((3, 3), 4095, np.uint16))), "x") == 0).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_turns_the_image_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    read = read_image(encode(Image.fromarray(GREY), kind, exif=exif), "x")
    assert read.shape == (60, 40)
    assert np.abs(read.astype(int) - np.rot90(GREY, -1)).mean() < 4


def test_exif_orientation_of_16_bit():
    exif = Image.Exif()
    exif[0x0112] = 3
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert read_image(encode(deep, exif=exif), "x").tolist() == [[255, 0]]


def test_first_frame_of_an_animation():
    frames = [Image.new("L", (4, 4), value) for value in (50, 200)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(data, "x") == 50).all()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (png_of_size(9_434, 9_435), "too many pixels"),  # Pillow itself lets it pass
        (png_of_size(10_000, 10_000), "too many pixels"),  # Pillow warns
        (png_of_size(60_000, 60_000), "too many pixels"),  # Pillow raises
    ],
)
def test_bad_files_have_a_kind_and_one_line(data, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ImageError) as caught:
            read_image(data, "lungs.png")
    assert caught.value.kind == kind
    assert str(caught.value).startswith("'lungs.png' ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_cut_off_files_are_truncated(kind, part):
    noise = np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match="'x' is cut off or damaged; copy it again") as caught:
        read_image(data[: int(part * len(data))], "x")
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damaged_bytes_give_an_image_or_an_image_error(kind):
    rng = np.random.default_rng(1)
    sound = encode(Image.fromarray(GREY), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow comments on damaged files; only the outcome counts here
        for _ in range(150):
            data = bytearray(sound)
            for place in rng.integers(0, min(len(data), 400), 3):
                data[place] = rng.integers(256)
            with contextlib.suppress(ImageError):
                assert read_image(bytes(data), "x").dtype == np.uint8


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
    seen = []
    loaded, images = load_images(manifest, (6, 5), "stretch", "fail", seen.append)
    assert images.shape == (30, 6, 5)
    assert images[:, 0, 0].tolist() == list(range(30))
    assert loaded["height"].tolist() == [8 + i for i in range(30)]
    assert loaded["width"].eq(9).all()
    assert loaded["sha256"].str.len().eq(64).all()
    assert loaded["sha256"].nunique() == 30
    assert manifest["sha256"].isna().all()
    assert sum(seen) == 30


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
