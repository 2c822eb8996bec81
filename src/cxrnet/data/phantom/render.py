"""One patient from a seed, and the exposures taken of that patient."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cxrnet.data.phantom.anatomy import Anatomy, draw_anatomy
from cxrnet.data.phantom.detector import develop, draw_exposure
from cxrnet.data.phantom.geometry import Array, Cloud, View, splat
from cxrnet.data.phantom.organs import organ_paths
from cxrnet.data.phantom.signs import Lesion, draw_lesion
from cxrnet.data.phantom.skeleton import skeleton
from cxrnet.data.phantom.vessels import WIDTHS, vessels

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
    """Path length through the vessels, each width class blurred to its width."""
    total = np.zeros((view.size, view.size))
    for cloud, width in zip(tree, WIDTHS, strict=True):
        total += ndimage.gaussian_filter(splat(cloud, view), 0.4 * min(width, 0.5) / view.pixel)
    return total
