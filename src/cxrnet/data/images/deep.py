"""Images of more than 8 bits: samples out of Pillow, and their scaling to 8 bits.

Pillow keeps the upper 8 bits of each sample when an image has colour. Decoded a second time with the order of the bytes
turned round, an image gives the lower 8. A TIFF of a kind that Pillow is not known to read rightly is refused: it
confuses the order of bytes of some, and says nothing.
"""

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

Values = npt.NDArray[np.generic]

_GREY_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_STRIP = 1_000_000  # pixels that are converted at a time

# Tags of TIFF.
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLES, _FORMATS, _ORIENTATION = 258, 262, 284, 277, 339, 274
_STRIP_HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
_NATIVE = "L" if sys.byteorder == "little" else "B"
# libtiff hands samples over in the order of this machine, but Pillow takes some for those of the file.
_AFTER_LIBTIFF = {"I;16S": "I;16NS", "I;16BS": "I;16NS", "I;32S": "I;32NS", "I;32BS": "I;32NS"} | {
    "F;32F": "F;32NF",
    "F;32BF": "F;32NF",
}

_TAIL = 2  # per cent of the pixels at either end that may be outliers: burned-in letters cover less
_REACH = 2  # an outlier lies further from the middle than so many times its width
_REST = 0.9  # share of the pixels that is left where a bar at the greatest value is taken for an outlier
_SAMPLE = 250_000  # pixels on a grid that percentiles are taken of, at about


class UnsupportedError(ValueError):
    """An image of a kind that is not read; the message describes it."""


class NotFiniteError(ValueError):
    """A value is infinite or not a number."""


@dataclass(frozen=True)
class Deep:
    """Recipe for decoding an image of more than 8 bits."""

    rawmodes: tuple[str, ...]  # of Pillow, one a decoding: as it is, or its upper bytes and its lower
    paired: bool = False  # the bytes of one pixel lie in four bands: two of grey, two of alpha
    alpha: bool = False  # the last sample says how opaque a pixel is
    unsigned: bool = False  # integers of 32 bits that Pillow takes for signed ones
    inverted: bool = False  # the least value is white
    transparent: int | tuple[int, ...] | None = None  # this value, or colour, is transparent

    def strips(self, images: Sequence[Image.Image]) -> Iterator[Values]:
        """Give grey values ``(h, W)`` of the decoded images, one for each raw mode, from the top; transparent is 0."""
        for parts in zip(*map(in_strips, images), strict=True):
            yield self._grey([np.asarray(part) for part in parts])

    def _grey(self, parts: list[npt.NDArray[Any]]) -> Values:
        if self.paired:
            wide = parts[0].view(">u2").astype(np.uint32)
            return _over_black(wide[..., 0], wide[..., 1])
        if len(parts) == 1:
            values = parts[0].view(np.uint32) if self.unsigned else parts[0]
            return values if self.transparent is None else np.where(values == self.transparent, 0, values)
        wide = parts[0].astype(np.uint32) << 8 | parts[1]
        # As Pillow weighs 8 bits; the sum fits into 32, and grey stays what it is.
        luma = (wide[..., 0] * 19595 + wide[..., 1] * 38470 + wide[..., 2] * 7471 + 2**15) >> 16
        if self.transparent is not None:
            luma[(wide[..., :3] == self.transparent).all(axis=2)] = 0
        return _over_black(luma, wide[..., 3]) if self.alpha else luma.astype(np.uint16)


def deep(image: ImageFile.ImageFile) -> Deep | None:
    """Tell how to decode an opened image of more than 8 bits; ``None`` for any other."""
    if isinstance(image, TiffImageFile):
        return _deep_tiff(image)
    rawmode = _rawmode(image)
    if rawmode == "LA;16B":
        return Deep(("RGBA",), paired=True)
    transparent = image.info.get("transparency")
    if rawmode in ("RGB;16B", "RGBA;16B"):
        return Deep((rawmode, rawmode[:-1] + "L"), alpha=rawmode == "RGBA;16B", transparent=transparent)
    return Deep((rawmode,), transparent=transparent) if image.mode in _GREY_MODES else None


def set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    """Change the raw mode in which an opened image is decoded."""
    image.tile = [
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *(tile.args or ())[1:]))
        for tile in image.tile
    ]


def in_strips(image: Image.Image) -> Iterator[Image.Image]:
    """Cut an image from the top: converted as a whole, the memory would hold it several times over."""
    rows = max(1, _STRIP // image.width)
    if image.height <= rows:
        yield image
    else:
        for top in range(0, image.height, rows):
            yield image.crop((0, top, image.width, min(top + rows, image.height)))


def with_black_as_least(data: bytes) -> bytes | None:
    """Change the header of a TIFF whose least value is white to say black; ``None`` for any other file.

    Pillow opens only some of the first kind, and takes their values as they are.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            if struct.unpack_from(order + "HHIH", data, place) == (_PHOTOMETRIC, 3, 1, 0):
                return data[: place + 8] + struct.pack(order + "H", 1) + data[place + 10 :]
    except struct.error:
        pass
    return None


def tiff_kind(data: bytes) -> str | None:
    """Describe what a TIFF holds that could not be opened; ``None`` where the header itself is not whole."""
    try:
        directory, file = ImageFileDirectory_v2(data[:8]), BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        return _described(directory) if {256, 257, _BITS, _PHOTOMETRIC} <= directory.keys() else None
    except Exception:  # whatever a damaged header leads to
        return None


def tiff_bytes(image: TiffImageFile, each: int) -> int:
    """Count the bytes that decoding an opened TIFF of ``each`` bytes a pixel needs besides the image."""
    tags = image.tag_v2
    turned = image.width * image.height * each if tags.get(_ORIENTATION, 1) != 1 else 0  # is there twice
    if image.tile[0].codec_name != "libtiff":
        return turned
    across, down = tags.get(_TILE_WIDTH, image.width), tags.get(_TILE_HEIGHT, tags.get(_STRIP_HEIGHT, image.height))
    bits = max(_all(tags, _BITS)) * tags.get(_SAMPLES, 1)  # libtiff unpacks a strip or a tile at a time
    return int(turned + across * min(down, image.height) * bits // 8)


def _deep_tiff(image: TiffImageFile) -> Deep | None:
    tags = image.tag_v2
    bits, formats = _all(tags, _BITS), _all(tags, _FORMATS)
    signed = max(formats) != 1
    if max(bits) <= 8 and not signed:
        return None
    rawmode, libtiff = _rawmode(image), image.tile[0].codec_name == "libtiff"
    inverted = tags.get(_PHOTOMETRIC, 0) == 0  # as Pillow takes one of 8 bits that does not say
    if image.mode in _GREY_MODES:
        if libtiff:
            rawmode = _AFTER_LIBTIFF.get(rawmode, rawmode)
        return Deep((rawmode,), unsigned=image.mode == "I" and not signed, inverted=inverted)
    kind, _, depth = rawmode.partition(";")
    if kind not in ("RGB", "RGBA", "RGBX", "RGBa") or not depth.startswith("16") or tags.get(_PLANES, 1) == 2 or signed:
        raise UnsupportedError(_described(tags))
    order = _NATIVE if libtiff else depth[2:]
    other = "B" if order == "L" else "L"
    # What was multiplied by its alpha before lies over black already.
    bands = "RGBA" if kind == "RGBa" else kind
    return Deep((f"{bands};16{order}", f"{bands};16{other}"), alpha=kind == "RGBA")


def _all(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    values = tags.get(tag, 1)
    return values if isinstance(values, tuple) else (values,)


def _described(tags: ImageFileDirectory_v2) -> str:
    names = {1: "unsigned", 2: "signed", 3: "float"}
    bits, formats = _all(tags, _BITS), _all(tags, _FORMATS)
    planes = ", in planes" if tags.get(_PLANES, 1) == 2 and tags.get(_SAMPLES, 1) > 1 else ""
    number = tags.get(_SAMPLES, len(bits))
    return f"{number} x {max(bits)} bits, {names.get(max(formats), 'of another kind')}{planes}"


def _rawmode(image: ImageFile.ImageFile) -> str:
    if not image.tile:
        return ""
    args = image.tile[0].args
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _over_black(grey: npt.NDArray[np.uint32], alpha: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    if (alpha == 2**16 - 1).all():
        return grey.astype(np.uint16)
    return ((grey * alpha + 2**15 - 1) // (2**16 - 1)).astype(np.uint16)


class Scaled(NamedTuple):
    """Grey levels of 8 bits, ``(H, W)``, and whether outliers were clipped."""

    pixels: npt.NDArray[np.uint8]
    outliers: bool


def scale(strips: Callable[[], Iterable[Values]], height: int, width: int) -> Scaled:
    """Scale values linearly to 0..255; a constant image becomes 0.

    A hospital's files hold 10 to 14 bits in 16 and do not say how many, so the range is that of the values. But one hot
    pixel or a letter burned in at 65535 would leave 12 bits with 16 levels. So values count as outliers that lie
    further from the middle 96 % of the pixels than twice their width, and are clipped; the middle is that of the rest
    where up to 10 % have the greatest value and nothing else lies in the upper half of the range. Without such values,
    as in 99.6 % of 1,642 real radiographs (before the greatest value was looked at), the range is from the minimum to
    the maximum; with them the middle still gets a third of the levels at least, a fifth if there are some at both ends.

    ``strips`` gives the values from the top, ``(h, W)`` each, integers or floats, anew each time.
    """
    # Minimum, maximum, and the percentiles between which the middle of the values lies.
    step = max(1, isqrt(height * width // _SAMPLE))
    ends, sample = [], []
    for strip in strips():
        ends += [float(strip.min()), float(strip.max())]  # of what is not a number, not a number
        if not np.isfinite(ends[-2:]).all():
            raise NotFiniteError
        sample.append(strip[::step, ::step].ravel())
    low, high = min(ends), max(ends)
    values: npt.NDArray[Any] = np.concatenate(sample)
    rest = values[values < high]
    if rest.size >= _REST * values.size and float(rest.max()) < low + (high - low) / 2:
        values = rest  # a bar at the very top, with nothing near it
    first, last = np.percentile(values, [_TAIL, 100 - _TAIL])
    reach = _REACH * (last - first)
    least, greatest = first - reach, last + reach
    outliers = bool(reach > 0 and (low < least or high > greatest))
    if outliers:
        kept = (strip[(strip >= least) & (strip <= greatest)] for strip in strips())
        limits = [(float(inside.min()), float(inside.max())) for inside in kept if inside.size]
        low, high = min(limit[0] for limit in limits), max(limit[1] for limit in limits)
    pixels = np.zeros((height, width), np.uint8)
    if low < high:

        def levels_of(values: Values) -> npt.NDArray[np.uint8]:
            wide = np.clip(values.astype(np.float64), low, high)
            levels: npt.NDArray[np.uint8] = np.rint((wide - low) * (255 / (high - low))).astype(np.uint8)
            return levels

        levels, top = levels_of(np.arange(2**16)), 0  # looking up is faster than the arithmetic
        for strip in strips():
            looked_up = strip.dtype.kind == "u" and strip.dtype.itemsize == 2
            pixels[top : top + len(strip)] = levels[strip] if looked_up else levels_of(strip)
            top += len(strip)
    return Scaled(pixels, outliers)
