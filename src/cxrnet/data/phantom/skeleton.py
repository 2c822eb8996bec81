"""The bones of the trunk as clouds of small pieces: ribs and spine."""

import numpy as np

from cxrnet.data.phantom.anatomy import Anatomy
from cxrnet.data.phantom.geometry import Array, Cloud, join, tube
from cxrnet.data.phantom.shoulders import shoulders

RIBS = 12
# Where the bony rib ends: the angle around the chest in degrees, 0 at the side, 90 at the breastbone.
RIB_END = np.array([62, 58, 54, 50, 46, 40, 34, 24, 12, -2, -30, -52])
# How far the rib comes down from the spine to the side, cm.
RIB_DROP = np.array([2.3, 3.1, 3.6, 4.1, 4.4, 4.7, 5.0, 5.2, 5.3, 5.2, 4.6, 3.6])


def skeleton(anatomy: Anatomy, rng: np.random.Generator, spacing: float) -> Cloud:
    """All bones of a patient; ``spacing`` is the distance (cm) of neighbouring points along a bone."""
    cloud = join([_ribs(anatomy, rng, spacing), _spine(anatomy, spacing), shoulders(anatomy, rng, spacing)])
    return Cloud(cloud.points, cloud.volumes * anatomy.bone)


def vertebra_levels(anatomy: Anatomy) -> tuple[Array, Array]:
    """Levels (z) and heights of the vertebrae from the sixth of the neck to the second of the loin."""
    size = anatomy.width / 13.6
    heights = np.concatenate([np.full(2, 1.6), np.linspace(1.85, 2.45, RIBS), np.full(2, 2.7)]) * size
    levels = np.cumsum(heights)
    return np.asarray(levels - levels[2] + anatomy.apex - 0.2), heights


def _ribs(anatomy: Anatomy, rng: np.random.Generator, spacing: float) -> Cloud:
    start = vertebra_levels(anatomy)[0][2 : 2 + RIBS]
    drop = RIB_DROP * anatomy.rib_slope * rng.normal(1, [0.12] + [0.02] * (RIBS - 1))
    wide = anatomy.half_width(start + drop) + 0.3
    deep = np.maximum(anatomy.half_depth(start + drop), 3.5) + 0.3
    wide[0], deep[0] = 0.88 * wide[0], 4.2
    t = np.linspace(0, 1, int(27 / spacing))
    taper = np.clip(t / 0.05, 0.55, 1) * np.clip((1 - t) / 0.02, 0.6, 1.0)
    height = np.repeat([0.62 * anatomy.rib_size * taper * (1 + 0.12 * t)], RIBS, axis=0)
    clouds = []
    for side in (-1.0, 1.0):
        first = -np.arccos(1.9 / wide)
        last = np.deg2rad(RIB_END + rng.normal(0, 3, RIBS))
        angle = first[:, None] + (last - first)[:, None] * t
        cosine, sine = np.cos(angle), np.sin(angle)
        bow = 1 + 0.02 * rng.normal(0, 1, (RIBS, 1)) * np.sin(2 * angle)
        z = start[:, None] + drop[:, None] * (1 + sine) * bow + 0.5 * cosine
        x = side * wide[:, None] * cosine + anatomy.midline(start)[:, None]
        curve = np.stack([x, deep[:, None] * sine, z])
        across = np.stack([side * cosine, sine, np.zeros_like(sine)])
        clouds.append(
            tube(curve, across, height, np.full_like(height, 0.36), around=max(12, int(1.4 / spacing)), wall=0.11)
        )
    return join(clouds)


def _spine(anatomy: Anatomy, spacing: float) -> Cloud:
    levels, heights = vertebra_levels(anatomy)
    growth = 1 + 0.018 * (levels + 13)
    centres = np.stack([anatomy.midline(levels), np.full_like(levels, -0.62 * anatomy.depth), levels])
    parts = [_bodies(centres, 1.5 * growth, 0.82 * heights, spacing)]
    for side in (-1.0, 1.0):
        t = np.linspace(0, 1, max(8, int(2 / spacing)))
        x = side * growth[:, None] * (1.2 + 1.3 * t)
        y, z = -2.2 - 0.6 * t + 0 * x, -0.2 * heights[:, None] - 0.1 * t
        curve = centres[:, :, None] + np.stack([x, y, z])
        across = np.zeros_like(curve)
        across[1] = 1.0
        parts.append(tube(curve, across, 0.4 - 0.15 * t + 0 * x, 0.25 + 0 * x, around=8, wall=0.05))
        parts.append(
            _pipes(centres + np.stack([side * 1.05 * growth, 0 * growth - 1.8, -0.15 * heights]), 0.38, 0.5, spacing)
        )
    parts.append(_pipes(centres + np.stack([0 * growth, 0 * growth - 4.0, 0.45 * heights]), 0.3, 0.75, spacing))
    return join(parts)


def _bodies(centres: Array, radii: Array, heights: Array, spacing: float) -> Cloud:
    """Vertebral bodies: waisted cylinders with a dense wall, two end plates and a spongy inside.

    One unit body (radius 1, height 1) is scaled to each vertebra; ``centres (3, V)``, ``radii``, ``heights (V,)``.
    """
    z, angle = np.meshgrid(
        np.linspace(-0.5, 0.5, int(2.2 / spacing)), np.linspace(0, 2 * np.pi, 28, endpoint=False), indexing="ij"
    )
    waist = 1 - 0.14 * (1 - 4 * z**2)
    points, shares = [], []
    for radius, wall in ((1.0, 0.09), (0.6, 0.1)):
        r = radius * waist
        points.append(np.stack([r * np.cos(angle), 0.8 * r * np.sin(angle), z]).reshape(3, -1))
        shares.append(np.full(z.size, wall * 2 * np.pi * radius / z.size))  # times radius and height
    px, py = (g.ravel() for g in np.meshgrid(*2 * [np.linspace(-1, 1, int(2.2 / spacing))]))
    plate = np.stack([px, py, 0 * px])[:, px**2 + (py / 0.8) ** 2 < 1]
    for end in (-0.5, 0.5):
        points.append(plate + np.array([[0], [0], [end]]))
        shares.append(np.full(plate.shape[1], 0.05 * np.pi * 0.8 / plate.shape[1]))  # times about radius²
    unit, share = np.concatenate(points, axis=1), np.concatenate(shares)
    placed = unit[:, None] * np.stack([radii, radii, heights])[:, :, None] + centres[:, :, None]
    return Cloud(placed.reshape(3, -1), (share * (radii * heights)[:, None]).ravel())


def _pipes(centres: Array, wide: float, high: float, spacing: float) -> Cloud:
    """Arches of the vertebrae, seen end on as ovals; ``centres (3, V)``."""
    angle = np.linspace(0, 2 * np.pi, max(16, int(4 / spacing)), endpoint=False)
    oval = np.stack([wide * np.cos(angle), 0 * angle, high * np.sin(angle)])
    filled = np.concatenate([oval, 0.65 * oval], axis=1)
    placed = centres[:, :, None] + filled[:, None]
    volume = 0.09 * np.pi * (wide + high) / filled.shape[1]
    return Cloud(placed.reshape(3, -1), np.full(placed[0].size, volume))
