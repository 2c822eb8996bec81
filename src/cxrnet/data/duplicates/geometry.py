"""Affine maps between views, and registration: the affine map that brings one view onto another.

A map ``(2, 3)`` leads from the coordinates of one picture to those of another; both go from -1 to 1, x before y.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

FloatArray = npt.NDArray[np.float32]
Boxes = tuple[FloatArray, FloatArray]

_CLIP = 1.0  # of a difference between maps: what was drawn onto one counts no more
_MARGIN = 0.02  # of what both show: the line of a border lies in it
_DAMPING = 1e-3  # of the normal equations


def affine(
    zoom: float | Sequence[float] = 1.0, angle: float = 0.0, shift: Sequence[float] = (0, 0), mirrored: bool = False
) -> FloatArray:
    """Make the map that looks at a part of a picture, ``(2, 3)``.

    Args:
        zoom: 2 looks at the middle half; one number, or one across and one down.
        angle: degrees.
        shift: shift of the middle, x and y.
        mirrored: left and right change places.
    """
    across, down = (zoom, zoom) if isinstance(zoom, int | float) else zoom
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    theta = np.array([[cosine / across, -sine / across, shift[0]], [sine / down, cosine / down, shift[1]]], np.float32)
    if mirrored:
        theta[:, 0] *= -1
    return theta


def move(maps: Tensor, theta: Tensor) -> Tensor:
    """Look at pictures ``(P, S, S)`` through maps ``(P, 2, 3)``; 0 outside."""
    return _sample(maps, _grid(theta, maps.shape[1]))


def register(fixed: Tensor, moving: Tensor, theta: Tensor, steps: int) -> Tensor:
    """Improve maps ``(P, 2, 3)`` from fixed to moving pictures ``(P, S, S)``, which are 0 on average and about 1 wide.

    Least squares by Gauss-Newton, inverse compositional (Baker and Matthews 2004): the gradients are those of the fixed
    picture, once. It finds its way over about a tenth of the side.
    """
    count, side = len(fixed), fixed.shape[1]
    place = (torch.arange(side) + 0.5) * 2 / side - 1
    edge = ((1 - place.abs()) * 8).clamp(max=1)
    down, across = (slope * edge * edge[:, None] for slope in torch.gradient(fixed * (side / 2), dim=(1, 2)))
    slopes = torch.stack(
        [across * place, across * place[:, None], across, down * place, down * place[:, None], down], dim=1
    ).flatten(2)
    normal = slopes @ slopes.transpose(1, 2)
    normal += torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * _DAMPING + 1e-6)
    inverted = torch.linalg.inv(normal)
    full = torch.cat([theta, torch.tensor([0.0, 0.0, 1.0]).expand(count, 1, 3)], dim=1)
    for _ in range(steps):
        grid = _grid(full[:, :2], side)
        difference = (_sample(moving, grid) - fixed).clamp(-_CLIP, _CLIP) * (edge * edge[:, None] * inside(grid))
        change = inverted @ (slopes @ difference.flatten(1)[:, :, None])
        step = torch.eye(3).repeat(count, 1, 1)
        step[:, :2] += change.reshape(count, 2, 3).clamp(-0.2, 0.2)
        full = full @ torch.linalg.inv(step)
    return full[:, :2]


def inside(grid: Tensor) -> Tensor:
    """Mark the places of a grid ``(P, S, S, 2)`` that lie in the picture, ``(P, S, S)`` of 0 and 1."""
    return (grid.abs().amax(dim=-1) <= 1).float()


def overlap(theta: Tensor, side: int) -> Tensor:
    """Mark where pictures lie that maps ``(P, 2, 3)`` lead to, ``(P, side, side)`` of 0 and 1."""
    return inside(_grid(theta, side))


def _grid(theta: Tensor, side: int) -> Tensor:
    """Lead the pixels of a picture through maps ``(P, 2, 3)``: ``(P, side, side, 2)``."""
    place = (torch.arange(side) + 0.5) * 2 / side - 1
    x, y, shift = (theta[:, None, None, :, k] for k in range(3))
    return x * place[:, None] + (y * place[:, None, None] + shift)


def _sample(maps: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]


def between_boxes(theta: FloatArray, first: Boxes, then: Boxes) -> FloatArray:
    """Turn maps ``(P, 2, 3)`` between parts of pictures into maps between other parts of the same pictures.

    Args:
        theta: from the fixed part to the moving one.
        first: these parts, as boxes ``(P, 4)`` of top, bottom, left, right, as shares.
        then: the other parts.
    """
    fixed, moving = (np.linalg.inv(_of_box(a)) @ _of_box(b) for a, b in zip(first, then, strict=True))
    maps: FloatArray = (np.linalg.inv(moving) @ _square(theta) @ fixed)[:, :2].astype(np.float32)
    return maps


def common_boxes(theta: FloatArray, boxes: Boxes) -> Boxes:
    """Find the parts of two pictures that both show, as boxes, by maps ``(P, 2, 3)`` between parts of them."""
    corners = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, 1, 1, 1]], np.float64)
    parts = []
    for box, maps in zip(boxes, (np.linalg.inv(_square(theta)), _square(theta)), strict=True):
        seen = (maps @ corners)[:, :2]
        order = np.sort(seen, axis=2)  # the inner two: of a picture that was turned, its corners are left out
        low, high = (order[:, :, 1] + _MARGIN).clip(-1, 0.5), (order[:, :, 2] - _MARGIN).clip(-0.5, 1)
        middle, half = box[:, [2, 0]] + box[:, [3, 1]], box[:, [3, 1]] - box[:, [2, 0]]
        start, end = ((middle + half * side) / 2 for side in (low, high))
        parts.append(np.stack([start[:, 1], end[:, 1], start[:, 0], end[:, 0]], axis=1).astype(np.float32))
    return parts[0], parts[1]


def whole(count: int) -> FloatArray:
    """Make the boxes of whole pictures, ``(count, 4)``."""
    return np.tile(np.array([0, 1, 0, 1], np.float32), (count, 1))


def _square(theta: FloatArray) -> npt.NDArray[np.float64]:
    full = np.tile(np.eye(3), (len(theta), 1, 1))
    full[:, :2] = theta
    return full


def _of_box(box: FloatArray) -> npt.NDArray[np.float64]:
    """Make the map from the coordinates of a view to those of its picture, ``(P, 3, 3)``."""
    full = np.tile(np.eye(3), (len(box), 1, 1))
    for axis, (low, high) in ((0, (2, 3)), (1, (0, 1))):
        full[:, axis, axis] = box[:, high] - box[:, low]
        full[:, axis, 2] = box[:, high] + box[:, low] - 1
    return full


def whole_maps(count: int) -> FloatArray:
    """Make the maps that change nothing, ``(count, 2, 3)``."""
    return np.tile(np.eye(3, dtype=np.float32)[:2], (count, 1, 1))


def compose(first: FloatArray, then: FloatArray) -> FloatArray:
    """Follow maps ``(P, 2, 3)`` by others."""
    both: FloatArray = (_square(then) @ _square(first))[:, :2].astype(np.float32)
    return both


def inverse(theta: FloatArray) -> FloatArray:
    """Lead back, ``(P, 2, 3)``."""
    back: FloatArray = np.linalg.inv(_square(theta))[:, :2].astype(np.float32)
    return back
