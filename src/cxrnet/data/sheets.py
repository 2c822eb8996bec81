"""Contact sheets: what the images of a data set look like, and what augmentation makes of them."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from cxrnet.data.augment import Augmentation
from cxrnet.data.decode import UInt8Array, read_image
from cxrnet.data.images import Images, resize
from cxrnet.style import DPI, FULL, styled

SIDE = 1.5  # of the cell of one image, inches
GAP = 0.04  # between cells, as a share of one


def samples_sheet(manifest: pd.DataFrame, classes: Sequence[str], per_class: int) -> Figure:
    """Draw images of each class as they are in their files, one row a class.

    Args:
        manifest: every file readable.
        classes: in the order of the rows.
        per_class: images in a row, taken at even distances from the class.
    """
    rows = [[_thumbnail(path) for path in _spread(manifest, name, per_class)["path"]] for name in classes]
    return contact_sheet(rows, classes, ())


def augmented_sheet(
    images: Images,
    manifest: pd.DataFrame,
    classes: Sequence[str],
    augment: Augmentation,
    per_class: int,
    views: int,
) -> Figure:
    """Draw images as the network sees them, and beside each what augmentation makes of it, one row an image.

    Args:
        images: the index of the manifest says which belongs to a row.
        manifest: rows of the images to choose from.
        classes: in the order of the rows.
        augment: of a batch; it draws from torch's random state.
        per_class: images of each class.
        views: of each image.
    """
    chosen = pd.concat([_spread(manifest, name, per_class) for name in classes])
    originals = images[chosen.index.to_numpy()]
    batch = torch.from_numpy(originals).unsqueeze(1).repeat_interleave(views, dim=0)
    augmented = augment(batch).numpy().reshape(len(chosen), views, *originals.shape[1:])
    rows = [[original, *its] for original, its in zip(originals, augmented, strict=True)]
    return contact_sheet(rows, chosen["label"].tolist(), ["original", *["augmented"] * views])


@styled
def contact_sheet(rows: Sequence[Sequence[UInt8Array]], names: Sequence[str], titles: Sequence[str]) -> Figure:
    """Draw images in rows, with a name before each row; no image is stretched.

    Args:
        rows: grey images, ``(h, w) uint8`` of any size; each is drawn as large as its cell allows, in its own aspect
            ratio. A short row leaves its last cells empty.
        names: one for each row.
        titles: above the first columns.
    """
    columns = max(map(len, rows))
    aspects = [image.shape[0] / image.shape[1] for row in rows for image in row]
    height = SIDE * min(max(aspects), 1.25)  # one very tall image doesn't blow up all rows
    figure = Figure(figsize=(SIDE * columns, height * len(rows)))
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=FULL | {"wspace": GAP, "hspace": GAP})
    for cells, row, name in zip(axes, rows, names, strict=True):
        place = {"transform": cells[0].transAxes, "ha": "right", "va": "center"}
        cells[0].text(-0.08, 0.5, textwrap.fill(name, 16), **place)
        for cell in cells:
            cell.set_axis_off()
        for cell, image in zip(cells, row, strict=False):
            cell.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    for cell, title in zip(axes[0], titles, strict=False):
        cell.set_title(title)
    return figure


def _spread(manifest: pd.DataFrame, label: str, number: int) -> pd.DataFrame:
    """Rows of a class at even distances: a manifest is sorted, and neighbours come from one hospital or patient."""
    rows = manifest[manifest["label"] == label]
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, number).round().astype(int))]


def _thumbnail(path: str) -> UInt8Array:
    """The image of a file, its longer side as many pixels as a cell has."""
    image = read_image(Path(path).read_bytes(), path)
    scale = SIDE * DPI / max(image.shape)
    height, width = (max(1, round(side * scale)) for side in image.shape)
    return resize(image, (height, width), "stretch")
