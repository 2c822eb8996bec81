"""The vessels of the lungs: trees that leave the hila and taper towards the periphery."""

import numpy as np

from cxrnet.data.phantom.anatomy import Anatomy
from cxrnet.data.phantom.geometry import Array, Cloud

# First directions (sideways, forwards, down) and radii (cm) of one side, upper lobe to lower lobe.
STEMS = np.array(
    [
        [0.45, -0.2, -1.0],
        [0.75, 0.35, -0.9],
        [1.0, 0.3, -0.25],
        [1.0, -0.4, 0.25],
        [0.7, 0.5, 0.75],
        [0.35, -0.1, 1.0],
        [0.5, -0.5, 1.0],
        [0.15, -0.5, 1.0],
    ]
)
STEM_RADIUS = np.array([0.3, 0.28, 0.22, 0.24, 0.34, 0.46, 0.38, 0.32])
GENERATIONS = 6
POINTS = 14
# Vessels of about one width are blurred together: upper limits of the radius classes, cm.
WIDTHS = (0.12, 0.25, 0.6)


def vessels(anatomy: Anatomy, rng: np.random.Generator) -> list[Cloud]:
    """The vessels of both lungs, one cloud for each width class of ``WIDTHS``."""
    points, radii, volumes = (
        np.concatenate(part) for part in zip(*(_tree(anatomy, side, rng) for side in (-1.0, 1.0)), strict=True)
    )
    kind = np.digitize(radii, WIDTHS[:-1])
    return [Cloud(points[kind == k].T.copy(), volumes[kind == k]) for k in range(len(WIDTHS))]


def _tree(anatomy: Anatomy, side: float, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Grow one lung's tree; returns points ``(N, 3)``, radii and volumes ``(N,)``."""
    scale = anatomy.width / 13.6
    heading = STEMS * [side, 1, 1] + rng.normal(0, 0.12, STEMS.shape)
    heading /= np.linalg.norm(heading, axis=1, keepdims=True)
    hilum = np.array([side * 3.3, 0.0, -0.6 if side > 0 else 0.4]) * scale
    place = hilum + rng.normal(0, 0.25, STEMS.shape)
    radius = STEM_RADIUS * rng.uniform(0.85, 1.15, len(STEMS))
    length = 2.6 * scale
    along = (np.arange(POINTS) + 0.5) / POINTS
    points, radii, volumes = [], [], []
    for _ in range(GENERATIONS):
        reach = length * rng.uniform(0.7, 1.3, len(place))
        bend = rng.normal(0, 0.16, heading.shape)
        path = heading[:, None] * along[:, None] + bend[:, None] * (along**2)[:, None]
        branch = place[:, None] + path * reach[:, None, None]
        width = radius[:, None] * (1 - 0.2 * along)
        points.append(branch.reshape(-1, 3))
        radii.append(width.ravel())
        volumes.append((np.pi * width**2 * reach[:, None] / POINTS).ravel())
        place, heading = (
            np.repeat(place + (heading + bend) * reach[:, None], 2, 0),
            np.repeat(heading + bend, 2, 0),
        )
        spread = rng.normal(0, 0.42, heading.shape)
        spread[1::2] = -spread[::2] * 0.7
        heading = heading + spread
        heading /= np.linalg.norm(heading, axis=1, keepdims=True)
        radius = np.repeat(radius, 2) * rng.uniform(0.62, 0.86, 2 * len(radius))
        length *= 0.84
    return np.concatenate(points), np.concatenate(radii), np.concatenate(volumes)
