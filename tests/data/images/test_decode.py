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


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


LONG = zlib.compress(b"x" * 3_000_000)


@pytest.mark.parametrize("at_end", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "text",
    [
        chunk(b"zTXt", b"Comment\0\0" + LONG),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + LONG),
        chunk(b"iCCP", b"profile\0\0" + LONG),
        chunk(b"tEXt", b"Comment\0" + b"x" * 70_000_000),
        chunk(b"tEXt", b"Comment\0whatever")[:-4] + b"oops",
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt", "checksum"],
)
def test_a_png_is_read_whatever_its_texts(text, at_end):
    data = encode(Image.fromarray(GREY))
    place = len(data) - 12 if at_end else 33
    np.testing.assert_array_equal(read_image(data[:place] + text + data[place:], "x"), GREY)


def test_a_long_text_does_not_turn_a_damaged_png_into_an_image():
    data = encode(Image.fromarray(GREY))
    with pytest.raises(ImageError, match="cut off or damaged"):
        read_image(data[:33] + chunk(b"zTXt", b"Comment\0\0" + LONG) + data[33:-40], "x")


def test_exif_orientation_beside_a_long_text():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(Image.fromarray(GREY), exif=exif)
    read = read_image(data[:33] + chunk(b"zTXt", b"Comment\0\0" + LONG) + data[33:], "x")
    np.testing.assert_array_equal(read, np.rot90(GREY, -1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_as_pillow_turns_it(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for image in (Image.fromarray(GREY), Image.fromarray(GREY.astype(np.uint16) * 16)):
        data = encode(image, kind, exif=exif)
        with Image.open(io.BytesIO(data)) as opened:
            upright = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
        expected = upright if image.mode == "L" else np.rint(upright * 255 / upright.max())
        np.testing.assert_array_equal(read_image(data, "x"), expected)


def test_what_would_take_too_much_memory_is_refused_before_it_is_decoded():
    data = bytearray(encode(Image.new("RGB", (1, 1)), "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    data[place : place + 4] = struct.pack("<I", (8_900 - 1) | (8_900 - 1) << 14)
    with pytest.raises(ImageError, match="would take over 1 GB of memory; make it smaller") as caught:
        read_image(bytes(data), "x")
    assert caught.value.kind == "too much memory"
