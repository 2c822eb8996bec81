"""One patient: the thorax, its bones as clouds of small pieces, and their projection onto a detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Focus to the middle of the chest, cm. In a PA view the tube stands behind the patient, 180 cm from the detector.
_FOCUS = 165.0


@dataclass(frozen=True)
class View:
    """One exposure's geometry: how the patient stands before a square detector."""

    size: int  # pixels along a side
    field: float  # side of the visible square in the plane through the middle of the chest, cm
    right: float  # shift of the patient in the image, cm
    down: float  # shift of the patient in the image, cm
    roll: float  # lean to one side, radians
    turn: float  # turn around the patient's long axis, radians: front and back slide apart sideways
    tilt: float  # slope of the beam: front and back slide apart vertically by this share of their distance

    @property
    def pixel(self) -> float:
        """Side of a pixel, cm."""
        return self.field / self.size

    def project(self, points: Array) -> tuple[Array, Array]:
        """Project points ``(3, N)`` to columns and rows (in pixels, the first pixel's centre at 0)."""
        x, y, z = points
        depth = y * np.cos(self.turn) - x * np.sin(self.turn)
        zoom = _FOCUS / (_FOCUS + depth) / self.pixel
        across = zoom * (x * np.cos(self.turn) + y * np.sin(self.turn))
        along = zoom * (z + self.tilt * depth)
        centre = (self.size - 1) / 2
        columns = across * np.cos(self.roll) - along * np.sin(self.roll) + (self.right / self.pixel + centre)
        rows = across * np.sin(self.roll) + along * np.cos(self.roll) + (self.down / self.pixel + centre)
        return columns, rows

    def plane(self, depth: float) -> tuple[Array, Array]:
        """Map each pixel to the patient's ``x`` and ``z`` that it sees at a depth (cm): two ``(size, size)``."""
        grid = (np.arange(self.size) - (self.size - 1) / 2) * self.pixel * (_FOCUS + depth) / _FOCUS
        zoom = (_FOCUS + depth) / _FOCUS
        u, v = grid[None, :] - self.right * zoom, grid[:, None] - self.down * zoom
        across = u * np.cos(self.roll) + v * np.sin(self.roll)
        along = v * np.cos(self.roll) - u * np.sin(self.roll)
        return (across - depth * np.sin(self.turn)) / np.cos(self.turn), along - self.tilt * depth


@dataclass(frozen=True)
class Cloud:
    """A solid as many small pieces: ``points (3, N)`` in cm, ``volumes (N,)`` in cm³."""

    points: Array
    volumes: Array


def _join(clouds: Sequence[Cloud]) -> Cloud:
    return Cloud(np.concatenate([c.points for c in clouds], axis=1), np.concatenate([c.volumes for c in clouds]))


def splat(cloud: Cloud, view: View) -> Array:
    """Project a cloud: the length of its material along each pixel's ray, ``(size, size)``, cm."""
    # Every piece is shared among the four pixels around its projection (bilinear weights).
    width = view.size + 3  # a frame around the detector takes what falls beside it
    column, row = view.project(cloud.points)
    column, row = np.clip(column + 1, 0, width - 1.001), np.clip(row + 1, 0, width - 1.001)
    left, top = column.astype(np.int64), row.astype(np.int64)
    dx, dy = column - left, row - top
    first = top * width + left
    below = cloud.volumes * dy
    above = cloud.volumes - below
    total = np.zeros(width * width)
    for row_offset, weight in ((0, above), (width, below)):
        beside = weight * dx
        total += np.bincount(first + row_offset, weight - beside, minlength=width * width)
        total += np.bincount(first + row_offset + 1, beside, minlength=width * width)
    return total.reshape(width, width)[1:-2, 1:-2] / view.pixel**2


def _tube(curve: Array, across: Array, height: Array, thickness: Array, around: int, wall: float) -> Cloud:
    """Make bones along curves: elliptic tubes with a dense wall and, at a quarter of its density, a spongy inside.

    Args:
        curve: ``(3, ..., L)`` points along the bones, cm.
        across: ``(3, ..., L)`` unit vectors of the section's short axis.
        height: ``(..., L)`` half of the section's long axis, cm.
        thickness: ``(..., L)`` half of the section's short axis, cm.
        around: points around the section.
        wall: thickness of the dense wall, cm.
    """
    step = np.gradient(curve, axis=-1)
    length = np.sqrt((step**2).sum(axis=0))
    upright = np.cross(step / length, across, axis=0)
    # Each ring is turned against the one before by the golden ratio, so that no stripes run along the bone.
    turn = 0.6180339887498949 * np.arange(curve.shape[-1])[:, None]
    wall_angle = 2 * np.pi / around * (np.arange(around) + turn)
    inside = max(3, around // 4)
    core_angle = 2 * np.pi / inside * (np.arange(inside) + turn)
    arc = np.hypot(height[..., None] * np.cos(wall_angle), thickness[..., None] * np.sin(wall_angle))
    shell = wall * arc * length[..., None] * (2 * np.pi / around)
    area = np.pi * height * thickness * length / inside
    clouds = []
    for share, angle, volume in ((1.0, wall_angle, shell), (0.5, core_angle, 0.25 * area[..., None])):
        high = (share * height)[..., None] * np.sin(angle)
        thick = (share * thickness)[..., None] * np.cos(angle)
        points = curve[..., None] + high * upright[..., None] + thick * across[..., None]
        clouds.append(Cloud(points.reshape(3, -1), np.broadcast_to(volume, high.shape).reshape(-1)))
    return _join(clouds)


@dataclass(frozen=True)
class Anatomy:
    """One patient's thorax; lengths in cm."""

    width: float  # half of the inner width of the chest at its widest level
    depth: float  # half of the inner depth of the chest
    apex: float  # level (z) of the lungs' tips
    base: float  # level (z) of the costophrenic angles in middle inspiration
    dome: float  # height of the right half of the diaphragm over its base
    left_lower: float  # how much lower the left half of the diaphragm stands
    fat: float  # soft tissue around the rib cage
    breast: float  # size of the breasts, 0 for none, about 1 for full ones
    heart: float  # size of the heart, 1 for the mean
    heart_turn: float  # angle of the heart's long axis to the horizontal, radians
    knob: float  # radius of the aortic arch
    mediastinum: float  # half of the width of the upper mediastinum
    shoulder: float  # level (z) of the shoulder joints
    bubble: float  # radius of the gas in the stomach
    fluid: bool  # whether that gas stands on a fluid level
    rib_slope: float  # slope of the ribs, 1 for the mean
    rib_size: float  # height of the ribs, 1 for the mean
    bone: float  # density of the bones, 1 for the mean
    scoliosis: float  # sideways bow of the spine

    def half_width(self, z: Array) -> Array:
        """Return the inner half width of the rib cage at level z."""
        widest = 8.0
        up = np.clip((widest - z) / (widest - self.apex), 0, 1)
        down = np.clip((z - widest) / 6, 0, 2)
        tip = 4.2
        return np.asarray(tip + (self.width - tip) * (1 - up**2.3) ** 0.55 - 0.35 * down**2)

    def half_depth(self, z: Array) -> Array:
        """Return its inner half depth; nothing is left above the tips of the lungs."""
        up = np.clip((8.0 - z) / (8.0 - self.apex), 0, 1)
        return np.asarray(self.depth * (1 - up**4) ** 0.5)

    def midline(self, z: Array) -> Array:
        """Return the sideways place of the spine at level z."""
        return np.asarray(self.scoliosis * np.cos(np.pi * (z - 1) / 18))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient at random; nothing here depends on the disease."""
    woman = rng.random() < 0.5
    size = rng.normal(0.96 if woman else 1.03, 0.035)
    return Anatomy(
        width=13.6 * size * rng.uniform(0.95, 1.05),
        depth=9.2 * size * rng.uniform(0.92, 1.1),
        apex=-13.0 * size,
        base=12.6 * size + rng.uniform(-0.8, 0.8),
        dome=rng.uniform(3.6, 5.2),
        left_lower=rng.uniform(0.3, 1.6),
        fat=rng.gamma(4.0, 0.45) + 0.8,
        breast=rng.uniform(0.25, 1.15) if woman else max(0.0, rng.uniform(-0.3, 0.25)),
        heart=size * rng.uniform(0.88, 1.14),
        heart_turn=rng.uniform(0.55, 0.95),
        knob=rng.uniform(1.2, 1.9),
        mediastinum=rng.uniform(2.1, 2.8),
        shoulder=-10.6 * size + rng.uniform(-0.8, 0.8),
        bubble=rng.uniform(0.0, 2.6),
        fluid=bool(rng.random() < 0.6),
        rib_slope=rng.uniform(0.8, 1.2),
        rib_size=rng.uniform(0.88, 1.15),
        bone=rng.uniform(0.75, 1.2),
        scoliosis=rng.normal(0, 0.25),
    )


_RIBS = 12
# Where the bony rib ends: the angle around the chest in degrees, 0 at the side, 90 at the breastbone.
_RIB_END = np.array([62, 58, 54, 50, 46, 40, 34, 24, 12, -2, -30, -52])
# How far the rib comes down from the spine to the side, cm.
_RIB_DROP = np.array([2.3, 3.1, 3.6, 4.1, 4.4, 4.7, 5.0, 5.2, 5.3, 5.2, 4.6, 3.6])


def skeleton(anatomy: Anatomy, rng: np.random.Generator, spacing: float) -> Cloud:
    """Draw all bones of a patient; ``spacing`` is the distance (cm) of neighbouring points along a bone."""
    parts = [_ribs(anatomy, rng, spacing), _spine(anatomy, spacing)]
    reach = rng.uniform(-0.8, 1.0)  # how far the shoulders are rolled forward, out of the lungs
    for side in (-1.0, 1.0):
        one = _shoulder(anatomy, reach + rng.normal(0, 0.15), spacing)
        parts.append(Cloud(one.points * np.array([[side], [1], [1]]), one.volumes))
    cloud = _join(parts)
    return Cloud(cloud.points, cloud.volumes * anatomy.bone)


def _vertebrae(anatomy: Anatomy) -> tuple[Array, Array]:
    """Return levels (z) and heights of the vertebrae, from the sixth of the neck to the second of the loin."""
    size = anatomy.width / 13.6
    heights = np.concatenate([np.full(2, 1.6), np.linspace(1.85, 2.45, _RIBS), np.full(2, 2.7)]) * size
    levels = np.cumsum(heights)
    return np.asarray(levels - levels[2] + anatomy.apex - 0.2), heights


def _ribs(anatomy: Anatomy, rng: np.random.Generator, spacing: float) -> Cloud:
    start = _vertebrae(anatomy)[0][2 : 2 + _RIBS]
    drop = _RIB_DROP * anatomy.rib_slope * rng.normal(1, [0.12] + [0.02] * (_RIBS - 1))
    wide = anatomy.half_width(start + drop) + 0.3
    deep = np.maximum(anatomy.half_depth(start + drop), 3.5) + 0.3
    wide[0], deep[0] = 0.88 * wide[0], 4.2
    t = np.linspace(0, 1, int(27 / spacing))
    taper = np.clip(t / 0.05, 0.55, 1) * np.clip((1 - t) / 0.02, 0.6, 1.0)
    height = np.repeat([0.62 * anatomy.rib_size * taper * (1 + 0.12 * t)], _RIBS, axis=0)
    clouds = []
    for side in (-1.0, 1.0):
        first = -np.arccos(1.9 / wide)
        last = np.deg2rad(_RIB_END + rng.normal(0, 3, _RIBS))
        angle = first[:, None] + (last - first)[:, None] * t
        cosine, sine = np.cos(angle), np.sin(angle)
        bow = 1 + 0.02 * rng.normal(0, 1, (_RIBS, 1)) * np.sin(2 * angle)
        z = start[:, None] + drop[:, None] * (1 + sine) * bow + 0.5 * cosine
        x = side * wide[:, None] * cosine + anatomy.midline(start)[:, None]
        curve = np.stack([x, deep[:, None] * sine, z])
        across = np.stack([side * cosine, sine, np.zeros_like(sine)])
        clouds.append(
            _tube(curve, across, height, np.full_like(height, 0.36), around=max(12, int(1.4 / spacing)), wall=0.11)
        )
    return _join(clouds)


def _spine(anatomy: Anatomy, spacing: float) -> Cloud:
    levels, heights = _vertebrae(anatomy)
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
        parts.append(_tube(curve, across, 0.4 - 0.15 * t + 0 * x, 0.25 + 0 * x, around=8, wall=0.05))
        parts.append(
            _pipes(centres + np.stack([side * 1.05 * growth, 0 * growth - 1.8, -0.15 * heights]), 0.38, 0.5, spacing)
        )
    parts.append(_pipes(centres + np.stack([0 * growth, 0 * growth - 4.0, 0.45 * heights]), 0.3, 0.75, spacing))
    return _join(parts)


def _bodies(centres: Array, radii: Array, heights: Array, spacing: float) -> Cloud:
    """Draw vertebral bodies: waisted cylinders with a dense wall, two end plates and a spongy inside."""
    # One unit body (radius 1, height 1) is scaled to each vertebra; centres (3, V), radii and heights (V,).
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
    """Draw the arches of the vertebrae, seen end on as ovals; ``centres (3, V)``."""
    angle = np.linspace(0, 2 * np.pi, max(16, int(4 / spacing)), endpoint=False)
    oval = np.stack([wide * np.cos(angle), 0 * angle, high * np.sin(angle)])
    filled = np.concatenate([oval, 0.65 * oval], axis=1)
    placed = centres[:, :, None] + filled[:, None]
    volume = 0.09 * np.pi * (wide + high) / filled.shape[1]
    return Cloud(placed.reshape(3, -1), np.full(placed[0].size, volume))


def _shoulder(anatomy: Anatomy, reach: float, spacing: float) -> Cloud:
    """Draw clavicle, shoulder blade and upper arm on the patient's left."""
    level, out = anatomy.shoulder, anatomy.width + 2.3
    tip, inner = (out - 2.2 + reach, -7.5, level + 11.5), (out - 6.3 + reach, -8.0, level + 0.2)
    socket, acromion = (out - 1.0, -3.5, level + 1.6), (out + 1.2, -4.0, level - 1.9)
    clavicle = [(2.0, 6.5, level + 2.1), (5.4, 7.0, level + 0.9), (10.0, 4.5, level - 0.5), (out, 0.5, level - 1.5)]
    lateral = [socket, (out - 1.9 + 0.6 * reach, -5.5, level + 5.0), tip]
    medial = [inner, (out - 6.0 + reach, -8.0, level + 5.0), tip]
    spine = [(out - 6.2 + reach, -8.6, level + 2.2), (out - 2.5, -7.0, level - 0.3), acromion]
    upper = [inner, (out - 3.5, -6.0, level - 0.2), socket]
    arm = [(out + 0.9, -2.0, level + 1.2), (out + 1.9, -2.0, level + 5.0), (out + 5.6, -1.0, level + 16.0)]
    return _join(
        [
            _bone(clavicle, [0.8, 0.55, 0.48, 0.62], 0.85, 0.15, spacing),
            _bone(lateral, [0.65, 0.42, 0.3], 0.8, 0.13, spacing),
            _bone(medial, [0.22, 0.2, 0.25], 0.9, 0.1, spacing),
            _bone(spine, [0.25, 0.42, 0.6], 0.7, 0.12, spacing),
            _bone(upper, [0.2, 0.25, 0.5], 0.8, 0.1, spacing),
            _bone(arm, [1.9, 1.15, 1.05], 1.0, 0.22, spacing),
            _head(np.array([out + 0.5, -2.0, level + 0.6]), 2.3, spacing),
            _blade(socket, inner, tip, spacing=spacing),
        ]
    )


def _bone(
    knots: list[tuple[float, float, float]], radii: list[float], flat: float, wall: float, spacing: float
) -> Cloud:
    """Draw a long bone through a few knots; ``radii`` along it in cm, ``flat`` the ratio of its section's axes."""
    length = float(np.linalg.norm(np.diff(knots, axis=0), axis=1).sum())
    t = np.linspace(0, 1, int(length / spacing))
    path, height = _through(np.array(knots), t).T.copy(), _through(np.array(radii), t)
    x, y, _ = np.gradient(path, axis=1)
    across = np.stack([y, -x, 0 * x]) / np.hypot(x, y)
    return _tube(
        path, across, height, flat * height, around=max(8, int(4 * float(np.mean(radii)) / spacing)), wall=wall
    )


def _through(values: Array, t: Array) -> Array:
    """Evaluate the polynomial through evenly spaced values (along the first axis), at t from 0 to 1."""
    weights = np.linalg.solve(np.vander(np.linspace(0, 1, len(values))), values)
    return np.asarray(np.vander(t, len(values)) @ weights)


def _head(centre: Array, radius: float, spacing: float) -> Cloud:
    count = int(4 * np.pi * radius**2 / spacing**2)
    k = np.arange(count) + 0.5  # a Fibonacci lattice on the sphere, every point moved inwards as if at random
    polar, angle = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    sphere = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)])
    depth = (0.7548776662466927 * k**2 % 1.0) ** 0.25
    return Cloud(centre[:, None] + radius * depth * sphere, np.full(count, 0.14 * 4 / 3 * np.pi * radius**3 / count))


def _blade(*corners: tuple[float, ...], spacing: float) -> Cloud:
    a, b, c = np.array(corners)
    u, v = (g.ravel() for g in np.meshgrid(*2 * [np.linspace(0, 1, int(8 / spacing))]))
    keep = u + v < 1
    points = a[:, None] + u[keep] * (b - a)[:, None] + v[keep] * (c - a)[:, None]
    area = float(np.linalg.norm(np.cross(b - a, c - a))) / 2
    return Cloud(points, np.full(points.shape[1], 0.12 * area / points.shape[1]))
