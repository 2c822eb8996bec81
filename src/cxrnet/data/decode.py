"""Decoding: from the bytes of an image file to one grey channel of 8 bits."""

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from cxrnet.errors import CxrnetError

UInt8Array = npt.NDArray[np.uint8]

# Only these decoders are tried; Pillow has others, some of which start outside programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
# A 43 cm detector with pixels of 0.1 mm gives 18.5 million, so a radiograph is far below this. It is also
# just below 89 478 485, from where on Pillow warns: no image that is accepted here makes it warn.
MAX_PIXELS = 89_000_000

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class ImageError(CxrnetError):
    """A file that gives no image.

    Attributes:
        kind: ``missing`` (not there or not readable), ``empty``, ``not an image``, ``truncated`` (cut off or
            otherwise impossible to decode) or ``too many pixels``.
        name: of the file.
    """

    def __init__(self, kind: str, name: str, what: str) -> None:
        super().__init__(f"'{name}' {what}")
        self.kind = kind
        self.name = name


def read_image(data: bytes, name: str) -> UInt8Array:
    """Decode an image file to one grey channel.

    The format is told by the content, not by the file's extension: PNG, JPEG, WEBP, BMP, TIFF and GIF (first
    frame). The EXIF orientation is applied. Colour becomes ITU-R BT.601 luma, which a JPEG holds as such; transparent
    pixels lie over black. Grey images of more than 8 bits are scaled linearly from their own minimum and maximum to
    0..255, because a hospital's files hold 10 to 14 bits in 16 and do not say how many; a constant one becomes 0.

    Args:
        data: the whole file.
        name: what to call the file in error messages.

    Returns:
        ``(H, W) uint8``, upright, not to be written to.

    Raises:
        ImageError: the file is empty, not an image, cut off, or has more than ``MAX_PIXELS`` pixels.
    """
    if not data:
        raise ImageError("empty", name, "is empty (0 bytes); copy it again or remove it")
    with _open(data, name) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_many_pixels(name)
        try:
            image.draft("L", None)  # of a colour JPEG only the luma is decoded; others know no drafts
            image.load()
            return np.asarray(_grey(_upright(image)))
        except MemoryError:
            raise
        except Exception as error:  # damaged data makes Pillow's decoders raise all kinds, OverflowError included
            raise _truncated(name) from error


def _open(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except _BOMB as error:
        raise _too_many_pixels(name) from error
    except Exception as error:  # as above
        if any(_begins_as(data, kind) for kind in FORMATS):
            raise _truncated(name) from error
        known = ", ".join(FORMATS)
        raise ImageError("not an image", name, f"is not an image ({known}); remove it") from error


def _begins_as(data: bytes, kind: str) -> bool:
    accept = Image.OPEN[kind][1]
    return accept is not None and accept(data[:16]) is True


def _truncated(name: str) -> ImageError:
    return ImageError("truncated", name, "is cut off or damaged; copy it again or remove it")


def _too_many_pixels(name: str) -> ImageError:
    limit = f"{MAX_PIXELS // 1_000_000} million"
    return ImageError("too many pixels", name, f"has over {limit} pixels; make it smaller or remove it")


def _upright(image: Image.Image) -> Image.Image:
    # Pillow's own function copies what stands upright already.
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert("RGB")
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == "L" else image.convert("L")


def _to_8_bit(values: npt.NDArray[np.generic]) -> UInt8Array:
    wide = np.nan_to_num(values.astype(np.float64))
    low, high = wide.min(), wide.max()
    if low == high:
        return np.zeros(wide.shape, np.uint8)
    grey: UInt8Array = np.rint((wide - low) * (255 / (high - low))).astype(np.uint8)
    return grey
