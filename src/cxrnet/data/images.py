"""Images: from the files of a manifest to one array of grey images at the size of the model.

The same functions serve training and prediction, so a network never sees an image that was prepared in
another way than those it learned from.
"""

import hashlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from PIL import Image

from cxrnet.data.decode import ImageError, UInt8Array, read_image
from cxrnet.errors import CxrnetError

ResizeRule = Literal["stretch", "pad", "crop"]
OnError = Literal["fail", "skip"]

_FIRST = 10  # so many bad files are named; the total is always given

_Facts = tuple[int, int, str]  # width, height, sha256

logger = logging.getLogger("cxrnet")


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
    manifest: pd.DataFrame, size: tuple[int, int], resize_rule: ResizeRule, on_error: OnError
) -> tuple[pd.DataFrame, UInt8Array]:
    """Read every image of a manifest at one size; see :func:`load_at_sizes`."""
    manifest, (images,) = load_at_sizes(manifest, [(size, resize_rule)], on_error)
    return manifest, images


def load_at_sizes(
    manifest: pd.DataFrame, sizes: Sequence[tuple[tuple[int, int], ResizeRule]], on_error: OnError
) -> tuple[pd.DataFrame, list[UInt8Array]]:
    """Read every image of a manifest, on all processors, decode it once and resize it to each of several sizes.

    Args:
        manifest: a manifest; ``path`` is read.
        sizes: pairs of ``(H, W)`` in pixels and a rule of :func:`resize`.
        on_error: ``fail`` raises when any file gives no image, ``skip`` leaves those rows out and warns.

    Returns:
        The manifest with ``width``, ``height`` (of the image upright) and ``sha256`` filled, and for each size the
        images in the order of its rows, ``(N, H, W) uint8``.

    Raises:
        CxrnetError: files that give no image (the total by kind and the first ten), no image left, or an
            unknown ``on_error`` or ``resize_rule``.
    """
    if on_error not in get_args(OnError):
        raise CxrnetError(f"data.on_error: '{on_error}' is not known; use {' or '.join(get_args(OnError))}")
    for size, rule in sizes:
        _check_resize(size, rule)
    images = [np.empty((len(manifest), *size), np.uint8) for size, _ in sizes]

    def load(row: int, path: str) -> _Facts | ImageError:
        try:
            data = _read_bytes(path)
            image = read_image(data, path)
        except ImageError as error:
            return error
        for array, (size, rule) in zip(images, sizes, strict=True):
            array[row] = resize(image, size, rule)
        return image.shape[1], image.shape[0], hashlib.sha256(data).hexdigest()

    facts = _in_threads(load, manifest["path"])
    if bad := [fact for fact in facts if isinstance(fact, ImageError)]:
        _report(bad, len(facts), on_error)
        keep = np.array([not isinstance(fact, ImageError) for fact in facts])
        manifest, images = manifest[keep].reset_index(drop=True), [array[keep] for array in images]
    widths, heights, digests = zip(*(fact for fact in facts if not isinstance(fact, ImageError)), strict=True)
    return manifest.assign(
        width=pd.array(widths, "Int64"), height=pd.array(heights, "Int64"), sha256=pd.array(digests, "string")
    ), images


def _in_threads(load: Callable[[int, str], _Facts | ImageError], paths: pd.Series) -> list[_Facts | ImageError]:
    # The filter is set here, once, and not in the threads: the list of filters belongs to the whole process.
    with warnings.catch_warnings(), ThreadPoolExecutor(_processors()) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return list(pool.map(load, range(len(paths)), paths))


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
