"""A set of phantoms on disk: who is drawn, and the files of each patient."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxrnet.data.phantom.render import radiographs
from cxrnet.data.phantom.signs import CLASSES

Row = dict[str, str]
# At most this many images of one patient.
MOST = 4


@dataclass(frozen=True)
class Patient:
    """A patient to draw."""

    name: str
    label: str
    count: int
    seed: np.random.SeedSequence

    def files(self) -> list[str]:
        """The images, relative to ``images/``, ``lung_masks/`` or ``lesion_masks/``."""
        return [f"{self.label}/{self.name}_{k + 1}.png" for k in range(self.count)]


def enrol(images: int, seed: int) -> list[Patient]:
    """Patients of one to four images each, the classes with equal numbers of images (but for a remainder).

    Each patient has a random stream of its own, so that a picture depends neither on the order of drawing nor on
    the number of processes.
    """
    root = np.random.SeedSequence(seed)
    rng = np.random.default_rng(root)
    groups: list[tuple[str, int]] = []
    for k, label in enumerate(CLASSES):
        left = images // len(CLASSES) + (k < images % len(CLASSES))
        while left:
            count = min(left, int(rng.integers(1, MOST + 1)))
            groups.append((label, count))
            left -= count
    groups = [groups[k] for k in rng.permutation(len(groups))]  # the number of a patient gives nothing away
    streams = root.spawn(len(groups))
    return [Patient(f"P{k + 1:04d}", *group, streams[k]) for k, group in enumerate(groups)]


def rows_of(patients: list[Patient]) -> list[Row]:
    """One row an image; the paths count from the folder of the set."""
    return [
        {
            "image_id": f"images/{file}",
            "path": f"images/{file}",
            "label": patient.label,
            "patient_id": patient.name,
            "mask_path": f"lung_masks/{file}",
            "lesion_mask_path": f"lesion_masks/{file}",
        }
        for patient in patients
        for file in patient.files()
    ]


def write_patients(folder: Path, patients: list[Patient], size: int) -> None:
    """Draw patients into ``folder``: ``images/``, ``lung_masks/`` and ``lesion_masks/``, each with class folders."""
    for kind in ("images", "lung_masks", "lesion_masks"):
        for label in CLASSES:
            (folder / kind / label).mkdir(parents=True, exist_ok=True)
    for patient in patients:
        drawn = radiographs(patient.label, patient.count, size, patient.seed)
        for file, radiograph in zip(patient.files(), drawn, strict=True):
            _save(radiograph.image, folder / "images" / file)
            _save(radiograph.lung, folder / "lung_masks" / file)
            _save(radiograph.lesion, folder / "lesion_masks" / file)


def _save(picture: NDArray[np.uint8] | NDArray[np.bool_], path: Path) -> None:
    """Grey as it is; a mask as 0 and 255."""
    grey = picture.astype(np.uint8) * 255 if picture.dtype == bool else picture
    Image.fromarray(grey).save(path, compress_level=3)
