"""Synthetic chest radiographs, the embedded default data set.

Origin: drawn by :mod:`cxrnet.data.phantom`, from no real image. A phantom stands in where no data can be shipped
or downloaded: it shows that the whole program works and gives teaching and tests a data set with known truth
(masks, planted faults). It says nothing about real patients.

Classes: ``COVID-19`` (bilateral, peripheral, lower-zone ground glass), ``Lung Opacity`` (one focal consolidation),
``Normal``, ``Viral Pneumonia`` (diffuse reticular pattern); equal numbers of images.

Layout::

    <root>/phantom-600x224-seed1-<hash>/
        images/<class>/P0001_1.png         8-bit grey, square
        lung_masks/<class>/P0001_1.png     0 or 255
        lesion_masks/<class>/P0001_1.png   0 or 255; empty for Normal
        manifest.parquet, faults.csv       faults.csv: what was planted on request
"""

import hashlib
import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.manifest import make_manifest, read_manifest, write_manifest
from cxrnet.data.phantom.faults import Faults, plant
from cxrnet.data.phantom.render import draw, enrol, rows_of
from cxrnet.data.phantom.signs import CLASSES
from cxrnet.errors import CxrnetError

# Changes whenever the drawing changes, so that an older set on disk is not taken for a new one.
DRAWING = 1

log = logging.getLogger("cxrnet")


def phantom(
    root: str | Path,
    images: int,
    size: int,
    seed: int,
    marker: float = 0.0,
    copies: int = 0,
    label_noise: float = 0.0,
    missing: int = 0,
    corrupt: int = 0,
) -> pd.DataFrame:
    """The manifest of a set of phantoms, which is drawn first unless the same set already lies below ``root``.

    Args:
        root: folder for the sets, one folder each.
        images: how many, before copies.
        size: side of the square images, pixels.
        seed: the same seed draws the same pictures on every machine.
        marker: share (0 to 1) of the COVID-19 images with a burnt-in "AP" that gives the class away.
        copies: images that stand a second time, slightly changed, under another ``patient_id``.
        label_noise: share (0 to 1) of the images with a wrong label.
        missing: rows whose image file is not there.
        corrupt: image files that are truncated, no image, or empty, in turn.

    Returns:
        A manifest without splits, with ``mask_path`` (lungs) and the extra column ``lesion_mask_path``.

    Raises:
        CxrnetError: a parameter is out of range, or a folder with the set's name holds something else.
    """
    faults = Faults(marker, copies, label_noise, missing, corrupt)
    _check(images, size, seed, faults)
    root = Path(root).resolve()
    recipe = json.dumps({"images": images, "size": size, "seed": seed, "drawing": DRAWING, **asdict(faults)})
    name = f"phantom-{images}x{size}-seed{seed}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    folder = root / name
    if not (folder / "manifest.parquet").is_file():
        log.info("drawing %d phantoms of %d px into %s", images, size, folder)
        _write(folder, images, size, seed, faults)
    manifest = read_manifest(folder / "manifest.parquet")
    lesions = manifest["lesion_mask_path"].map(lambda path: str(folder / path))
    return manifest.assign(lesion_mask_path=lesions.astype("string"))


def _write(folder: Path, images: int, size: int, seed: int, faults: Faults) -> None:
    """Draw into a folder beside the final one and rename it, so that a folder of that name is always complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CxrnetError(
            f"data.root: '{folder.parent}' can't be made ({error.strerror}); give another folder"
        ) from error
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        partial = Path(scratch) / folder.name
        draw(partial, images, size, seed)
        rows, table = plant(partial, rows_of(enrol(images, seed)), faults, np.random.default_rng([seed, 1]))
        to_csv(table, partial / "faults.csv", lineterminator="\n")
        manifest = pd.DataFrame(rows).assign(source="phantom", view="PA")
        for column in ("path", "mask_path"):
            manifest[column] = [str(partial / path) for path in manifest[column]]
        write_manifest(make_manifest(manifest, str(folder)), partial / "manifest.parquet")
        try:
            partial.rename(folder)
        except OSError as error:
            # Another process that drew the same set was quicker: its files are the same as ours.
            if not (folder / "manifest.parquet").is_file():
                raise CxrnetError(
                    f"data.root: '{folder}' exists but is no complete set of phantoms; delete it and run again"
                ) from error


def _check(images: int, size: int, seed: int, faults: Faults) -> None:
    """Refuse what cannot be drawn.

    Raises:
        CxrnetError: with the parameter, its value and the range.
    """
    for name, number in {"images": images, "size": size, "seed": seed, **asdict(faults)}.items():
        if not isinstance(number, int | float) or (name not in ("marker", "label_noise") and number != int(number)):
            raise CxrnetError(f"data.manifest.{name}: {number} is no number that fits; see data/README.md")
    least = 2 * len(CLASSES)
    if images < least:
        raise CxrnetError(
            f"data.manifest.images: {images} is too few; the {len(CLASSES)} classes need at least {least}"
        )
    if size < 64:
        raise CxrnetError(f"data.manifest.size: {size} px is too small to show the signs; use 64 or more")
    if seed < 0:
        raise CxrnetError(f"data.manifest.seed: {seed} is negative; use 0 or more")
    for name in ("marker", "label_noise"):
        if not 0 <= (share := getattr(faults, name)) <= 1:
            raise CxrnetError(f"data.manifest.{name}: {share} is no share; use 0 to 1")
    for name in ("copies", "missing", "corrupt"):
        if (count := getattr(faults, name)) < 0:
            raise CxrnetError(f"data.manifest.{name}: {count} is negative; use 0 or more images")
    marked = round(faults.marker * -(-images // len(CLASSES)))
    asked = marked + faults.copies + round(faults.label_noise * images) + faults.missing + faults.corrupt
    if asked > images:
        raise CxrnetError(f"data: {asked} faults asked for but only {images} images; no image gets two, ask for fewer")
