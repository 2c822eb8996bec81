"""Where a point of the patient falls on the detector.

All of the drawing is in centimetres, in the patient's frame: ``x`` to the right of the image (the patient's left),
``y`` from the back (negative) to the front (positive), ``z`` down; the origin lies in the middle of the chest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Focus to the middle of the chest, cm. In a PA view the tube stands behind the patient, 180 cm from the detector.
FOCUS = 165.0


@dataclass(frozen=True)
class View:
    """One exposure's geometry: how the patient stands before a square detector."""

    size: int
    """Pixels along a side."""
    field: float
    """Side of the visible square in the plane through the middle of the chest, cm."""
    right: float
    """Shift of the patient in the image, cm."""
    down: float
    """Shift of the patient in the image, cm."""
    roll: float
    """Lean to one side, radians."""
    turn: float
    """Turn around the patient's long axis, radians: front and back slide apart sideways."""
    tilt: float
    """Slope of the beam: front and back slide apart vertically by this share of their distance."""

    @property
    def pixel(self) -> float:
        """Side of a pixel, cm."""
        return self.field / self.size

    def project(self, points: Array) -> tuple[Array, Array]:
        """Columns and rows (in pixels, the first pixel's centre at 0) of points ``(3, N)``."""
        x, y, z = points
        depth = y * np.cos(self.turn) - x * np.sin(self.turn)
        zoom = FOCUS / (FOCUS + depth) / self.pixel
        across = zoom * (x * np.cos(self.turn) + y * np.sin(self.turn))
        along = zoom * (z + self.tilt * depth)
        centre = (self.size - 1) / 2
        columns = across * np.cos(self.roll) - along * np.sin(self.roll) + (self.right / self.pixel + centre)
        rows = across * np.sin(self.roll) + along * np.cos(self.roll) + (self.down / self.pixel + centre)
        return columns, rows

    def plane(self, depth: float) -> tuple[Array, Array]:
        """The patient's ``x`` and ``z`` that each pixel sees at a depth (cm): two maps ``(size, size)``."""
        grid = (np.arange(self.size) - (self.size - 1) / 2) * self.pixel * (FOCUS + depth) / FOCUS
        zoom = (FOCUS + depth) / FOCUS
        u, v = grid[None, :] - self.right * zoom, grid[:, None] - self.down * zoom
        across = u * np.cos(self.roll) + v * np.sin(self.roll)
        along = v * np.cos(self.roll) - u * np.sin(self.roll)
        return (across - depth * np.sin(self.turn)) / np.cos(self.turn), along - self.tilt * depth


@dataclass(frozen=True)
class Cloud:
    """A solid as many small pieces: ``points (3, N)`` in cm, ``volumes (N,)`` in cm³."""

    points: Array
    volumes: Array


def join(clouds: Sequence[Cloud]) -> Cloud:
    """One cloud of many."""
    return Cloud(np.concatenate([c.points for c in clouds], axis=1), np.concatenate([c.volumes for c in clouds]))


def splat(cloud: Cloud, view: View) -> Array:
    """Project a cloud: the length of its material along each pixel's ray, ``(size, size)``, cm.

    Every piece is shared among the four pixels around its projection (bilinear weights).
    """
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


def tube(curve: Array, across: Array, height: Array, thickness: Array, around: int, wall: float) -> Cloud:
    """Bones along curves: elliptic tubes with a dense wall and a spongy inside.

    Args:
        curve: ``(3, ..., L)`` points along the bones, cm.
        across: ``(3, ..., L)`` unit vectors of the section's short axis.
        height: ``(..., L)`` half of the section's long axis, cm.
        thickness: ``(..., L)`` half of the section's short axis, cm.
        around: points around the section.
        wall: thickness of the dense wall, cm.

    Returns:
        The volumes of the wall and, at a quarter of its density, of the inside.
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
    return join(clouds)
