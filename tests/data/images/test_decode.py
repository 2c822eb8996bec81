import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from cxrnet.data.images.decode import ImageError, read_image

GREY = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2  # (40, 60), 0..196
FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]
TWELVE = np.array([[1000, 2000], [3000, 5095]])
QUARTERS = [[0, 62], [125, 255]]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_size(width: int, height: int) -> bytes:
    """A small file that says it is large."""
    data = encoded(Image.new("L", (1, 1)))
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_grey_is_read_as_it_is(kind):
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(GREY), kind), "x"), GREY)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_formats(kind, mode):
    read = read_image(encoded(Image.fromarray(GREY).convert(mode), kind, quality=95), "x")
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - GREY).max() < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_black(mode):
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(Image.fromarray(np.where(np.arange(60) < 30, 0, 255).astype(np.uint8)[None].repeat(40, 0)))
    read = read_image(encoded(image), "x")
    assert (read[:, :30] == 0).all()
    np.testing.assert_array_equal(read[:, 30:], GREY[:, 30:])


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (Image.new("RGB", (2, 2), (255, 0, 0)), 76),  # 0.299 * 255
        (Image.new("LA", (2, 2), (200, 128)), 100),  # half transparent
        (Image.fromarray(np.full((3, 3), 4095, np.uint16)), 0),  # constant, 16 bits
        (Image.new("1", (2, 2), 1), 255),
    ],
)
def test_constant_images(image, value):
    assert (read_image(encoded(image), "x") == value).all()


@pytest.mark.parametrize(
    ("transparency", "row"), [(None, [10, 200]), (1, [10, 0]), (bytes([0, 255]), [0, 200])], ids=["", "index", "alpha"]
)
def test_palette(transparency, row):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 10, 10, 200, 200, 200])
    image.putdata([0, 1])
    options = {} if transparency is None else {"transparency": transparency}
    assert read_image(encoded(image, **options), "x").tolist() == [row]


def test_cmyk():
    read = read_image(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 55)), "JPEG", quality=95), "x")
    assert np.abs(read.astype(int) - 200).max() <= 2


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(TWELVE.astype(np.uint16)), "PNG"),
        (Image.fromarray(TWELVE.astype(np.uint16)), "TIFF"),
        (Image.frombytes("I;16B", (2, 2), TWELVE.astype(">u2").tobytes()), "TIFF"),
        (Image.fromarray(TWELVE.astype(np.int32)), "TIFF"),
        (Image.fromarray(TWELVE.astype(np.float32)), "TIFF"),
    ],
)
def test_more_than_8_bits_are_scaled_from_their_own_range(image, kind):
    assert read_image(encoded(image, kind), "x").tolist() == QUARTERS


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_as_pillow_turns_it(kind, orientation):
    for image in (Image.fromarray(GREY), Image.fromarray(GREY.astype(np.uint16) * 16)):
        data = encoded(image, kind, exif=turned(orientation))
        with Image.open(io.BytesIO(data)) as opened:
            upright = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
        expected = upright if image.mode == "L" else np.rint(upright * 255 / upright.max())
        np.testing.assert_array_equal(read_image(data, "x"), expected)


def test_first_frame_of_an_animation():
    frames = [Image.new("L", (4, 4), value) for value in (50, 200)]
    assert (read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "x") == 50).all()


def webp_of_size(side: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    data[place : place + 4] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (png_of_size(9_434, 9_435), "too many pixels"),  # Pillow itself lets it pass
        (png_of_size(10_000, 10_000), "too many pixels"),  # Pillow warns
        (png_of_size(60_000, 60_000), "too many pixels"),  # Pillow raises
        (webp_of_size(8_900), "too much memory"),
    ],
)
def test_bad_files_have_a_kind_and_one_line(data, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ImageError, match=r"^'lungs.png' [^\n]+$") as caught:
            read_image(data, "lungs.png")
    assert caught.value.kind == kind


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_cut_off_files_are_truncated(kind, part):
    noise = np.random.default_rng(0).integers(0, 255, (60, 50), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match="'x' is cut off or damaged") as caught:
        read_image(data[: int(part * len(data))], "x")
    assert caught.value.kind == "truncated"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_give_an_image_or_an_image_error(kind):
    rng = np.random.default_rng(1)
    sound = encoded(Image.fromarray(GREY), kind)
    for _ in range(150):
        data = bytearray(sound)
        for place in rng.integers(0, min(len(data), 400), 3):
            data[place] = rng.integers(256)
        with contextlib.suppress(ImageError):
            assert read_image(bytes(data), "x").dtype == np.uint8


LONG = zlib.compress(b"x" * 3_000_000)
PACKED = chunk(b"zTXt", b"Comment\0\0" + LONG)


@pytest.mark.parametrize("at_end", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "text",
    [
        PACKED,
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
        chunk(b"iCCP", b"profile\0\0" + LONG),
        chunk(b"tEXt", b"Comment\0" + b"x" * 70_000_000),
        chunk(b"tEXt", b"Comment\0whatever")[:-4] + b"oops",
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt", "checksum"],
)
def test_a_png_is_read_whatever_its_texts(text, at_end):
    data = encoded(Image.fromarray(GREY), exif=turned(6))
    place = len(data) - 12 if at_end else 33
    np.testing.assert_array_equal(read_image(data[:place] + text + data[place:], "x"), np.rot90(GREY, -1))


def test_a_long_text_does_not_turn_a_damaged_png_into_an_image():
    data = encoded(Image.fromarray(GREY))
    with pytest.raises(ImageError, match="cut off or damaged"):
        read_image(data[:33] + PACKED + data[33:-40], "x")
