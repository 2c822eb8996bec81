"""Acquisition: what an image tells of how it was made, and nothing of the patient.

Sizes, bit depth, brightness, sharpness, borders and letters differ between hospitals, devices and collections. Where a
collection is a class, they tell the class.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.ndimage import white_tophat

from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.dicom import BEGINNING, Dicom, is_dicom
from cxrnet.data.images.reader import Images

HEADER = ("width", "height", "aspect", "bits", "colour")
PIXELS = ("mean", "sd", "sharpness", "black_border", "corner_text")

_BLOCK = 256  # images read at a time
_BLACK = 8  # grey values up to here are black: JPEG adds a few
_STROKE = 5  # pixels: what is thinner is a stroke
_BRIGHTER = 60  # grey values that a stroke is brighter than what is around it
_CORNER = 0.25  # of the side: where markers and letters stand
_BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I;16N": 16, "I": 32, "F": 32}
_GREY = ("1", "L", "LA", "I", "F")

_FloatArray = npt.NDArray[np.float64]


def measure_acquisition(images: Images, manifest: pd.DataFrame, headers: pd.DataFrame | None = None) -> pd.DataFrame:
    """Measure how N images were made.

    Args:
        images: ``(N, H, W) uint8``, stretched to one size straight from the file, so that nothing was padded.
        manifest: N rows in the same order; ``path``, ``width`` and ``height`` are read.
        headers: from :func:`read_headers`, for who has them already.

    Returns:
        One row an image, float64: ``width`` and ``height`` (pixels of the file), ``aspect`` (width / height), ``bits``
        (a channel: 1, 8, 16 or 32), ``colour`` (0 or 1: the mode of the file has colour), ``mean`` and ``sd`` (grey
        values, 0..255), ``sharpness`` (variance of the Laplacian over that of the image), ``black_border`` (share of
        rows and columns at the edges that are black, 0..1), ``corner_text`` (share of the corners that is thin and
        bright, 0..1). Where a header can't be read, ``bits`` and ``colour`` are 8 and 0.
    """
    modes = (read_headers(manifest) if headers is None else headers)["mode"]
    width, height = (manifest[name].to_numpy(np.float64) for name in ("width", "height"))
    columns: dict[str, Any] = {"width": width, "height": height, "aspect": width / height}
    columns["bits"] = np.array([_BITS.get(mode, 8) for mode in modes], np.float64)
    grey = modes.isin(_GREY) | modes.str.startswith("I;16", na=True)
    columns["colour"] = (~grey).to_numpy(np.float64)
    parts = [
        _of_pixels(images[np.arange(start, min(start + _BLOCK, len(images)))])
        for start in range(0, len(images), _BLOCK)
    ]
    columns |= {name: np.concatenate([part[name] for part in parts]) for name in PIXELS}
    return pd.DataFrame(columns, index=manifest.index)


def read_headers(manifest: pd.DataFrame) -> pd.DataFrame:
    """Read the format and the mode of N files from their headers.

    Returns:
        One row an image, ``string``: ``format`` (``PNG``) and ``mode`` of Pillow (``L``, ``RGB``, ``I;16``). Both are
        missing where a header can't be read: of images of shards, which have no files, and of a few kinds of TIFF.
    """
    table = pd.DataFrame([_header(path) for path in manifest["path"]], columns=["format", "mode"], index=manifest.index)
    return table.astype("string")


def _header(path: str) -> tuple[str | None, str | None]:
    if ".mds#" in path:
        return None, None
    try:
        with Image.open(path) as image:
            return image.format, image.mode
    except (OSError, ValueError):  # DICOM, or a kind of TIFF that only our decoder reads
        try:
            with Path(path).open("rb") as file:
                return ("DICOM", Dicom(file).mode) if is_dicom(file.read(BEGINNING)) else (None, None)
        except (OSError, ValueError):  # DicomError is one
            return None, None


def _of_pixels(images: UInt8Array) -> dict[str, _FloatArray]:
    grey = images.astype(np.float32)
    variance = grey.var(axis=(1, 2))
    middle = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * middle
    return {
        "mean": grey.mean(axis=(1, 2)).astype(np.float64),
        "sd": np.sqrt(variance).astype(np.float64),
        "sharpness": (laplacian.var(axis=(1, 2)) / np.maximum(variance, 1)).astype(np.float64),
        "black_border": _black_border(images <= _BLACK),
        "corner_text": _corner_text(images),
    }


def _black_border(black: npt.NDArray[np.bool_]) -> _FloatArray:
    """Give the share of rows and columns that are black (98 % of their pixels) from an edge on, the mean of both."""
    shares = []
    for axis in (2, 1):
        lines = black.mean(axis=axis) >= 0.98
        edges = sum(np.cumprod(side, axis=1).sum(axis=1) for side in (lines, lines[:, ::-1]))
        shares.append(np.minimum(edges / lines.shape[1], 1.0))
    result: _FloatArray = np.mean(shares, axis=0)
    return result


def _corner_text(images: UInt8Array) -> _FloatArray:
    """Give the share of the four corners that is thin and bright, as strokes of letters are: the white top-hat."""
    height, width = (int(side * _CORNER) for side in images.shape[1:])
    strokes = white_tophat(images, size=(1, _STROKE, _STROKE)) >= _BRIGHTER
    corners = [
        strokes[:, rows, columns].mean(axis=(1, 2))
        for rows in (slice(height), slice(-height, None))
        for columns in (slice(width), slice(-width, None))
    ]
    result: _FloatArray = np.mean(corners, axis=0)
    return result
