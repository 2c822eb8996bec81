"""Regions of a radiograph: lungs by mask or by a box, the border, the corners.

A mask is brought to the size of the network by the same rule as its image, so that it lies where the image has what it
marks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.data.images.decode import ImageError, UInt8Array, read_image
from cxrnet.data.images.reader import AtSize, Size, resize, resize_all
from cxrnet.data.settings import LungSource
from cxrnet.errors import CxrnetError

BoolArray = npt.NDArray[np.bool_]

BORDER = 0.1  # width of the border, share of each side
CORNER = 0.2  # side of a corner, share of that of the image
# Rows and columns of the box, shares of the sides. 99 % of the area of 196 lungVAE masks of covid_chestxray lies in it
# (scripts/audit_phantoms.py box).
BOX = ((0.05, 0.9), (0.05, 0.95))
# Around lungs, shares of the height and width: lung lies behind heart and diaphragm too, and a mask has it not. On
# phantoms without a shortcut a probe tells diffuse disease from what is outside of the masks (ROC-AUC 0.82), and hardly
# from what is outside of these rectangles (0.61).
_BESIDE, _BELOW = 0.05, 0.1
_GREY = 128  # from here on a pixel of a mask counts


@dataclass(frozen=True)
class Masks:
    """Masks of N images.

    Attributes:
        array: ``(N, H, W) bool``, at the size of the network; false everywhere where an image has none.
        known: which images have one, ``(N,)``.
        kind: ``masks``, or ``box``, the same for all images.
        notes: what a reader must know of them, in sentences.
    """

    array: BoolArray
    known: BoolArray
    kind: Literal["masks", "box"]
    notes: Sequence[str]

    @property
    def cover(self) -> BoolArray:
        """What has to be covered for no lung to be seen, ``(N, H, W)``."""
        return self.array if self.kind == "box" else around(self.array)

    def take(self, chosen: npt.NDArray[np.generic]) -> "Masks":
        """Choose masks by place, or by a mask ``(N,)``."""
        return Masks(self.array[chosen], self.known[chosen], self.kind, self.notes)


def find_lungs(manifest: pd.DataFrame, at: AtSize, source: LungSource = "auto") -> Masks:
    """Find the lungs of N images: their masks, or for all of them a box where there are none.

    Args:
        manifest: N rows with ``width`` and ``height`` of the images filled; ``mask_path`` is read.
        at: size and rule of the network.
        source: ``auto`` takes the masks where any image has one; ``masks`` and ``box`` take nothing else.

    Raises:
        CxrnetError: masks are asked for, and no image has one that can be read.
    """
    if source != "box" and manifest["mask_path"].notna().any():
        masks = read_masks(manifest, "mask_path", at)
        if masks.known.any():
            return masks
        notes = [*masks.notes, "so the lungs are taken to lie in a box"]
    else:
        asked = "a box was asked for (lungs=box)" if source == "box" else "no image has a lung mask"
        notes = [f"{asked}: the lungs are taken to lie in {box_text()}"]
    if source == "masks":
        raise CxrnetError(f"lungs=masks: {notes[0].partition(':')[0]}; give lungs=box, or data with mask_path")
    box = np.broadcast_to(lung_box(at[0]), (len(manifest), *at[0]))
    return Masks(box, np.ones(len(manifest), bool), "box", notes)


def read_masks(manifest: pd.DataFrame, column: str, at: AtSize) -> Masks:
    """Read the masks of N images; one that is missing, unreadable or empty leaves its image without, which is said.

    Args:
        manifest: N rows with ``width`` and ``height`` of the images filled.
        column: where their paths stand, as ``mask_path``.
        at: size and rule that their images were brought to.
    """
    array, known = np.zeros((len(manifest), *at[0]), bool), np.zeros(len(manifest), bool)
    resized, bad, empty = 0, 0, 0
    rows = zip(manifest[column], manifest["height"], manifest["width"], strict=True)
    for place, (path, height, width) in enumerate(rows):
        if pd.isna(path):
            continue
        try:
            mask = read_image(Path(path).read_bytes(), path)
        except (OSError, ValueError, ImageError):
            bad += 1
            continue
        resized += mask.shape != (height, width)
        mask = resize(mask, (int(height), int(width)), "stretch") if mask.shape != (height, width) else mask
        array[place] = resize(mask, *at) >= _GREY
        known[place] = bool(array[place].any())
        empty += not known[place]
    return Masks(array, known, "masks", _notes(known, resized, bad, empty))


def _notes(known: BoolArray, resized: int, bad: int, empty: int) -> list[str]:
    total, notes = len(known), []
    if missing := int((~known).sum()):
        why = [f"{count} {what}" for count, what in ((bad, "can't be read"), (empty, "are empty")) if count]
        of = f" (of their masks {' and '.join(why)})" if why else ""
        notes.append(f"{missing} of {total} images have no mask{of}: what needs the lungs is computed without them")
    if resized:
        notes.append(f"{resized} of {total} masks are of another size than their image and were resized to it")
    return notes


def around(masks: BoolArray) -> BoolArray:
    """Mark the rectangle around each mask ``(N, H, W)``, 5 % of the sides wider and 10 % lower; none of an empty one.

    What is outside is no lung, whatever stands behind the heart and the diaphragm, and it doesn't have their outline.
    """
    found = np.zeros(masks.shape, bool)
    height, width = masks.shape[1:]
    for place, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            top, bottom = rows[0] - round(_BESIDE * height), rows[-1] + 1 + round(_BELOW * height)
            left, right = columns[0] - round(_BESIDE * width), columns[-1] + 1 + round(_BESIDE * width)
            found[place, max(0, top) : bottom, max(0, left) : right] = True
    return found


def box_text() -> str:
    """Say where the box lies."""
    (top, bottom), (left, right) = BOX
    return (
        f"a box from {100 * top:g} to {100 * bottom:g} % of the height and {100 * left:g} to {100 * right:g} % of the "
        "width"
    )


def lung_box(size: Size) -> BoolArray:
    """Mark the box ``(H, W)`` that stands for the lungs where there are no masks."""
    return _rectangle(size, *BOX)


def border(size: Size) -> BoolArray:
    """Mark the border ``(H, W)``, :data:`BORDER` of each side."""
    inside = (BORDER, 1 - BORDER)
    return ~_rectangle(size, inside, inside)


def corners(size: Size) -> Mapping[str, BoolArray]:
    """Mark the corners ``(H, W)`` by their names, as a reader sees them: ``top left`` is of the picture."""
    low, high = (0.0, CORNER), (1 - CORNER, 1.0)
    sides = {"top": low, "bottom": high}, {"left": low, "right": high}
    return {
        f"{row} {column}": _rectangle(size, rows, columns)
        for row, rows in sides[0].items()
        for column, columns in sides[1].items()
    }


def all_corners(size: Size) -> BoolArray:
    """Mark the four corners ``(H, W)``."""
    marked: BoolArray = np.logical_or.reduce(list(corners(size).values()))
    return marked


def enlarged(images: UInt8Array, region: BoolArray) -> UInt8Array:
    """Cut a rectangle ``(H, W)`` out of images ``(N, H, W)`` and bring it to their size."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    cut = images[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(resize_all(cut, (images.shape[1], images.shape[2]), "stretch"))


def corners_together(images: UInt8Array) -> UInt8Array:
    """Put the four corners of images ``(N, H, W)`` together to one picture each, of the same size."""
    size = (images.shape[1], images.shape[2])
    rows, columns = (np.flatnonzero(all_corners(size).any(axis=axis)) for axis in (1, 0))
    return np.ascontiguousarray(resize_all(images[:, rows][:, :, columns], size, "stretch"))


def _rectangle(size: Size, rows: Sequence[float], columns: Sequence[float]) -> BoolArray:
    marked = np.zeros(size, bool)
    (top, bottom), (left, right) = (
        (round(side * low), round(side * high)) for side, (low, high) in zip(size, (rows, columns), strict=True)
    )
    marked[top:bottom, left:right] = True
    return marked
