"""Images of more than 8 bits: every kind gives what the same picture gives as grey PNG of 16 bits, or is refused."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from cxrnet.data.images.decode import ImageError, read_image
from cxrnet.data.images.deep import scale

# 12 bits, no value twice in a row: the lower byte counts.
TWELVE = (np.add.outer(np.arange(40) * 37, np.arange(60) * 43) % 4096).astype(np.uint16)
CHANNELS = {1: 0, 2: 4, 3: 2, 4: 6}  # colour types of PNG
RAW, DEFLATE = 1, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def png(pixels: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """``(H, W, C) uint16`` as PNG, which Pillow can't write for colour."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, CHANNELS[channels], 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    values: np.ndarray,
    order: str = "<",
    white_is_zero: bool = False,
    compression: int = RAW,
    alpha: int | None = None,
    planes: bool = False,
) -> bytes:
    """``(H, W)`` or ``(H, W, C)`` of any type as TIFF in one strip."""
    pixels = values.reshape(*values.shape[:2], -1)
    height, width, samples = pixels.shape
    strip = (np.moveaxis(pixels, 2, 0) if planes else pixels).astype(values.dtype.newbyteorder(order)).tobytes()
    strips = (
        [strip] if not planes else [strip[i * len(strip) // samples :][: len(strip) // samples] for i in range(samples)]
    )
    if compression == DEFLATE:
        strips = [zlib.compress(each) for each in strips]
    ends = np.cumsum([0, *map(len, strips)]).tolist()
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    directory = ImageFileDirectory_v2(head)
    tags = {256: width, 257: height, 258: (values.dtype.itemsize * 8,) * samples, 259: compression}
    tags |= {262: 2 if samples > 2 else 0 if white_is_zero else 1, 277: samples, 278: height, 284: 2 if planes else 1}
    tags |= {273: tuple(ends[:-1]), 279: tuple(map(len, strips))}  # offsets from the end of the directory
    tags |= {339: ({"u": UNSIGNED, "i": SIGNED, "f": FLOAT}[values.dtype.kind],) * samples}
    for tag, value in (tags | ({} if alpha is None else {338: alpha})).items():
        directory[tag] = value
    return head + directory.tobytes(8) + b"".join(strips)


def stacked(*bands: np.ndarray) -> np.ndarray:
    return np.stack(bands, axis=2)


@pytest.fixture
def want() -> np.ndarray:
    return read_image(png(TWELVE[..., None]), "grey.png")


OPAQUE = np.full_like(TWELVE, 65535)


@pytest.mark.parametrize(
    "bands", [[TWELVE] * 3, [TWELVE] * 3 + [OPAQUE], [TWELVE, OPAQUE]], ids=["RGB", "RGBA", "grey and alpha"]
)
def test_png_of_16_bits_in_colour_is_read_as_the_grey_one(bands, want):
    assert len(np.unique(want)) > 200
    np.testing.assert_array_equal(read_image(png(stacked(*bands)), "x"), want)


def test_colour_of_16_bits_becomes_luma_of_16_bits():
    read = read_image(png(stacked(TWELVE, TWELVE * 0, TWELVE * 0)), "x").astype(int)
    luma = np.rint(TWELVE * 0.299)
    assert np.abs(read - (luma - luma.min()) * 255 / np.ptp(luma)).max() <= 1


def test_transparent_pixels_of_16_bits_lie_over_black():
    grey, half = np.full((4, 4), 1000, np.uint16), np.full((4, 4), 65535, np.uint16)
    half[:, 1], half[:, 2] = 32768, 0
    for bands in ([grey, half], [grey] * 3 + [half]):
        assert read_image(png(stacked(*bands)), "x")[0].tolist() == [255, 128, 0, 255]
    row = np.array([[1000, 3000, 2000]], np.uint16)
    assert read_image(png(row[..., None], (3000,)), "x").tolist() == [[128, 0, 255]]
    assert read_image(png(stacked(row, row, row), (3000, 3000, 3000)), "x").tolist() == [[128, 0, 255]]


@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grey_tiff_of_every_kind(kind, order, compression, white_is_zero, want):
    values = TWELVE.astype(kind) - (np.int16(1000) if kind in (np.int16, np.int32) else kind(0))
    read = read_image(tiff(values, order, white_is_zero, compression), "x")
    np.testing.assert_array_equal(read, 255 - want if white_is_zero else want)


@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alpha", [None, 0, 1, 2], ids=["RGB", "ignored", "multiplied", "alpha"])
def test_colour_tiff_of_16_bits(order, compression, alpha, want):
    bands = [TWELVE] * 3 + ([] if alpha is None else [OPAQUE])
    np.testing.assert_array_equal(read_image(tiff(stacked(*bands), order, False, compression, alpha), "x"), want)


@pytest.mark.parametrize("kind", [np.uint16, np.uint8])
def test_first_page_of_a_tiff(kind):
    pages = [Image.fromarray((np.arange(12).reshape(3, 4) * factor).astype(kind)) for factor in (1, 0)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    read = read_image(buffer.getvalue(), "x")
    assert read[0, 0] == 0
    assert len(np.unique(read)) == 12


def test_unsigned_32_bits_have_no_sign():
    values = np.array([[0, 2**31], [2**30, 2**32 - 1]], np.uint32)
    assert read_image(tiff(values), "x").tolist() == [[0, 128], [64, 255]]


@pytest.mark.parametrize(
    "data",
    [
        tiff(TWELVE.astype(np.float64)),
        tiff(TWELVE.astype(np.float16)),
        tiff(stacked(TWELVE, OPAQUE), alpha=2),
        tiff(stacked(TWELVE, TWELVE, TWELVE), planes=True),
        tiff(stacked(TWELVE, TWELVE, TWELVE), planes=True, compression=DEFLATE),
        tiff(TWELVE.astype(np.int8)),
    ],
    ids=["float64", "float16", "grey and alpha", "planes", "packed planes", "int8"],
)
def test_a_tiff_that_pillow_would_read_wrongly_is_refused(data):
    with pytest.raises(ImageError, match=r"'x' is a TIFF of a kind that is not read \(.+\); save") as caught:
        read_image(data, "x")
    assert caught.value.kind == "not supported"


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_no_image(value):
    values = TWELVE.astype(np.float32)
    values[3, 3] = value
    with pytest.raises(ImageError, match="'x' holds values that are not finite") as caught:
        read_image(tiff(values), "x")
    assert caught.value.kind == "not finite"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "sound",
    [
        png(stacked(TWELVE, TWELVE, TWELVE, OPAQUE)),
        png(stacked(TWELVE, OPAQUE)),
        tiff(stacked(TWELVE, TWELVE, TWELVE), ">"),
        tiff(TWELVE.astype(np.float32), ">", True, DEFLATE),
    ],
    ids=["RGBA", "grey and alpha", "TIFF", "float"],
)
def test_damaged_bytes_give_an_image_or_an_image_error(sound):
    rng = np.random.default_rng(1)
    for _ in range(100):
        data = bytearray(sound)
        for place in rng.integers(0, 300, 3):
            data[place] = rng.integers(256)
        with contextlib.suppress(ImageError):
            assert read_image(bytes(data[: rng.integers(100, 2 * len(data))]), "x").dtype == np.uint8


def test_large_images_are_converted_piece_by_piece_to_the_same(monkeypatch, encode):
    files = [png(stacked(TWELVE, TWELVE, TWELVE, OPAQUE // 2)), png(TWELVE[..., None])]
    eight = Image.fromarray((TWELVE % 251).astype(np.uint8))
    files += [encode(eight.convert("RGBA")), encode(eight.convert("LA")), encode(eight.convert("P"), transparency=3)]
    whole = [read_image(data, "x") for data in files]
    monkeypatch.setattr("cxrnet.data.images.deep._STRIP", 7 * 60)
    for data, expected in zip(files, whole, strict=True):
        np.testing.assert_array_equal(read_image(data, "x"), expected)


def scaled(values: np.ndarray, rows: int = 7):
    return scale(lambda: (values[top : top + rows] for top in range(0, len(values), rows)), *values.shape)


@pytest.fixture
def twelve() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4096, (100, 80)).astype(np.uint16)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_without_outliers_from_minimum_to_maximum(twelve, kind):
    wide = twelve.astype(np.float64)
    want = np.rint((wide - wide.min()) * (255 / np.ptp(wide)))
    pixels, outliers = scaled(twelve.astype(kind))
    np.testing.assert_array_equal(pixels, want)
    assert not outliers


@pytest.mark.parametrize("share", [1 / 8000, 0.005, 0.015], ids=["one pixel", "small letter", "letter"])
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_hot_pixels_and_burned_in_letters_do_not_crush_the_rest(twelve, share, kind):
    clean, values = scaled(twelve).pixels, twelve.astype(kind)
    hot = np.zeros(values.size, bool)
    hot[: round(share * values.size)] = True
    values.ravel()[hot] = 65535
    pixels, outliers = scaled(values)
    assert outliers
    assert (pixels.ravel()[hot] == 255).all()
    assert np.abs(pixels.astype(int) - clean).ravel()[~hot].max() <= 1


def test_letters_with_soft_edges_and_dead_pixels(twelve):
    values = twelve.astype(np.int32) + 30_000
    values.ravel()[:100] = np.linspace(36_000, 65_535, 100)
    values[50, 50] = -30_000
    pixels, outliers = scaled(values)
    assert outliers
    assert len(np.unique(pixels.ravel()[100:])) > 80  # a third at least
    assert pixels[50, 50] == 0


@pytest.mark.parametrize(("share", "clipped"), [(0.01, True), (0.09, True), (0.2, False)])
def test_a_bar_at_the_top_leaves_the_rest_its_levels(share, clipped):
    values = np.random.default_rng(0).integers(0, 4096, (200, 200)).astype(np.uint16)
    values[: int(200 * share)] = 65535
    pixels, outliers = scaled(values)
    assert outliers == clipped
    assert (len(np.unique(pixels)) > 250) == clipped


def test_a_bright_region_without_a_gap_below_it_stays():
    values = np.random.default_rng(0).integers(0, 65000, (200, 200)).astype(np.uint16)
    values[:6] = 65535
    assert not scaled(values).outliers
