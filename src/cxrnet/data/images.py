"""Images: from the bytes of a file to one grey channel of 8 bits, at the size of the model.

The same functions serve training and prediction, so a network never sees an image that was prepared in
another way than those it learned from.
"""

import hashlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageOps

from cxrnet.errors import CxrnetError

UInt8Array = npt.NDArray[np.uint8]

ResizeRule = Literal["stretch", "pad", "crop"]
OnError = Literal["fail", "skip"]

# Only these decoders are tried; Pillow has others, some of which start outside programs.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
# A 43 cm detector with pixels of 0.1 mm gives 18.5 million, so a radiograph is far below this. It is also
# just below 89 478 485, from where on Pillow warns: no image that is accepted here makes it warn.
MAX_PIXELS = 89_000_000

_FIRST = 10  # so many bad files are named; the total is always given
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)

logger = logging.getLogger("cxrnet")


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


_Facts = tuple[int, int, str]  # width, height, sha256


def read_image(data: bytes, name: str) -> UInt8Array:
    """Decode an image file to one grey channel.

    The format is told by the content, not by the file's extension: PNG, JPEG, WEBP, BMP, TIFF and GIF (first
    frame). The EXIF orientation is applied. Colour becomes ITU-R BT.601 luma; transparent pixels lie over
    black. Grey images of more than 8 bits are scaled linearly from their own minimum and maximum to 0..255,
    because a hospital's files hold 10 to 14 bits in 16 and do not say how many; a constant one becomes 0.

    Args:
        data: the whole file.
        name: what to call the file in error messages.

    Returns:
        Grey values, ``(H, W) uint8``, upright.

    Raises:
        ImageError: the file is empty, not an image, cut off, or has more than ``MAX_PIXELS`` pixels.
    """
    if not data:
        raise ImageError("empty", name, "is empty (0 bytes); copy it again or remove it")
    with _open(data, name) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_many_pixels(name)
        try:
            image.load()
            return _grey(ImageOps.exif_transpose(image))
        except Exception as error:  # damaged data makes Pillow's decoders raise all kinds, OverflowError included
            raise _truncated(name) from error


def resize(image: UInt8Array, size: tuple[int, int], rule: ResizeRule) -> UInt8Array:
    """Bring an image to a given size.

    The filter is Pillow's bilinear, whose support grows with the reduction (antialiased). Unlike Lanczos it
    does not overshoot, so a marker or a rib gets no dark seam, and it is faster.

    Args:
        image: ``(h, w) uint8``.
        size: ``(H, W)`` in pixels.
        rule: ``stretch`` changes the aspect ratio, ``pad`` keeps it and adds a black border on two sides,
            ``crop`` keeps it and cuts two sides off; both stay centred.

    Returns:
        ``(H, W) uint8``.

    Raises:
        CxrnetError: unknown rule, or a size below one pixel.
    """
    _check_resize(size, rule)
    height, width = size
    if image.shape == size:
        return image
    source = Image.fromarray(image)
    if rule == "stretch":
        return np.array(source.resize((width, height), Image.Resampling.BILINEAR))
    if rule == "pad":
        return _pad(source, size)
    scale = max(height / source.height, width / source.width)
    cut_x = (source.width - width / scale) / 2
    cut_y = (source.height - height / scale) / 2
    box = (max(cut_x, 0.0), max(cut_y, 0.0), source.width - max(cut_x, 0.0), source.height - max(cut_y, 0.0))
    return np.array(source.resize((width, height), Image.Resampling.BILINEAR, box=box))


def load_images(
    manifest: pd.DataFrame,
    size: tuple[int, int],
    resize_rule: ResizeRule,
    on_error: OnError,
    progress: Callable[[int], None] | None = None,
) -> tuple[pd.DataFrame, UInt8Array]:
    """Read every image of a manifest, on all processors.

    Args:
        manifest: a manifest; ``path`` is read.
        size: ``(H, W)`` in pixels.
        resize_rule: see :func:`resize`.
        on_error: ``fail`` raises when any file gives no image, ``skip`` leaves those rows out and warns.
        progress: called with the number of files (1) after each file.

    Returns:
        The manifest with ``width``, ``height`` (of the image upright) and ``sha256`` filled, and the images
        in the order of its rows, ``(N, H, W) uint8``.

    Raises:
        CxrnetError: files that give no image (the total by kind and the first ten), no image left, or an
            unknown ``on_error`` or ``resize_rule``.
    """
    if on_error not in get_args(OnError):
        raise CxrnetError(f"data.on_error: '{on_error}' is not known; use {' or '.join(get_args(OnError))}")
    _check_resize(size, resize_rule)
    images = np.empty((len(manifest), *size), np.uint8)

    def load(row: int, path: str) -> _Facts | ImageError:
        try:
            data = _read_bytes(path)
            image = read_image(data, path)
        except ImageError as error:
            return error
        images[row] = resize(image, size, resize_rule)
        return image.shape[1], image.shape[0], hashlib.sha256(data).hexdigest()

    facts = _in_threads(load, manifest["path"], progress)
    if bad := [fact for fact in facts if isinstance(fact, ImageError)]:
        _report(bad, len(facts), on_error)
        keep = np.array([not isinstance(fact, ImageError) for fact in facts])
        manifest, images = manifest[keep].reset_index(drop=True), images[keep]
    widths, heights, digests = zip(*(fact for fact in facts if not isinstance(fact, ImageError)), strict=True)
    return manifest.assign(
        width=pd.array(widths, "Int64"), height=pd.array(heights, "Int64"), sha256=pd.array(digests, "string")
    ), images


def _in_threads(
    load: Callable[[int, str], _Facts | ImageError], paths: pd.Series, progress: Callable[[int], None] | None
) -> list[_Facts | ImageError]:
    facts = []
    # The filter is set here, once, and not in the threads: the list of filters belongs to the whole process.
    with warnings.catch_warnings(), ThreadPoolExecutor(_processors()) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for fact in pool.map(load, range(len(paths)), paths):
            facts.append(fact)
            if progress is not None:
                progress(1)
    return facts


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


def _grey(image: Image.Image) -> UInt8Array:
    if image.mode in _DEEP_MODES:
        return _to_8_bit(np.asarray(image))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over).convert("RGB")
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))


def _to_8_bit(values: npt.NDArray[np.generic]) -> UInt8Array:
    wide = np.nan_to_num(values.astype(np.float64))
    low, high = wide.min(), wide.max()
    if low == high:
        return np.zeros(wide.shape, np.uint8)
    grey: UInt8Array = np.rint((wide - low) * (255 / (high - low))).astype(np.uint8)
    return grey


def _pad(source: Image.Image, size: tuple[int, int]) -> UInt8Array:
    height, width = size
    scale = min(height / source.height, width / source.width)
    inner_h, inner_w = max(1, round(source.height * scale)), max(1, round(source.width * scale))
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas = np.zeros(size, np.uint8)
    canvas[top : top + inner_h, left : left + inner_w] = np.asarray(
        source.resize((inner_w, inner_h), Image.Resampling.BILINEAR)
    )
    return canvas


def _check_resize(size: tuple[int, int], rule: str) -> None:
    if rule not in get_args(ResizeRule):
        raise CxrnetError(f"data.resize: '{rule}' is not known; use {', '.join(get_args(ResizeRule))}")
    if len(size) != 2 or min(size) < 1:
        raise CxrnetError(f"data.size: {tuple(size)} is not a size; give height and width in pixels")


def _read_bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError("missing", path, f"cannot be read ({reason}); put the file there") from error


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # knows the limit of a container; Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _report(bad: list[ImageError], total: int, on_error: str) -> None:
    counts = Counter(error.kind for error in bad)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
    names = ", ".join(f"'{error.name}' ({error.kind})" for error in bad[:_FIRST])
    more = f" and {len(bad) - _FIRST} more" if len(bad) > _FIRST else ""
    found = f"{len(bad)} of {total} files give no image ({kinds}): {names}{more}"
    if len(bad) == total:
        raise CxrnetError(f"{found}; not one image is left: check the paths")
    if on_error == "fail":
        raise CxrnetError(f"{found}; mend or remove them, or set data.on_error=skip to leave them out")
    logger.warning("left out: %s", found)
