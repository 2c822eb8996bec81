"""The bones of the shoulders as clouds of small pieces: clavicles, shoulder blades, upper arms."""

import numpy as np

from cxrnet.data.phantom.anatomy import Anatomy
from cxrnet.data.phantom.geometry import Array, Cloud, join, tube

Knots = list[tuple[float, float, float]]


def shoulders(anatomy: Anatomy, rng: np.random.Generator, spacing: float) -> Cloud:
    """The shoulders of both sides; how far they are rolled forward, out of the lungs, varies with the patient."""
    reach = rng.uniform(-0.8, 1.0)
    sides = []
    for side in (-1.0, 1.0):
        one = _shoulder(anatomy, reach + rng.normal(0, 0.15), spacing)
        sides.append(Cloud(one.points * np.array([[side], [1], [1]]), one.volumes))
    return join(sides)


def _shoulder(anatomy: Anatomy, reach: float, spacing: float) -> Cloud:
    """Clavicle, shoulder blade and upper arm on the patient's left."""
    level, out = anatomy.shoulder, anatomy.width + 2.3
    tip, inner = (out - 2.2 + reach, -7.5, level + 11.5), (out - 6.3 + reach, -8.0, level + 0.2)
    socket, acromion = (out - 1.0, -3.5, level + 1.6), (out + 1.2, -4.0, level - 1.9)
    clavicle: Knots = [
        (2.0, 6.5, level + 2.1),
        (5.4, 7.0, level + 0.9),
        (10.0, 4.5, level - 0.5),
        (out, 0.5, level - 1.5),
    ]
    lateral: Knots = [socket, (out - 1.9 + 0.6 * reach, -5.5, level + 5.0), tip]
    medial: Knots = [inner, (out - 6.0 + reach, -8.0, level + 5.0), tip]
    spine: Knots = [(out - 6.2 + reach, -8.6, level + 2.2), (out - 2.5, -7.0, level - 0.3), acromion]
    upper: Knots = [inner, (out - 3.5, -6.0, level - 0.2), socket]
    arm: Knots = [(out + 0.9, -2.0, level + 1.2), (out + 1.9, -2.0, level + 5.0), (out + 5.6, -1.0, level + 16.0)]
    return join(
        [
            _bone(clavicle, [0.8, 0.55, 0.48, 0.62], 0.85, 0.15, spacing),
            _bone(lateral, [0.65, 0.42, 0.3], 0.8, 0.13, spacing),
            _bone(medial, [0.22, 0.2, 0.25], 0.9, 0.1, spacing),
            _bone(spine, [0.25, 0.42, 0.6], 0.7, 0.12, spacing),
            _bone(upper, [0.2, 0.25, 0.5], 0.8, 0.1, spacing),
            _bone(arm, [1.9, 1.15, 1.05], 1.0, 0.22, spacing),
            _head(np.array([out + 0.5, -2.0, level + 0.6]), 2.3, spacing),
            _blade(socket, inner, tip, spacing),
        ]
    )


def _bone(knots: Knots, radii: list[float], flat: float, wall: float, spacing: float) -> Cloud:
    """A long bone through a few knots; ``radii`` along it in cm, ``flat`` the ratio of its section's axes."""
    length = float(np.linalg.norm(np.diff(knots, axis=0), axis=1).sum())
    t = np.linspace(0, 1, int(length / spacing))
    path, height = _through(np.array(knots), t).T.copy(), _through(np.array(radii), t)
    x, y, _ = np.gradient(path, axis=1)
    across = np.stack([y, -x, 0 * x]) / np.hypot(x, y)
    return tube(path, across, height, flat * height, around=max(8, int(4 * float(np.mean(radii)) / spacing)), wall=wall)


def _through(values: Array, t: Array) -> Array:
    """The polynomial through evenly spaced values (along the first axis), at t from 0 to 1."""
    count = len(values)
    weights = np.linalg.solve(np.vander(np.linspace(0, 1, count)), values)
    return np.asarray(np.vander(t, count) @ weights)


def _head(centre: Array, radius: float, spacing: float) -> Cloud:
    """The head of the upper arm: a spongy ball."""
    count = int(4 * np.pi * radius**2 / spacing**2)
    k = np.arange(count) + 0.5  # a Fibonacci lattice on the sphere, every point moved inwards as if at random
    polar, angle = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    sphere = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)])
    depth = (0.7548776662466927 * k**2 % 1.0) ** 0.25
    return Cloud(centre[:, None] + radius * depth * sphere, np.full(count, 0.14 * 4 / 3 * np.pi * radius**3 / count))


def _blade(first: tuple[float, ...], second: tuple[float, ...], third: tuple[float, ...], spacing: float) -> Cloud:
    """The thin plate of the shoulder blade between three corners."""
    a, b, c = np.array([first, second, third])
    u, v = (g.ravel() for g in np.meshgrid(*2 * [np.linspace(0, 1, int(8 / spacing))]))
    keep = u + v < 1
    points = a[:, None] + u[keep] * (b - a)[:, None] + v[keep] * (c - a)[:, None]
    area = float(np.linalg.norm(np.cross(b - a, c - a))) / 2
    return Cloud(points, np.full(points.shape[1], 0.12 * area / points.shape[1]))
