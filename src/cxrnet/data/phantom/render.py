"""From a patient to radiographs and the files of a set: exposures, detector, film, processes that share the drawing."""

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

from cxrnet.data.phantom.anatomy import Array, View, draw_anatomy, skeleton, splat
from cxrnet.data.phantom.organs import CLASSES, WIDTHS, draw_lesion, organ_paths, vessels

# Effective attenuation, 1/cm: soft tissue at 120 kV; what air takes away from it in an inflated lung; bone over it.
_TISSUE, _AIR, _BONE = 0.19, 0.74, 0.44
_MOST = 4  # images of one patient
_WORTH = 50  # images whose drawing costs about as much as starting a helper

Row = dict[str, str]
_Pictures = dict[str, NDArray[np.uint8]]

_GLYPHS = {
    "R": ("1111.", "1...1", "1...1", "1111.", "1.1..", "1..1.", "1...1"),
    "L": ("1....", "1....", "1....", "1....", "1....", "1....", "11111"),
    "A": (".111.", "1...1", "1...1", "11111", "1...1", "1...1", "1...1"),
    "P": ("1111.", "1...1", "1...1", "1111.", "1....", "1....", "1...."),
}


@dataclass(frozen=True)
class _Exposure:
    """One exposure's technique and processing; nothing here depends on the disease."""

    scatter: float  # scattered rays for each direct one
    blur: float  # unsharpness of focus, motion and detector, cm
    noise: float  # relative noise of a pixel in free air
    sharpen: float  # strength of the local contrast enhancement
    low: float  # shift of the window's dark end, as a share of its width
    high: float  # shift of the window's bright end, as a share of its width
    gamma: float  # bend of the grey curve; above 1 is darker
    heel: float  # fall of the exposure across the image
    heel_turn: float  # direction of that fall, radians
    blades: tuple[float, float, float, float]  # collimator: shares covered from the left, right, top, bottom
    letter: str  # side marker, '' for none
    letter_place: tuple[float, float, float]  # its column, row and height as shares of the image


def _draw_exposure(rng: np.random.Generator) -> _Exposure:
    """Draw an exposure at random."""
    blades = np.where(rng.random(4) < 0.16, rng.uniform(0.005, 0.05, 4), 0.0)
    left = rng.random() < 0.6
    return _Exposure(
        scatter=rng.uniform(0.2, 0.9),
        blur=rng.uniform(0.2, 0.44) ** 2,
        noise=rng.uniform(0.0008, 0.0035),
        sharpen=rng.uniform(0.2, 1.0),
        low=rng.uniform(-0.1, 0.05),
        high=rng.uniform(-0.06, 0.14),
        gamma=float(np.exp(rng.normal(0.2, 0.18))),
        heel=rng.uniform(0, 0.22),
        heel_turn=rng.uniform(0, 2 * np.pi),
        blades=(float(blades[0]), float(blades[1]), float(blades[2]), float(blades[3])),
        letter=("R" if left else "L") if rng.random() < 0.55 else "",
        letter_place=(
            rng.uniform(0.03, 0.12) if left else rng.uniform(0.86, 0.93),
            rng.uniform(0.03, 0.3),
            rng.uniform(0.05, 0.075),
        ),
    )


def _develop(attenuation: Array, field: float, exposure: _Exposure, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Develop the radiograph ``(size, size) uint8``, bone bright, of line integrals ``(size, size)``; 0 is free air.

    ``field`` is the side of the square in cm; ``rng`` draws the quantum noise.
    """
    size = len(attenuation)
    pixel = field / size
    direct = ndimage.gaussian_filter(np.exp(-attenuation), exposure.blur / pixel)
    body = np.minimum(direct, 0.25)  # free air scatters nothing
    rays = (direct + exposure.scatter * _wide_blur(body, 5.0 / pixel)) / (1 + exposure.scatter)
    grain = ndimage.gaussian_filter(rng.standard_normal((size, size)), 0.5)
    rays += 2.5 * exposure.noise * np.sqrt(rays) * grain
    film = -np.log(np.maximum(rays, 1e-4))
    slope = np.linspace(-0.5, 0.5, size)
    film += exposure.heel * (np.cos(exposure.heel_turn) * slope[None, :] + np.sin(exposure.heel_turn) * slope[:, None])
    film += exposure.sharpen * (film - _wide_blur(film, 2.5 / pixel))
    centre = film[size // 5 : -size // 5, size // 6 : -size // 6]
    low, high = np.percentile(centre, [2.0, 99.5])
    wide = high - low
    low, high = low + (exposure.low - 0.2) * wide, high + exposure.high * wide
    grey = (film - low) / (high - low)
    grey = 0.5 * (grey + np.sqrt(grey**2 + 0.004))  # toe of the curve
    grey = (1 - np.exp(-2.2 * grey**1.15)) / (1 - np.exp(-2.2))  # shoulder of the curve
    grey = np.clip(grey, 0, 1) ** exposure.gamma
    grey = _collimate(grey, exposure.blades)
    if exposure.letter:
        stamp(grey, exposure.letter, exposure.letter_place)
    return np.asarray(np.rint(255 * np.clip(grey, 0, 1)), dtype=np.uint8)


def stamp(image: Array, text: str, place: tuple[float, float, float]) -> None:
    """Burn letters into an image ``(size, size)`` of greys 0 to 1, in place; ``place`` as in :class:`_Exposure`."""
    size = len(image)
    rows = [".".join(_GLYPHS[letter][k] for letter in text) for k in range(7)]
    bitmap = np.array([[c == "1" for c in row] for row in rows], dtype=np.float64)
    zoom = max(1.0, place[2] * size / 7)
    drawn = np.clip(ndimage.zoom(np.pad(bitmap, 1), zoom, order=1) * 1.6 - 0.3, 0, 1)
    top, left = int(place[1] * size), int(place[0] * size)
    window = image[top : top + drawn.shape[0], left : left + drawn.shape[1]]
    drawn = drawn[: window.shape[0], : window.shape[1]]
    np.maximum(window, 0.95 * drawn, out=window)


def _wide_blur(image: Array, sigma: float) -> Array:
    """Approximate a Gaussian blur by two box filters, whose cost doesn't grow with its width."""
    width = max(1, round(sigma * 6**0.5))
    return np.asarray(
        ndimage.uniform_filter(ndimage.uniform_filter(image, width, mode="nearest"), width, mode="nearest")
    )


def _collimate(grey: Array, blades: tuple[float, float, float, float]) -> Array:
    """Darken what the collimator covers, with a soft edge."""
    size = len(grey)
    t = (np.arange(size) + 0.5) / size
    left, right, top, bottom = blades

    def shade(lower: float, upper: float) -> Array:
        near = np.clip((t - lower) * size / 2 + 0.5, 0, 1) if lower else np.ones(size)
        far = np.clip((1 - upper - t) * size / 2 + 0.5, 0, 1) if upper else np.ones(size)
        return np.asarray(near * far)

    return grey * (0.03 + 0.97 * shade(left, right)[None, :] * shade(top, bottom)[:, None])


def _radiographs(label: str, count: int, size: int, seed: np.random.SeedSequence) -> Iterator[_Pictures]:
    """Draw exposures of one patient: the anatomy and the disease stay, pose and technique change.

    Yields:
        By the folder of its kind, the image and two masks of 0 or 255, ``(size, size) uint8``.
    """
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng)
    bones = skeleton(anatomy, rng, spacing=28 / max(size, 160))
    tree = vessels(anatomy, rng)
    lesion = draw_lesion(label, anatomy, rng)
    for _ in range(count):
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
        fill, extent = lesion.seen(view, breath) if lesion else (np.zeros_like(lung), np.zeros_like(lung))
        blood = np.zeros((size, size))
        for cloud, width in zip(tree, WIDTHS, strict=True):  # each width class is blurred to its width
            blood += ndimage.gaussian_filter(splat(cloud, view), 0.4 * min(width, 0.5) / view.pixel)
        air = _AIR * lung * (1 - fill) + paths.gas
        air -= 2.2 * _AIR * blood * np.clip(lung / 4, 0, 1)
        bone = ndimage.gaussian_filter(splat(bones, view), 0.35)
        attenuation = _TISSUE * np.clip(paths.body - air, 0, None) + _BONE * bone * (paths.body > 0)
        image = _develop(attenuation, view.field, _draw_exposure(rng), rng)
        masks = {"lung_masks": paths.mask, "lesion_masks": paths.mask & (lung > 0) & (extent >= 0.5)}
        yield {"images": image} | {kind: mask.astype(np.uint8) * 255 for kind, mask in masks.items()}


@dataclass(frozen=True)
class _Patient:
    """A patient to draw."""

    name: str
    label: str
    count: int
    seed: np.random.SeedSequence

    def files(self) -> list[str]:
        """Name the images, relative to ``images/``, ``lung_masks/`` or ``lesion_masks/``."""
        return [f"{self.label}/{self.name}_{k + 1}.png" for k in range(self.count)]


def enrol(images: int, seed: int) -> list[_Patient]:
    """Enrol patients of one to four images each, the classes with equal numbers of images (but for a remainder).

    Each has a random stream of its own: a picture depends neither on the order of drawing nor on who draws.
    """
    root = np.random.SeedSequence(seed)
    rng = np.random.default_rng(root)
    groups: list[tuple[str, int]] = []
    for k, label in enumerate(CLASSES):
        left = images // len(CLASSES) + (k < images % len(CLASSES))
        while left:
            count = min(left, int(rng.integers(1, _MOST + 1)))
            groups.append((label, count))
            left -= count
    groups = [groups[k] for k in rng.permutation(len(groups))]  # the number of a patient gives nothing away
    streams = root.spawn(len(groups))
    return [_Patient(f"P{k + 1:04d}", *group, streams[k]) for k, group in enumerate(groups)]


def rows_of(patients: list[_Patient]) -> list[Row]:
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


def draw(folder: Path, images: int, size: int, seed: int) -> None:
    """Draw a whole set into ``folder``, with as many processes as there are cores and as is worth while."""
    count = max(1, min(os.cpu_count() or 1, images // _WORTH))
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
        _draw_share(folder, images, size, seed, 0, count)
        for helper in helpers:
            _, trouble = helper.communicate()
            if helper.returncode:
                last = trouble.strip().splitlines()[-1:] or [f"exit status {helper.returncode}"]
                raise RuntimeError(f"a drawing process failed: {last[0]}")
    finally:
        for helper in helpers:
            helper.kill()  # does nothing to one that has ended
            helper.wait()


def _draw_share(folder: Path, images: int, size: int, seed: int, share: int, of: int) -> None:
    """Draw every ``of``-th patient of a set, from number ``share`` on: images, lung masks and lesion masks."""
    for kind in ("images", "lung_masks", "lesion_masks"):
        for label in CLASSES:
            (folder / kind / label).mkdir(parents=True, exist_ok=True)
    for patient in enrol(images, seed)[share::of]:
        drawn = _radiographs(patient.label, patient.count, size, patient.seed)
        for file, each in zip(patient.files(), drawn, strict=True):
            for kind, picture in each.items():
                Image.fromarray(picture).save(folder / kind / file, compress_level=3)


if __name__ == "__main__":
    _draw_share(Path(sys.argv[1]), *map(int, sys.argv[2:]))
