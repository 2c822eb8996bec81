"""The plots of a data set: how many images of what, in which split, and how large their files are."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrnet.data.augment import Augmentation
from cxrnet.data.images.decode import UInt8Array, read_image
from cxrnet.data.images.reader import Images, resize
from cxrnet.data.manifest import SPLITS
from cxrnet.reporting.plots.style import DPI, FAINT, FULL, INK, PALETTE, styled

PANELS = 4  # beside each other


def class_distribution(manifest: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Count images and patients of each class in each split.

    Returns:
        ``class``, ``split``, ``images``, ``patients`` (Int64, missing where no patient of the class is known): one
        row a class and split, for the splits that have images; then the same with the class ``all``.
    """
    table = manifest[["label", "split", "patient_id"]]
    splits = [split for split in SPLITS if (table["split"] == split).any()]
    rows = []
    parts = [(name, table[table["label"] == name]) for name in classes]
    for name, of_class in [*parts, ("all", table)]:
        known = of_class["patient_id"].notna().any()
        for split in splits:
            part = of_class[of_class["split"] == split]
            rows.append((name, split, len(part), part["patient_id"].nunique() if known else pd.NA))
    counts = pd.DataFrame(rows, columns=["class", "split", "images", "patients"])
    return counts.astype({"class": "string", "split": "string", "patients": "Int64"})


def image_sizes(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count the sizes of the files: ``label``, ``width``, ``height`` (pixels), ``images``, the most frequent first."""
    sizes = manifest.groupby(["label", "width", "height"], as_index=False).agg(images=("image_id", "size"))
    order = ["label", "images", "width", "height"]
    return sizes.sort_values(order, ascending=[True, False, True, True], ignore_index=True)


@styled
def distribution_chart(distribution: pd.DataFrame) -> Figure:
    """Draw a bar for the images of each class in each split, with the numbers at its end, but for the sums."""
    table = distribution.iloc[: -distribution["split"].nunique()]
    classes, splits = list(dict.fromkeys(table["class"])), list(dict.fromkeys(table["split"]))
    step = len(splits) + 0.8
    figure = Figure(figsize=(4.5, 0.26 * step * len(classes)))
    axes = figure.subplots(gridspec_kw=FULL)
    for number, split in enumerate(splits):
        part = table[table["split"] == split]
        places = np.arange(len(part)) * step + number
        axes.barh(places, part["images"], height=0.86, color=PALETTE[number], label=split)
        for place, images, patients in zip(places, part["images"], part["patients"], strict=True):
            people = "" if pd.isna(patients) else f"  ({patients} patient{'' if patients == 1 else 's'})"
            axes.text(images, place, f" {images}{people}", va="center", fontsize=9)
    axes.set_yticks(np.arange(len(classes)) * step + (len(splits) - 1) / 2, _wrapped(classes))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, table["images"].max())
    axes.set_xlabel("images")
    axes.set_title(f"n = {table['images'].sum()}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.5 / figure.get_figheight()), ncols=len(splits))
    return figure


@styled
def sizes_chart(sizes: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Draw the sizes of the files, one panel a class: sizes that tell a class from the others are a shortcut.

    The area of a dot grows with its images; ``classes`` is the order of the panels.
    """
    columns = min(PANELS, len(classes))
    rows = -(-len(classes) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.4 * rows))
    grid = {**FULL, "wspace": 0.14, "hspace": 0.5}
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False, gridspec_kw=grid).ravel()
    limit = 1.3 * sizes[["width", "height"]].to_numpy(int).max()  # the text stands above every dot
    for panel, name in zip(axes, classes, strict=False):
        _sizes_panel(panel, sizes[sizes["label"] == name], int(sizes["images"].max()))
        panel.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.yaxis.set_major_locator(MaxNLocator(4))
        panel.set_title(textwrap.fill(name, 22))
        panel.set_xlabel("width, pixels")
    for panel in axes[len(classes) :]:
        panel.set_axis_off()
    for panel in axes[::columns]:
        panel.set_ylabel("height, pixels")
    return figure


def _sizes_panel(axes: Axes, sizes: pd.DataFrame, most: int) -> None:
    area = 12 + 240 * sizes["images"].to_numpy(float) / most
    axes.axline((0, 0), slope=1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.scatter(
        sizes["width"], sizes["height"], s=area, color=PALETTE[0], alpha=0.45, edgecolors=PALETTE[0], linewidths=0.6
    )
    first, images = sizes.iloc[0], sizes["images"].sum()
    kinds = "1 size" if len(sizes) == 1 else f"{len(sizes)} sizes, most often"
    text = f"{kinds}\n{first['width']} × {first['height']} ({first['images']} of {images})"
    axes.text(0.04, 0.97, text, transform=axes.transAxes, va="top", fontsize=9, color=INK)


def _wrapped(classes: Sequence[str]) -> list[str]:
    return [textwrap.fill(name, 20) for name in classes]


SIDE = 1.5  # of the cell of one image, inches
GAP = 0.04  # between cells, as a share of one


def samples_sheet(
    manifest: pd.DataFrame, classes: Sequence[str], per_class: int, images: Images | None = None
) -> Figure:
    """Draw images of each class as they are in their files, a row a class, taken at even distances from the class.

    Images of shards have no files: ``images`` are drawn, of which the index of the manifest says which is of a row.
    """
    chosen = [spread(manifest, name, per_class) for name in classes]
    if images is not None:
        rows = [list(images[part.index.to_numpy()]) for part in chosen]
    else:
        rows = [[thumbnail(path) for path in part["path"]] for part in chosen]
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
        augment: augmentation of a batch; it draws from torch's random state.
        per_class: images of each class.
        views: views of each image.
    """
    chosen = pd.concat([spread(manifest, name, per_class) for name in classes])
    originals = images[chosen.index.to_numpy()]
    batch = torch.from_numpy(originals).unsqueeze(1).repeat_interleave(views, dim=0)
    augmented = augment(batch).numpy().reshape(len(chosen), views, *originals.shape[1:])
    rows = [[original, *its] for original, its in zip(originals, augmented, strict=True)]
    return contact_sheet(rows, chosen["label"].tolist(), ["original", *["augmented"] * views])


@styled
def contact_sheet(rows: Sequence[Sequence[UInt8Array]], names: Sequence[str], titles: Sequence[str]) -> Figure:
    """Draw grey images, ``(h, w) uint8`` of any size, in rows with a name before each; no image is stretched.

    A short row leaves its last cells empty; ``titles`` stand above the first columns.
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


def spread(manifest: pd.DataFrame, label: str, number: int) -> pd.DataFrame:
    """Take rows of a class at even distances: a manifest is sorted, and neighbours come from one hospital."""
    rows = manifest[manifest["label"] == label]
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, number).round().astype(int))]


def thumbnail(path: str, side: float = SIDE * DPI) -> UInt8Array:
    """Read the image of a file ``(H, W) uint8``, its longer side ``side`` pixels; no image is stretched."""
    image = read_image(Path(path).read_bytes(), path)
    scale = side / max(image.shape)
    height, width = (max(1, round(length * scale)) for length in image.shape)
    return resize(image, (height, width), "stretch")
