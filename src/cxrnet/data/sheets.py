"""Contact sheets: what the images of a data set look like, one row a class."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

from cxrnet.errors import CxrnetError

# Side of one image on the sheet, inches, and dots per inch.
SIDE, DPI = 1.5, 150


def contact_sheet(images: NDArray[np.uint8], labels: Sequence[str], path: str | Path, per_class: int) -> None:
    """Draw the first images of each class side by side, one row a class, with the class name before it.

    Args:
        images: ``(N, H, W) uint8``, grey.
        labels: N class names; the rows of the sheet are in alphabetical order.
        path: where the sheet goes; the suffix gives the format (``.png``).
        per_class: images in a row; a class with fewer leaves the rest of its row empty.

    Raises:
        CxrnetError: no images, not one label an image, or ``per_class`` below 1.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise CxrnetError(f"contact sheet: {len(images)} images and {len(labels)} labels; give one label an image")
    if per_class < 1:
        raise CxrnetError(f"contact sheet: per_class is {per_class}; use 1 or more")
    names = np.asarray(labels, dtype=str)
    classes = np.unique(names)
    height = SIDE * images.shape[1] / images.shape[2]
    # A Figure of its own, without pyplot: no window, no global state.
    figure = matplotlib.figure.Figure(figsize=(0.3 + SIDE * per_class, height * len(classes)), dpi=DPI)
    axes = figure.subplots(len(classes), per_class, squeeze=False)
    for row, name in zip(axes, classes, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, image in zip(row, images[names == name], strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    left = 0.3 / (0.3 + SIDE * per_class)
    figure.subplots_adjust(left=left, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
