"""Drawing: from a seed to patients, their exposures, and the files of a set."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cxrnet.data.phantom.anatomy import (
    WIDTHS,
    Anatomy,
    Array,
    Cloud,
    View,
    draw_anatomy,
    organ_paths,
    skeleton,
    splat,
    vessels,
)
from cxrnet.data.phantom.detector import develop, draw_exposure
from cxrnet.data.phantom.signs import CLASSES, Lesion, draw_lesion

# Effective attenuation, 1/cm: soft tissue at 120 kV; what air takes away from it in an inflated lung; bone over it.
TISSUE, AIR, BONE = 0.19, 0.74, 0.44


@dataclass(frozen=True)
class Radiograph:
    """One exposure: ``image (size, size) uint8`` and two masks ``(size, size) bool``."""

    image: NDArray[np.uint8]
    lung: NDArray[np.bool_]
    lesion: NDArray[np.bool_]


def radiographs(label: str, count: int, size: int, seed: np.random.SeedSequence) -> Iterator[Radiograph]:
    """Draw ``count`` exposures of one patient: the anatomy and the disease stay, pose and technique change."""
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng)
    bones = skeleton(anatomy, rng, spacing=28 / max(size, 160))
    tree = vessels(anatomy, rng)
    lesion = draw_lesion(label, anatomy, rng)
    for _ in range(count):
        yield _expose(anatomy, bones, tree, lesion, size, rng)


def _expose(
    anatomy: Anatomy,
    bones: Cloud,
    tree: list[Cloud],
    lesion: Lesion | None,
    size: int,
    rng: np.random.Generator,
) -> Radiograph:
    view = View(
        size=size,
        field=rng.uniform(30.0, 37.5),
        right=rng.normal(0, 1.1),
        down=rng.normal(0.2, 1.2),
        roll=np.deg2rad(rng.normal(0, 2.2)),
        turn=np.deg2rad(rng.normal(0, 2.2)),
        tilt=rng.normal(0.0, 0.05),
    )
    breath = rng.normal(0, 0.8)
    paths = organ_paths(anatomy, view, breath)
    lung = paths.lung
    aerated = lung > 0
    fill, extent = lesion.seen(view, breath) if lesion else (np.zeros_like(lung), np.zeros_like(lung))
    air = AIR * lung * (1 - fill) + paths.gas
    air -= 2.2 * AIR * _vessel_map(tree, view) * np.clip(lung / 4, 0, 1)
    bone = ndimage.gaussian_filter(splat(bones, view), 0.35)
    attenuation = TISSUE * np.clip(paths.body - air, 0, None) + BONE * bone * (paths.body > 0)
    image = develop(attenuation, view.field, draw_exposure(rng), rng)
    return Radiograph(image, paths.mask, paths.mask & aerated & (extent >= 0.5))


def _vessel_map(tree: list[Cloud], view: View) -> Array:
    """Sum the path lengths through the vessels, each width class blurred to its width."""
    total = np.zeros((view.size, view.size))
    for cloud, width in zip(tree, WIDTHS, strict=True):
        total += ndimage.gaussian_filter(splat(cloud, view), 0.4 * min(width, 0.5) / view.pixel)
    return total


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
        """Name the images, relative to ``images/``, ``lung_masks/`` or ``lesion_masks/``."""
        return [f"{self.label}/{self.name}_{k + 1}.png" for k in range(self.count)]


def enrol(images: int, seed: int) -> list[Patient]:
    """Enrol patients of one to four images each, the classes with equal numbers of images (but for a remainder).

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
    """Make one row an image; the paths count from the folder of the set."""
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
    grey = picture.astype(np.uint8) * 255 if picture.dtype == bool else picture
    Image.fromarray(grey).save(path, compress_level=3)


WORTH = 50  # images whose drawing costs about as much as starting a helper


def draw(folder: Path, images: int, size: int, seed: int) -> None:
    """Draw a whole set into ``folder``, with as many processes as there are cores and as is worth while.

    Raises:
        RuntimeError: a helper failed; with its last line.
    """
    count = max(1, min(os.cpu_count() or 1, images // WORTH))
    # The helpers must find cxrnet where this process found it.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    helpers = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), *map(str, (images, size, seed, share, count))],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for share in range(1, count)
    ]
    try:
        draw_share(folder, images, size, seed, 0, count)
        for helper in helpers:
            _, trouble = helper.communicate()
            if helper.returncode:
                last = trouble.strip().splitlines()[-1:] or [f"exit status {helper.returncode}"]
                raise RuntimeError(f"a drawing process failed: {last[0]}")
    finally:
        for helper in helpers:
            helper.kill()  # does nothing to one that has ended
            helper.wait()


def draw_share(folder: Path, images: int, size: int, seed: int, share: int, of: int) -> None:
    """Draw every ``of``-th patient of a set, from number ``share`` on."""
    write_patients(folder, enrol(images, seed)[share::of], size)


if __name__ == "__main__":
    draw_share(Path(sys.argv[1]), *map(int, sys.argv[2:]))
