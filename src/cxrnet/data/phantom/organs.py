"""The soft parts as path lengths: what a ray meets of the body, the air and the organs.

Every organ is a convex solid whose chord along the ray has a closed form. The lungs are what is left of the rib
cage when heart, mediastinum and diaphragm have taken their room, which gives the heart and the diaphragm their
crisp outlines.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrnet.data.phantom.anatomy import Anatomy
from cxrnet.data.phantom.geometry import Array, View


@dataclass(frozen=True)
class Paths:
    """Maps ``(size, size)`` of one exposure, lengths in cm."""

    body: Array
    """Way through the body."""
    lung: Array
    """Way through both lungs."""
    gas: Array
    """Way through air outside the lungs: windpipe, main bronchi, stomach."""
    mask: NDArray[np.bool_]
    """The lung fields as a person outlines them: without heart, mediastinum and what hides behind the diaphragm."""


def organ_paths(anatomy: Anatomy, view: View, breath: float) -> Paths:
    """Path lengths of one exposure; ``breath`` (cm) is how much lower the diaphragm stands than in the mean."""
    x, z = view.plane(0.0)
    lateral, deep = anatomy.half_width(z), anatomy.half_depth(z)
    cage = 2 * deep * _arc(x / lateral)
    heart = _heart(anatomy, view, breath)
    column = 1.5 * deep * _arc(_mediastinum(anatomy, x, z))
    solid = np.maximum(np.maximum(heart, column), _great_vessels(anatomy, view))
    dome = np.minimum(_diaphragm(anatomy, x, z, breath), cage)
    floor = anatomy.base + breath
    lung = np.clip(cage - solid - dome, 0, None) * _step(floor - z, 0.4)
    mask = (lung > 0.82 * cage) & (cage > 1.5)
    return Paths(_body(anatomy, view, x, z), lung, _airways(anatomy, view) + _stomach(anatomy, view, breath), mask)


def _arc(u: Array) -> Array:
    """Chord of the unit circle at distance u from its centre, as a share of the diameter."""
    return np.asarray(np.sqrt(np.clip(1 - u * u, 0, None)))


def _step(u: Array, width: float) -> Array:
    """0 below, 1 above zero, over about ``width``."""
    return np.asarray(1 / (1 + np.exp(-np.clip(4 * u / width, -40, 40))))


def _ellipsoid(x: Array, z: Array, wide: float, high: float, depth: float) -> Array:
    return np.asarray(depth * 2 * np.sqrt(np.clip(1 - (x / wide) ** 2 - (z / high) ** 2, 0, None)))


def _heart(anatomy: Anatomy, view: View, breath: float) -> Array:
    """Left ventricle, right atrium and the trunk of the lung artery."""
    x, z = view.plane(2.5)
    size, low = anatomy.heart, anatomy.base - anatomy.dome - anatomy.left_lower * 0.5 + breath
    cosine, sine = np.cos(anatomy.heart_turn), np.sin(anatomy.heart_turn)
    dx, dz = x - 2.4 * size, z - (low - 2.6 * size + 0.9)
    ventricle = _ellipsoid(dx * cosine + dz * sine, dz * cosine - dx * sine, 7.4 * size, 4.7 * size, 5.0 * size)
    atrium = _ellipsoid(x - 0.2 * size, z - (low - 3.2 * size), 4.2 * size, 6.2 * size, 4.6 * size)
    trunk = _ellipsoid(x - 1.6 * size, z - (low - 7.6 * size), 2.6 * size, 4.2 * size, 3.6 * size)
    return np.maximum(np.maximum(ventricle, atrium), trunk)


def _mediastinum(anatomy: Anatomy, x: Array, z: Array) -> Array:
    """Distance from the midline in half widths of the mediastinum, which opens towards the neck."""
    top = _step(anatomy.apex + 1.6 - z, 5.0)
    half = anatomy.mediastinum + 2.0 * top
    return (x - anatomy.midline(z) + 0.15) / half


def _great_vessels(anatomy: Anatomy, view: View) -> Array:
    """Aortic arch and descending aorta on the left of the spine, upper vena cava on the right."""
    x, z = view.plane(-3.0)
    arch = _ellipsoid(x - 1.6, z + 5.6, anatomy.knob + 0.5, anatomy.knob, 4.5)
    descending = 2 * 1.2 * _arc((x - 1.6 - 0.05 * (z + 5)) / 1.3) * _step(z + 5.6, 1.0)
    cava_x, cava_z = view.plane(2.0)
    cava = 6.0 * _arc((cava_x + 1.7) / 1.35) * _step(cava_z + 9, 2.0) * _step(3 - cava_z, 3.0)
    return np.maximum(np.maximum(arch, descending), cava)


def _diaphragm(anatomy: Anatomy, x: Array, z: Array, breath: float) -> Array:
    """What the two domes take of the chest; below their base nothing is left."""
    floor = anatomy.base + breath
    half = anatomy.half_width(np.array(floor)) / 2
    taken = np.zeros_like(x)
    for side, lower in ((-1.0, 0.0), (1.0, anatomy.left_lower)):
        rise = np.clip((floor - z) / (anatomy.dome - lower), 0, None)
        across = (x - side * half * 0.86) / (half * 1.16)
        dome = 2 * 0.99 * anatomy.depth * np.sqrt(np.clip(1 - np.abs(across) ** 2.3 - rise**2, 0, None))
        taken = np.maximum(taken, dome)
    return taken


def _body(anatomy: Anatomy, view: View, x: Array, z: Array) -> Array:
    """Trunk, shoulders, neck and breasts."""
    out, level, fat = np.abs(x), anatomy.shoulder, anatomy.fat
    half = anatomy.width + 1.35 + 0.7 * fat + 0.12 * np.clip(z, -10, 20)
    thick = (anatomy.depth + 1.2 + 0.55 * fat) * (0.66 + 0.34 * _step(z + 9, 14.0))
    trunk = 2 * thick * np.sqrt(_arc((out / half) ** 2)) * _step(z - level + 2, 3.0)
    inwards = np.clip(anatomy.width + 2 - out, 0, None)
    top = level - 3.4 - inwards * (0.35 + 0.036 * inwards)  # the slope from the neck to the shoulder
    end = anatomy.width + 6.2 + 0.5 * fat
    under = np.sqrt(np.clip((z - top) / 7, 0, 1)) * _step(level + 9 - z, 6.0)
    shoulder = (9.2 + fat) * under * _arc(x / end)
    neck = 11.2 * _arc(x / (5.2 + 0.3 * fat)) * _step(level - z, 6.0)
    # The fourth power sum runs the parts into each other without a crease and without adding them up.
    parts = np.stack([trunk, shoulder, neck, _arm(anatomy, x, z)])
    return np.asarray(np.sqrt(np.sqrt(((parts * parts) ** 2).sum(axis=0)))) + _breasts(anatomy, view)


def _arm(anatomy: Anatomy, x: Array, z: Array) -> Array:
    """Upper arms held off the body: cylinders that run out of the image."""
    radius = 4.0 + 0.45 * anatomy.fat
    dx, dz = np.abs(x) - anatomy.width - 2.6, z - anatomy.shoulder - 0.5
    along = np.clip(0.3162 * dx + 0.9487 * dz, 0, None)  # a unit vector, so that the distance follows from it
    return 2 * np.sqrt(np.clip(radius**2 - dx * dx - dz * dz + along * along, 0, None))


def _breasts(anatomy: Anatomy, view: View) -> Array:
    x, z = view.plane(12.0)
    size = anatomy.breast
    wide, high = 4.6 + 1.8 * size, 4.2 + 2.2 * size
    dx, dz = np.abs(x) - 0.62 * anatomy.width, z - 6.0 - 1.6 * size
    upper = np.where(dz < 0, dz * 0.62, dz)  # the upper slope runs out, the lower fold is an edge
    return 4.2 * size * np.clip(1 - (dx / wide) ** 2 - (upper / high) ** 2, 0, None) ** 0.8


def _airways(anatomy: Anatomy, view: View) -> Array:
    """The windpipe, filled with air, and the two main bronchi."""
    x, z = view.plane(-1.0)
    fork = -3.6
    pipe = 1.7 * _arc((x + 0.25 - anatomy.midline(z) + 0.03 * (z - fork)) / 0.9) * _step(fork + 0.5 - z, 0.8)
    right = _bronchus(x + 0.25, z - fork, -0.5, 4.2)
    left = _bronchus(x + 0.25, z - fork, 0.95, 4.6)
    return np.maximum(pipe, np.maximum(right, left))


def _bronchus(dx: Array, dz: Array, slant: float, length: float) -> Array:
    steep = np.hypot(1, slant)
    along, off = (dz + slant * dx) / steep, (dx - slant * dz) / steep
    return 1.25 * _arc(off / 0.62) * _step(along, 0.6) * _step(length - along, 1.2)


def _stomach(anatomy: Anatomy, view: View, breath: float) -> Array:
    """Gas under the left dome; standing, it lies on a fluid level."""
    if anatomy.bubble < 0.7:
        return np.zeros((view.size, view.size))
    x, z = view.plane(0.0)
    r = anatomy.bubble
    top = anatomy.base - anatomy.dome + anatomy.left_lower + breath + 0.7
    gas = _ellipsoid(x - 6.2, z - top - r, 1.5 * r, r, 1.3 * r)
    return gas * _step(top + 1.25 * r - z, 0.25) if anatomy.fluid else gas
