"""What the search for duplicates keeps of an image: small maps of its local contrast, about 2 KB.

Copies differ from their original in grey levels, in their place and in what was drawn onto them.

* A *view* is the image as it is, or without the uniform border around it, where there is one.
* A map has the ranks of the grey values less their local mean, over their local standard deviation: gamma, windows and
  equalising hardly change it, inversion turns its sign. Maps have the sign in which they are like what all share.
* A descriptor is a projection of one half of the map (upper, lower, left, right), so that a label leaves others whole.
  It keeps what differs between images and not between an image and itself a little moved, turned, scaled and covered
  (linear discriminant analysis, Fisher 1936), in units of the latter.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch

from cxrnet.data.duplicates.geometry import affine, move, whole
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import processors

SIDE = 32  # of a map, pixels
DIMENSIONS = 32  # of a descriptor
HALVES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # of a map: directions (x, y)

REACH = 3.0  # standard deviation of the local mean, pixels of a map
_FLOOR = 0.05  # of the local standard deviation of ranks (-1..1)
_CLIP = 1.3  # of a map: a label's edges are far beyond
_SCALE = 127 / _CLIP  # of a map in 8 bits

_COSINES = 12  # in each direction, of which a descriptor is made
_UNSURE = 0.2  # correlation with that below which a map is compared with both signs

_TOLERANCE = 10  # grey values, of a border
_UNIFORM = 0.65  # share of a line that is border, beside a label
_LINE = 0.7  # lines more, as resizing mixes the border with what is beside it
_INNER = 3  # the line, further in, which tells a border too
_LEAST = 0.4  # of the side: what is left without the border
_THIN = 0.02  # of the side: a border that needs no view of its own

_POWERS = 10  # steps of the power method
_SAMPLE = 250  # images from which descriptors learn what differs
_TRIES = 16  # ways in which they are moved for that
_BLOCK = 256  # images at a time

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class Rows(Protocol):
    """Images read by their places: an array, or :class:`cxrnet.data.images.reader.Images`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: IntArray, /) -> UInt8Array: ...


class Views(NamedTuple):
    """Views of images, of which one without structure has none.

    Attributes:
        image: the place of each view's image, ``(V,)``.
        box: part of the image that is seen, ``(V, 4)``: top, bottom, left, right as shares of its side.
        maps: ``(V, 32, 32) int8``.
        sign: 1, or -1 where the map is that of the inverted image, ``(V,)``.
        unsure: whether that is not clear, ``(V,)``.
    """

    image: IntArray
    box: FloatArray
    maps: npt.NDArray[np.int8]
    sign: npt.NDArray[np.int8]
    unsure: npt.NDArray[np.bool_]


def describe(images: Rows, places: IntArray) -> Views:
    """Make the views of the images at some places, which are read block by block."""

    def block(start: int) -> tuple[IntArray, FloatArray, npt.NDArray[np.int8]]:
        image = places[start : start + _BLOCK]
        small = images[image]
        boxes = without_border(small)
        all_of_it = whole(len(small))
        framed = np.flatnonzero(np.abs(boxes - all_of_it).max(axis=1) > _THIN)
        maps = np.concatenate([map_of(small, all_of_it, SIDE), map_of(small[framed], boxes[framed], SIDE)])
        plain = np.abs(maps).max(axis=(1, 2), initial=0) > 0
        rows = np.concatenate([np.arange(len(small)), framed])[plain]
        box = np.concatenate([all_of_it, boxes[framed]])[plain]
        return image[rows], box, np.rint(maps[plain] * _SCALE).astype(np.int8)

    with ThreadPoolExecutor(processors()) as pool:
        parts = list(pool.map(block, range(0, len(places), _BLOCK)))
    image, box, maps = (np.concatenate(column) for column in zip(*parts, strict=True))
    flat = maps.reshape(len(maps), -1).astype(np.float32)
    like: FloatArray = (
        flat @ _common(_sampled(maps, 4 * _SAMPLE)) / np.linalg.norm(flat, axis=1) if len(flat) else flat[:, 0]
    )
    sign = np.where(like < 0, -1, 1).astype(np.int8)
    return Views(image, box, maps * sign[:, None, None], sign, np.abs(like) < _UNSURE)


def _common(sample: FloatArray) -> FloatArray:
    """Find what maps ``(n, 32, 32)`` have in common but for their sign: the first axis of them, ``(1024,)``."""
    both = sample + sample[:, :, ::-1]  # an image and its mirror image are as much like it
    flat = both.reshape(len(both), -1)
    axis: FloatArray = flat[0].copy()
    for _ in range(_POWERS):
        axis = (flat.T @ (flat @ axis)).astype(np.float32)
        axis /= np.float32(max(float(np.linalg.norm(axis)), 1e-12))
    return axis


def without_border(small: UInt8Array) -> FloatArray:
    """Find what uniform borders leave of images ``(N, S, S)``: top, bottom, left, right as shares, ``(N, 4)``.

    From each side, lines are border as long as most of their pixels are as the median of the outermost line is, or
    that of a line a little further in: where a border was turned, there is something else in the corners.
    """
    count, side, _ = small.shape
    boxes = np.empty((count, 4), np.float32)
    for place, lines in ((0, small), (2, small.swapaxes(1, 2))):
        depth = [_border(lines), _border(lines[:, ::-1])]
        none = depth[0] + depth[1] > (1 - _LEAST) * side
        boxes[:, place] = np.where(none, 0, depth[0] / side)
        boxes[:, place + 1] = np.where(none, 1, 1 - depth[1] / side)
    return boxes


def _border(lines: UInt8Array) -> IntArray:
    """Count the lines ``(N, S, S)`` from the first on that are border, ``(N,)``."""
    reach = lines[:, : int(lines.shape[1] * (1 - _LEAST)) + 1].astype(np.int16)
    near = np.zeros(reach.shape, bool)
    for line in (0, _INNER):
        near |= np.abs(reach - np.median(lines[:, line], axis=1)[:, None, None].astype(np.int16)) <= _TOLERANCE
    border = near.mean(axis=2) >= _UNIFORM
    border[:, :_INNER] |= border[:, _INNER : _INNER + 1]
    depth = np.where(border.all(axis=1), border.shape[1], np.argmin(border, axis=1))
    return np.where(depth > 0, depth + _LINE, 0)


def map_of(small: UInt8Array, boxes: FloatArray, side: int, reach: float = REACH) -> FloatArray:
    """Make maps of local contrast of what boxes ``(N, 4)`` leave of images ``(N, S, S)``: ``(N, side, side)``."""
    ranks = ranks_of(small, boxes, side)
    near = blur(side, reach)
    local = ranks - near @ ranks @ near.T
    spread = near @ (local * local) @ near.T
    contrast: FloatArray = (local / np.sqrt(spread + _FLOOR**2)).clip(-_CLIP, _CLIP)
    return contrast


def ranks_of(small: UInt8Array, boxes: FloatArray, side: int) -> FloatArray:
    """Take the ranks of the grey values, -1..1, of what boxes ``(N, 4)`` leave of images: ``(N, side, side)``."""
    rows, columns = (_averages(boxes[:, k], boxes[:, k + 1], small.shape[1], side) for k in (0, 2))
    grey: FloatArray = rows @ small.astype(np.float32) @ columns.swapaxes(1, 2)
    return _ranks(grey)


def _averages(start: FloatArray, end: FloatArray, size: int, side: int) -> FloatArray:
    """Make matrices ``(N, side, size)`` that resize lines between two shares with triangular weights."""
    step = (end - start)[:, None] * size / side
    centre = start[:, None] * size + (np.arange(side) + 0.5) * step
    distance = np.abs(np.arange(size) + 0.5 - centre[:, :, None])
    weights = np.maximum(0, 1 - distance / np.maximum(step, 1)[:, :, None]).astype(np.float32)
    averages: FloatArray = weights / weights.sum(axis=2, keepdims=True)
    return averages


def _ranks(grey: FloatArray) -> FloatArray:
    """Replace grey values 0..255 of each image by their ranks, -1..1; equal ones get the mean of theirs."""
    values, count = 4 * 255 + 1, len(grey)  # counting is faster than sorting
    flat = (
        np.rint(grey.reshape(count, grey[0].size if count else 0) * 4).astype(np.int64)
        + np.arange(count)[:, None] * values
    )
    counts = np.bincount(flat.ravel(), minlength=count * values).reshape(count, values)
    ranks = (2 * counts.cumsum(axis=1) - counts).astype(np.float32) / max(1, flat.shape[1]) - 1
    ordered: FloatArray = ranks.ravel()[flat].reshape(grey.shape)
    return ordered


def blur(side: int, reach: float) -> FloatArray:
    """Make the matrix of a local mean, with Gaussian weights that sum to 1 at the edges too."""
    distance = (np.arange(side)[:, None] - np.arange(side)) / reach
    weights = np.exp(-0.5 * distance**2)
    mean: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return mean


def stored_maps(views: Views, rows: IntArray) -> FloatArray:
    """Take the maps of some views, ``(n, 32, 32)``, as :func:`map_of` made them but for the sign."""
    return views.maps[rows].astype(np.float32) / np.float32(_SCALE)


def _sampled(maps: npt.NDArray[np.int8], number: int) -> FloatArray:
    """Take maps from all over, as they are -1..1 times :data:`_CLIP`."""
    chosen = np.unique(np.linspace(0, len(maps) - 1, min(number, len(maps))).astype(np.int64))
    return maps[chosen].astype(np.float32) / _SCALE


def learn(views: Views) -> list[FloatArray]:
    """Learn from the maps how to project them, for each of :data:`HALVES`: ``(32, 1024)``.

    Maps are moved by up to 5 % of a side, scaled by up to 3 %, turned by up to 2 degrees and, each fourth time, covered
    by a box of 5 %; a projection keeps those directions in which maps differ most as against what that changes.
    """
    rng = np.random.default_rng(0)
    sample = torch.from_numpy(_sampled(views.maps, _SAMPLE))
    moved = []
    for number in range(_TRIES):
        scale, shift = (rng.uniform(-most, most, 2).tolist() for most in (0.03, 0.05))
        scale, angle = [1 + each for each in scale], rng.uniform(-2, 2)
        covered = sample.clone()
        if number % 4 == 0:
            top, left = rng.integers(0, SIDE - 7, 2)
            box = covered[:, top : top + 7, left : left + 7]
            box[:] = 0
            box[:, [0, -1]] = _CLIP
            box[:, :, [0, -1]] = _CLIP
        theta = torch.from_numpy(affine(scale, angle, shift)).expand(len(sample), -1, -1)
        moved.append(move(covered, theta).flatten(1).numpy())
    still = sample.flatten(1).numpy()
    projections = []
    for direction in HALVES:
        cosines = _cosines(direction)
        low = still @ cosines.T
        change = np.concatenate([each @ cosines.T - low for each in moved])
        within = change.T @ change / len(change)
        within += np.eye(len(within)) * max(float(np.trace(within)), 1e-6) * 0.02 / len(within)
        between = np.cov(low.T) if len(low) > 1 else np.eye(len(within))
        _, vectors = scipy.linalg.eigh(between, within)
        projections.append((vectors[:, : -DIMENSIONS - 1 : -1].T @ cosines).astype(np.float32))
    return projections


def _cosines(direction: Sequence[int]) -> FloatArray:
    """Make the low cosines over one half of a map, ``(112, 1024)``."""
    place = (np.arange(SIDE) + 0.5) / SIDE
    waves = np.cos(np.pi * np.outer(np.arange(_COSINES), place))
    down, across = np.divmod(np.arange(_COSINES**2), _COSINES)
    low = down**2 + across**2 <= _COSINES**2
    y, x = np.meshgrid(2 * place - 1, 2 * place - 1, indexing="ij")
    # Nothing at the edges, where crops and borders change most, nor in the corners, which a rotation takes away.
    inner = np.clip(1 - x**4, 0, 1) * np.clip(1 - y**4, 0, 1) * np.clip(1.6 - x**2 - y**2, 0, 1)
    half = np.clip(3 * (direction[0] * x + direction[1] * y) + 0.1, 0, 1)
    both = waves[down[low]][:, :, None] * waves[across[low]][:, None, :] * inner * half
    cosines: FloatArray = both.reshape(len(both), -1).astype(np.float32)
    return cosines
