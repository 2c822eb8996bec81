"""Faults planted into a drawn set: what public collections really suffer from, each known by name."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrnet.data.phantom.detector import stamp
from cxrnet.data.phantom.render import Row
from cxrnet.data.phantom.signs import CLASSES

MARKED = "COVID-19"
Fault = tuple[str, str, str]  # image_id, fault, detail


@dataclass(frozen=True)
class Faults:
    """How many of each: shares of 0 to 1 and counts of images."""

    marker: float
    """Share of the COVID-19 images that carry a burnt-in marker."""
    copies: int
    """Images that stand a second time, slightly changed, under another patient."""
    label_noise: float
    """Share of the images with a wrong label."""
    missing: int
    """Rows whose image file is not there."""
    corrupt: int
    """Image files that cannot be read."""


def plant(folder: Path, rows: list[Row], faults: Faults, rng: np.random.Generator) -> tuple[list[Row], pd.DataFrame]:
    """Plant faults into the files of a set and into its rows; no image gets two.

    Args:
        folder: where the set lies; the paths in the rows count from here.
        rows: the set, one row an image.
        faults: how many of each.
        rng: chooses the images.

    Returns:
        The rows with the faults, and a table ``image_id, fault, detail`` of what was done. The detail of a copy
        is the image it was taken from, that of a wrong label the true one, that of a corrupt file its kind.
    """
    order = [rows[k] for k in rng.permutation(len(rows))]
    marked = [row for row in order if row["label"] == MARKED]
    marked = marked[: round(faults.marker * len(marked))]
    ids = {row["image_id"] for row in marked}
    others = iter([row for row in order if row["image_id"] not in ids])

    def take(count: int) -> Iterator[Row]:
        return (next(others) for _ in range(count))

    noted: list[Fault] = [_mark(folder, row) for row in marked]
    copies = [_copy(folder, row, len(rows) + k, k) for k, row in enumerate(take(faults.copies))]
    noted += [(copy["image_id"], "copy", original) for copy, original in copies]
    noted += [_mislabel(row, rng) for row in take(round(faults.label_noise * len(rows)))]
    noted += [_remove(folder, row) for row in take(faults.missing)]
    noted += [_corrupt(folder, row, k) for k, row in enumerate(take(faults.corrupt))]
    table = pd.DataFrame(noted, columns=["image_id", "fault", "detail"])
    return rows + [copy for copy, _ in copies], table


def _mark(folder: Path, row: Row) -> Fault:
    path = folder / row["path"]
    grey = np.asarray(Image.open(path), dtype=np.float64) / 255
    stamp(grey, "AP", (0.8, 0.04, 0.07))
    Image.fromarray(np.rint(255 * grey).astype(np.uint8)).save(path)
    return row["image_id"], "marker", ""


def _copy(folder: Path, row: Row, number: int, kind: int) -> tuple[Row, str]:
    """The copy of an image under a new patient, changed by JPEG, brightness or scale in turn."""
    patient = f"P{number + 1:04d}"
    copy = row | {"patient_id": patient}
    for column in ("path", "mask_path", "lesion_mask_path"):
        copy[column] = (Path(row[column]).parent / f"{patient}_1.png").as_posix()
        shutil.copyfile(folder / row[column], folder / copy[column])
    copy["image_id"] = copy["path"]
    change = (_through_jpeg, _brighter, _through_small)[kind % 3]
    image = Image.open(folder / copy["path"])
    image.load()
    change(image).save(folder / copy["path"])
    return copy, row["image_id"]


def _through_jpeg(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return Image.open(buffer)


def _brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda grey: 0.9 * grey + 18)


def _through_small(image: Image.Image) -> Image.Image:
    small = image.resize((round(0.8 * image.width), round(0.8 * image.height)), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _mislabel(row: Row, rng: np.random.Generator) -> Fault:
    true = row["label"]
    row["label"] = str(rng.choice([name for name in CLASSES if name != true]))
    return row["image_id"], "label_noise", true


def _remove(folder: Path, row: Row) -> Fault:
    (folder / row["path"]).unlink()
    return row["image_id"], "missing", ""


def _corrupt(folder: Path, row: Row, kind: int) -> Fault:
    """Cut the file off in the middle, put text in its place, or empty it, in turn."""
    path = folder / row["path"]
    content = path.read_bytes()
    kinds: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("truncated", lambda: content[: len(content) // 2]),
        ("not an image", lambda: b"<html>404: not found</html>\n"),
        ("empty", lambda: b""),
    )
    name, damage = kinds[kind % 3]
    path.write_bytes(damage())
    return row["image_id"], "corrupt", name
