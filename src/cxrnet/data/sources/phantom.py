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
import math
import shutil
import tempfile
from collections.abc import Mapping
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.manifest import make_manifest, read_manifest, write_manifest
from cxrnet.data.phantom.organs import CLASSES
from cxrnet.data.phantom.render import Row, draw, enrol, rows_of, stamp
from cxrnet.errors import CxrnetError

# Changes whenever the drawing changes, so that an older set on disk is not taken for a new one.
_DRAWING = 1
_MARKED = "COVID-19"

logger = logging.getLogger("cxrnet")


def phantom(
    root: str | Path,
    images: int,
    size: int,
    seed: int,
    marker: float = 0.0,
    duplicates: int = 0,
    label_noise: float = 0.0,
    missing: int = 0,
    corrupt: int = 0,
) -> pd.DataFrame:
    """Read a set of phantoms, which is drawn first unless the same set already lies below ``root``; it is not split.

    Args:
        root: folder for the sets, one folder each.
        images: number of images, before duplicates.
        size: side of the square images, pixels.
        seed: the same seed draws the same pictures on every machine.
        marker: share (0 to 1) of the COVID-19 images with a burnt-in "AP" that gives the class away.
        duplicates: images that stand a second time, slightly changed, under another ``patient_id``.
        label_noise: share (0 to 1) of the images with a wrong label.
        missing: rows whose image file is not there.
        corrupt: image files that are truncated, no image, or empty, in turn.

    Returns:
        A manifest with ``mask_path`` (lungs) and the extra column ``lesion_mask_path``.

    Raises:
        CxrnetError: a parameter is out of range, or a folder with the set's name holds something else.
    """
    faults = {"marker": marker, "duplicates": duplicates, "label_noise": label_noise}
    faults |= {"missing": missing, "corrupt": corrupt}
    _check_ranges({"images": images, "size": size, "seed": seed, **faults})
    marked = round(marker * -(-images // len(CLASSES)))
    if (asked := marked + duplicates + round(label_noise * images) + missing + corrupt) > images:
        raise CxrnetError(f"data: {asked} faults asked for but only {images} images; no image gets two, ask for fewer")
    # In the order and under the names of the first version, so that sets drawn before are found.
    recipe: dict[str, float] = {"images": images, "size": size, "seed": seed, "drawing": _DRAWING}
    recipe |= {"copies" if name == "duplicates" else name: number for name, number in faults.items()}
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    folder = Path(root).resolve() / f"phantom-{images}x{size}-seed{seed}-{digest[:8]}"
    if not (folder / "manifest.parquet").is_file():
        logger.info("drawing %d phantoms of %d px into %s", images, size, folder)
        _write(folder, images, size, seed, faults)
    manifest = read_manifest(folder / "manifest.parquet")
    lesions = manifest["lesion_mask_path"].map(lambda path: str(folder / path))
    return manifest.assign(lesion_mask_path=lesions.astype("string"))


def _check_ranges(numbers: Mapping[str, object]) -> None:
    """Check that shares are from 0 to 1 and other numbers whole, and large enough.

    Raises:
        CxrnetError: one is out of range.
    """
    least = {"images": 2 * len(CLASSES), "size": 64}  # two images a class; pixels that show the signs
    for name, number in numbers.items():
        share = name in ("marker", "label_noise")
        low, high = (0, 1) if share else (least.get(name, 0), math.inf)
        if not isinstance(number, int | float) or not low <= number <= high or not (share or number == int(number)):
            kind = "share from 0 to 1" if share else f"whole number from {low} on"
            raise CxrnetError(f"data.manifest.{name}: {number} is out of range; give a {kind}")


def _write(folder: Path, images: int, size: int, seed: int, faults: Mapping[str, float]) -> None:
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
        rows, table = _plant(partial, rows_of(enrol(images, seed)), faults, np.random.default_rng([seed, 1]))
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


def _plant(
    folder: Path, rows: list[Row], faults: Mapping[str, float], rng: np.random.Generator
) -> tuple[list[Row], pd.DataFrame]:
    """Plant faults into the files of a set in a folder and into its rows, one an image; no image gets two.

    Returns:
        The rows with the faults, and a table ``image_id, fault, detail`` of what was done. The detail of a duplicate
        is the image it was taken from, that of a wrong label the true one, that of a corrupt file its kind.
    """
    order = [rows[k] for k in rng.permutation(len(rows))]
    marked = [row for row in order if row["label"] == _MARKED]
    marked = marked[: round(faults["marker"] * len(marked))]
    ids = {row["image_id"] for row in marked}
    others = iter([row for row in order if row["image_id"] not in ids])
    noted: list[tuple[str, str, str]] = []
    for row in marked:
        grey = np.asarray(Image.open(folder / row["path"]), dtype=np.float64) / 255
        stamp(grey, "AP", (0.8, 0.04, 0.07))
        Image.fromarray(np.rint(255 * grey).astype(np.uint8)).save(folder / row["path"])
        noted.append((row["image_id"], "marker", ""))
    duplicates = []
    for k, row in enumerate(islice(others, int(faults["duplicates"]))):
        duplicates.append(_duplicate(folder, row, len(rows) + k, k))
        noted.append((duplicates[-1]["image_id"], "duplicate", row["image_id"]))
    for row in islice(others, round(faults["label_noise"] * len(rows))):
        noted.append((row["image_id"], "label_noise", row["label"]))
        row["label"] = str(rng.choice([name for name in CLASSES if name != row["label"]]))
    for row in islice(others, int(faults["missing"])):
        (folder / row["path"]).unlink()
        noted.append((row["image_id"], "missing", ""))
    for k, row in enumerate(islice(others, int(faults["corrupt"]))):
        content = (folder / row["path"]).read_bytes()
        kinds = {
            "truncated": content[: len(content) // 2],
            "not an image": b"<html>404: not found</html>\n",
            "empty": b"",
        }
        kind = [*kinds][k % 3]
        (folder / row["path"]).write_bytes(kinds[kind])
        noted.append((row["image_id"], "corrupt", kind))
    return rows + duplicates, pd.DataFrame(noted, columns=["image_id", "fault", "detail"])


def _duplicate(folder: Path, row: Row, number: int, kind: int) -> Row:
    """Copy an image under a new patient, changed by JPEG, brightness or scale in turn."""
    patient = f"P{number + 1:04d}"
    duplicate = row | {"patient_id": patient}
    for column in ("path", "mask_path", "lesion_mask_path"):
        duplicate[column] = (Path(row[column]).parent / f"{patient}_1.png").as_posix()
        shutil.copyfile(folder / row[column], folder / duplicate[column])
    duplicate["image_id"] = duplicate["path"]
    image = Image.open(folder / duplicate["path"])
    image.load()
    if kind % 3 == 0:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=70)
        changed: Image.Image = Image.open(buffer)
    elif kind % 3 == 1:
        changed = image.point(lambda grey: 0.9 * grey + 18)
    else:
        small = image.resize((round(0.8 * image.width), round(0.8 * image.height)), Image.Resampling.LANCZOS)
        changed = small.resize(image.size, Image.Resampling.BICUBIC)
    changed.save(folder / duplicate["path"])
    return duplicate
