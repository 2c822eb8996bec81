"""Decoding: from the bytes of an image file to one grey channel of 8 bits."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import zip_longest
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from cxrnet.data.images.deep import (
    NotFiniteError,
    Scaled,
    UnsupportedError,
    deep,
    in_strips,
    scale,
    set_rawmode,
    tiff_bytes,
    tiff_kind,
    with_black_as_least,
)
from cxrnet.data.images.dicom import BEGINNING, Dicom, DicomError, is_dicom
from cxrnet.errors import CxrnetError

UInt8Array = npt.NDArray[np.uint8]

# Only these decoders are tried; Pillow has others, some of which start outside programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
# A 43 cm detector with pixels of 0.1 mm gives 18.5 million, so a radiograph is far below this. It is also
# just below 89 478 485, from where on Pillow warns: no image that is accepted here makes it warn.
_MAX_PIXELS = 89_000_000
# What decoding one image may need, its file included: with what else there is, a gigabyte. Images of _MAX_PIXELS need
# less, but for WEBP (up to 56 million pixels) and some of 16 bits in colour with alpha.
MAX_MEMORY = 900_000_000

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # a colour profile is packed as a text is, and not used
_XMP = b"XML:com.adobe.xmp\0\0"  # not packed: may say how the image is turned

# Bytes a pixel in Pillow; other modes have 4.
_BYTES = {"1": 1, "L": 1, "P": 1} | dict.fromkeys(("I;16", "I;16L", "I;16B", "I;16N"), 2)
_WEBP_BYTES = 12  # a pixel, besides: two canvases, and one as it is handed over
_RESIZING = 4  # bytes a pixel, of which one is the image
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_TURNS: dict[int, Callable[[UInt8Array], UInt8Array]] = {  # EXIF orientation
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.rot90(image, 2).T,
    8: np.rot90,
}
_MESSAGES = {
    "missing": "cannot be read ({}); put the file there",
    "not a file": "is a folder, pipe, device or socket; give an image file",
    "empty": "is empty (0 bytes); copy it again or remove it",
    "not an image": f"is not an image ({', '.join(_FORMATS)}, DICOM); remove it",
    "no reader": "is a DICOM file, and pydicom is not installed; pip install 'cxrnet[dicom]'",
    "no radiograph": "is a DICOM file, but no radiograph ({}); give CR, DX or secondary captures",
    "several frames": "is a DICOM file of several frames; give one frame a file",
    "compression": "is a DICOM file compressed in a way that is not read; pip install 'cxrnet[dicom]' or unpack it",
    "truncated": "is cut off or damaged; copy it again or remove it",
    "not supported": "is a TIFF of a kind that is not read ({}); save it as grey PNG of 16 bits or remove it",
    "not finite": "holds values that are not finite (inf or NaN); save it with numbers or remove it",
    "too many pixels": f"has over {_MAX_PIXELS // 1_000_000} million pixels; make it smaller or remove it",
    "too much memory": "would take over 1 GB of memory; make it smaller, save it as grey PNG or remove it",
}


class ImageError(CxrnetError):
    """A file that gives no image; ``kind`` is one of ``_MESSAGES``."""

    def __init__(self, kind: str, name: str, detail: str = "") -> None:
        super().__init__(f"'{name}' {_MESSAGES[kind].format(detail)}")
        self.kind = kind


class Picture:
    """An image file of which only the header has been read; ``name`` is for messages.

    Attributes:
        pixels: number of them.
        memory: bytes that decoding and resizing it will need at most, the file included.

    Raises:
        ImageError: the file is empty, not an image, or one that is not read.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._white_is_least = False
        self._dicom: Dicom | None = None
        if file.seek(0, 2) > MAX_MEMORY:
            raise ImageError("too much memory", name)
        if is_dicom(self._data(BEGINNING)):
            with self._said_of_dicom():
                self._dicom = Dicom(file)
            self.pixels = self._dicom.pixels
            self._check(self.pixels, self._dicom.memory)
            return
        self._image = self._open()
        self.pixels = self._image.width * self._image.height
        self._check(self.pixels)
        try:
            self._deep = deep(self._image)
        except UnsupportedError as error:
            raise ImageError("not supported", name, str(error)) from error
        except Exception as error:  # damaged data makes Pillow raise all kinds, OverflowError included
            raise ImageError("truncated", name) from error
        if not self._deep:
            with suppress(Exception):  # decoding will say what is wrong
                self._image.draft("L", None)  # of a colour JPEG only the luma is decoded; others know no drafts
        self._check(0, self._memory_needed())

    def decode(self) -> Scaled:
        """Decode it, once; the file is closed then."""
        if self._dicom is not None:
            with self._said_of_dicom():
                return self._dicom.decode()
        try:
            images = self._loaded()
            turn = _TURNS.get(images[0].getexif().get(ExifTags.Base.Orientation, 1))
        except MemoryError:
            raise
        except Exception as error:  # as above
            if self._leave_texts_out():
                return Picture(self._file, self._name).decode()
            raise ImageError("truncated", self._name) from error
        self._file.close()  # gives its memory back, which what follows needs
        try:
            result = self._converted(images)
        except NotFiniteError as error:
            raise ImageError("not finite", self._name) from error
        except MemoryError:
            raise
        except Exception as error:  # as above
            raise ImageError("truncated", self._name) from error
        return result._replace(pixels=turn(result.pixels)) if turn else result

    def _check(self, pixels: int, memory: int = 0) -> None:
        if pixels > _MAX_PIXELS:
            raise ImageError("too many pixels", self._name)
        if memory > MAX_MEMORY:
            raise ImageError("too much memory", self._name)
        self.memory = memory

    @contextmanager
    def _said_of_dicom(self) -> Iterator[None]:
        try:
            yield
        except NotFiniteError:
            raise ImageError("not finite", self._name) from None
        except DicomError as error:
            raise ImageError(error.kind, self._name, error.detail) from None
        except MemoryError:
            raise
        except Exception:  # as below; what the error says may name a person
            raise ImageError("truncated", self._name) from None

    def _open(self) -> ImageFile.ImageFile:
        start = self._data(16)
        if not start:
            raise ImageError("empty", self._name)
        try:
            return self._opened()
        except _BOMB as error:
            raise ImageError("too many pixels", self._name) from error
        except Exception as error:  # as above
            if isinstance(error, OSError) and error.errno:
                raise  # the disk's, not Pillow's
            if self._leave_texts_out():
                return self._open()
            kinds = [kind for kind in _FORMATS if (accept := Image.OPEN[kind][1]) and accept(start) is True]
            if "TIFF" not in kinds:
                raise ImageError("truncated" if kinds else "not an image", self._name) from error
            data = self._data()
            if changed := with_black_as_least(data):
                self._file, self._white_is_least = BytesIO(changed), True
                with suppress(Exception):  # it is told below what the file is
                    return self._opened()
            kind = tiff_kind(data)
            raise ImageError("not supported" if kind else "truncated", self._name, kind or "") from error

    def _opened(self) -> ImageFile.ImageFile:
        self._file.seek(0)
        image = Image.open(self._file, formats=_FORMATS)
        assert isinstance(image, ImageFile.ImageFile)
        return image

    def _data(self, length: int = -1) -> bytes:
        self._file.seek(0)
        return self._file.read(length)

    def _leave_texts_out(self) -> bool:
        """Leave texts and the colour profile of a PNG out, if there are any; tell whether.

        Pillow unpacks a text into a megabyte at most, all into 64, as a small file may unpack into gigabytes. What is
        not unpacked needs no such limit.
        """
        data = self._data()
        if not data.startswith(_SIGNATURE):
            return False
        kept, start, place = [], 0, len(_SIGNATURE)
        while place + 8 <= len(data):
            length, name = struct.unpack_from(">I4s", data, place)
            end = place + 12 + length
            if name in _TEXTS and not data.startswith(_XMP, place + 8):
                kept.append(data[start:place])
                start = end
            place = end
        if kept:
            self._file = BytesIO(b"".join([*kept, data[start:]]))
        return bool(kept)

    def _memory_needed(self) -> int:
        image = self._image
        pixels = image.width * image.height
        each = _BYTES.get(image.mode, 4)
        decoded = pixels * each * (len(self._deep.rawmodes) if self._deep else 1)
        decoding = decoded
        if image.format == "WEBP":
            decoding += pixels * _WEBP_BYTES
        elif image.format == "JPEG" and image.info.get("progressive"):
            decoding += pixels * 2 * getattr(image, "layers", 3)  # all coefficients are kept to the last scan
        elif isinstance(image, TiffImagePlugin.TiffImageFile):
            decoding += tiff_bytes(image, each)
        return max(self._file.seek(0, 2) + decoding, decoded + pixels, pixels * _RESIZING)

    def _loaded(self) -> list[ImageFile.ImageFile]:
        rawmodes = self._deep.rawmodes if self._deep else ()
        images = [self._image, *(self._opened() for _ in rawmodes[1:])]
        for image, rawmode in zip_longest(images, rawmodes):
            if rawmode:
                set_rawmode(image, rawmode)
            image.load()
        return images

    def _converted(self, images: list[ImageFile.ImageFile]) -> Scaled:
        how, image = self._deep, images[0]
        if how is None:
            strips = (np.asarray(_to_grey(strip)) for strip in in_strips(image))
            grey = next(strips)
            if (top := len(grey)) < image.height:
                first, grey = grey, np.empty((image.height, image.width), np.uint8)
                grey[:top] = first
                for strip in strips:
                    grey[top : top + len(strip)] = strip
                    top += len(strip)
            return Scaled(grey, outliers=False)
        pixels, outliers = scale(lambda: how.strips(images), image.height, image.width)
        if (how.inverted or self._white_is_least) and pixels.any():  # not what is constant
            np.bitwise_not(pixels, out=pixels)
        return Scaled(pixels, outliers)


def read_image(data: bytes, name: str) -> UInt8Array:
    """Decode an image file, given as a whole, to one grey channel ``(H, W) uint8``, upright.

    The format is told by the content, not by the file's extension: PNG, JPEG, WEBP, BMP, TIFF, GIF (first frame) and
    DICOM (:mod:`cxrnet.data.images.dicom`). The EXIF orientation is applied. Colour becomes ITU-R BT.601 luma, which a
    JPEG holds as such; transparent pixels lie over black. More than 8 bits, grey or colour, are scaled by
    :func:`cxrnet.data.images.deep.scale`.

    Raises:
        ImageError: the file is none of these, cut off, of a kind that is not read, holds values that are not finite, or
            is too large; ``name`` is that of the file.
    """
    return Picture(BytesIO(data), name).decode().pixels


def _to_grey(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert("RGB")
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == "L" else image.convert("L")
