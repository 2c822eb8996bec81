"""Whether two images show the same picture, and what was done to one of them.

Candidates are registered on their maps, and those that may agree again on maps of 64 x 64 pixels, whose local mean is
that of a few pixels around. Of two pictures of one patient, ribs and vessels don't lie on each other whatever map is
tried; those of a copy do, to a fraction of a pixel. So a mirrored or inverted copy is one by its vessels and ribs, not
because a chest looks much the same in a mirror.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxrnet.data.duplicates import geometry
from cxrnet.data.duplicates.candidates import Candidates
from cxrnet.data.duplicates.descriptors import FloatArray, IntArray, Rows, Views, blur, map_of, ranks_of, stored_maps
from cxrnet.data.images.decode import UInt8Array

# What was done to a copy: the first that applies. Recompressed: also resized, or with another contrast.
KINDS = ("same file", "mirrored", "inverted", "turned", "framed", "cropped", "annotated", "recompressed")
SAME_FILE = KINDS[0]

FINE = 64  # side of the maps that decide, pixels
REACH = 2.5  # standard deviation of their local mean, pixels

COARSE = 0.72  # correlation of the small maps at which a candidate is looked at again
COARSE_STRAIN = 0.16  # the most at which it is
CORRELATION = 0.8  # at which two images are copies
STRAIN = 0.01  # the most that local shifts may explain of what both show,
STRAIN_MORE = 0.17  # and so much more of what doesn't correlate: the noise of JPEG is taken for shifts in part
COVERED = 0.25  # the most that may be covered
COMMON = 0.6  # the least that both must show
SCALE = 1.4  # the most that one may be larger than the other
ANGLE = 10.0  # degrees, the most that one may be turned

_DETAIL = 1.5  # standard deviation of the local mean of small maps, when they are compared, pixels
_STEPS = 4  # of registration
_ROUNDS = 3  # of the fine one: what both show is known better after each
_HOPELESS = 0.7  # correlation after a round below which there is no other
_BLOCKS = 8  # in each direction: what was drawn onto one image lies in few of them
_DRAWN = 0.15  # of the blocks: the worst, which don't count
_OWN = 0.5  # correlation below which a block is covered
_PART = 0.3  # of a block that must lie in both pictures
_BATCH = 64  # pairs at a time: what fits into a cache

_TURNED = 0.7  # degrees
_BESIDE = 0.03  # of a picture that the other one doesn't show
_OTHER = 0.6  # ranks (-1..1) that one image has more than the other where something was drawn
_ANNOTATED = 0.01  # of the pixels
_TOLERANCE, _UNIFORM = 12, 0.65  # grey values of a border, and the share of it that has them


class Evidence(NamedTuple):
    """What was found of pairs of images, ``(P,)`` each.

    Attributes:
        correlation: correlation of local contrast where both pictures are, after registration, without what is
            covered; -1..1.
        covered: share of what both show that is covered in one of them, 0..1: of copies, the share of pixels whose
            rank of grey differs, else of blocks that don't correlate.
        common: share of the smaller picture that both show, 0..1.
        strain: how much they differ as pictures of one body in two positions do, 0..1.
        theta: the map from the first to the second picture, ``(P, 2, 3)``.
        inverted: whether one is the negative of the other.
        kind: place in :data:`KINDS`, of copies.
    """

    correlation: FloatArray
    covered: FloatArray
    common: FloatArray
    strain: FloatArray
    theta: FloatArray
    inverted: npt.NDArray[np.bool_]
    kind: npt.NDArray[np.int8]

    def take(self, chosen: npt.NDArray[np.generic]) -> "Evidence":
        """Choose pairs by place, or by a mask."""
        return Evidence(*(column[chosen] for column in self))

    @property
    def same(self) -> npt.NDArray[np.bool_]:
        """Whether two images are of one picture."""
        scale, angle = measures(self.theta)[:2]
        same: npt.NDArray[np.bool_] = (
            (self.correlation >= CORRELATION)
            & (self.strain <= STRAIN + STRAIN_MORE * (1 - self.correlation))
            & (self.covered <= COVERED)
            & (self.common >= COMMON)
            & (np.abs(np.log(scale)) <= np.log(SCALE))
            & (np.abs(angle) <= ANGLE)
        )
        return same


def limits() -> list[float]:
    """List the numbers by which pairs are confirmed."""
    return [FINE, REACH, COARSE, COARSE_STRAIN, CORRELATION, STRAIN, STRAIN_MORE, COVERED, COMMON, SCALE, ANGLE]


def nothing() -> Evidence:
    """Make the evidence of no pairs."""
    none = np.empty(0, np.float32)
    return Evidence(none, none, none, none, geometry.whole_maps(0), none > 0, none.astype(np.int8))


def measures(theta: FloatArray) -> tuple[npt.NDArray[Any], ...]:
    """Take maps ``(P, 2, 3)`` from the first picture to the second apart.

    Returns:
        ``(P,)`` each: how much larger the second shows things (1 is as large), by how many degrees it is turned, by
        what share of its side its middle lies to the right and below, and whether it is mirrored.
    """
    mirrored = np.linalg.det(theta[:, :, :2]) < 0
    plain = theta.copy()
    plain[mirrored, :, 0] *= -1
    scale = np.sqrt(np.linalg.det(plain[:, :, :2]))
    angle = np.degrees(np.arctan2(plain[:, 1, 0] - plain[:, 0, 1], plain[:, 0, 0] + plain[:, 1, 1]))
    return scale, angle, theta[:, 0, 2] / 2, theta[:, 1, 2] / 2, mirrored


def weigh(images: Rows, views: Views, candidates: Candidates) -> tuple[IntArray, Evidence]:
    """Register candidates and find how well they agree.

    Returns:
        The places of those candidates that agree in part, and their evidence.
    """
    theta = candidates.theta.copy()
    rough = np.zeros(len(theta), bool)
    for start in range(0, len(theta), _BATCH):
        part = slice(start, start + _BATCH)
        fixed, moving = (torch.from_numpy(stored_maps(views, each[part])) for each in candidates[:2])
        moving = moving * torch.from_numpy(candidates.sign[part].astype(np.float32))[:, None, None]
        near = geometry.register(fixed, moving, torch.from_numpy(theta[part]), _STEPS)
        agreed = agreement(detail(fixed), detail(moving), near)
        theta[part] = near.numpy()
        rough[part] = (agreed.correlation >= COARSE) & (agreed.strain <= COARSE_STRAIN)
    left = np.flatnonzero(rough)
    first, second = candidates.fixed[left], candidates.moving[left]
    sign = views.sign[first] * views.sign[second] * candidates.sign[left]
    pair = views.image[first], views.image[second]
    return left, compare(images, pair, (views.box[first], views.box[second]), theta[left], sign < 0)


def right_way_round(images: Rows, pair: IntArray, found: Evidence) -> Evidence:
    """Compare copies ``(2, P)`` the other way round too: a chest is much like its mirror image, a copy is the more."""
    everything = geometry.whole(len(found.theta))
    theta = found.theta * np.array([-1, 1, 1], np.float32)
    other = compare(images, (pair[0], pair[1]), (everything, everything), theta, found.inverted)
    better = other.same & (other.correlation > found.correlation)
    return together([found.take(~better), other.take(better)]).take(np.argsort(np.argsort(better, kind="stable")))


def together(parts: Sequence[Evidence]) -> Evidence:
    """Put the evidence of several sets of pairs one after the other."""
    columns: list[npt.NDArray[Any]] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Evidence(*columns)


def detail(maps: Tensor) -> Tensor:
    """Take the local mean of the pixels around away from maps ``(P, S, S)``."""
    near = torch.from_numpy(blur(maps.shape[1], _DETAIL))
    return maps - near @ maps @ near.T


def compare(
    images: Rows,
    pair: tuple[IntArray, IntArray],
    boxes: geometry.Boxes,
    theta: FloatArray,
    inverted: npt.NDArray[np.bool_],
) -> Evidence:
    """Register pairs of images anew and find how well they agree.

    Args:
        images: are read.
        pair: places of the two images of each pair, ``(P,)`` each.
        boxes: the parts of them that are compared, ``(P, 4)`` each.
        theta: the maps between these parts, about.
        inverted: whether one is the other's negative, ``(P,)``.
    """
    parts = []
    for start in range(0, max(1, len(theta)), _BATCH):
        part = slice(start, start + _BATCH)
        places, where = np.unique(np.concatenate([each[part] for each in pair]), return_inverse=True)
        first, second = np.split(images[places][where], 2)
        parts.append(_registered((first, second), (boxes[0][part], boxes[1][part]), theta[part], inverted[part]))
    return together(parts)


def _registered(
    images: tuple[UInt8Array, UInt8Array],
    boxes: geometry.Boxes,
    theta: FloatArray,
    inverted: npt.NDArray[np.bool_],
) -> Evidence:
    """Register images ``(P, S, S)`` by the maps of what both show, which has no border that only one has."""
    sign = np.where(inverted, -1, 1).astype(np.float32)[:, None, None]
    agreed, left = Agreement(*(np.zeros(len(theta), np.float32) for _ in range(3))), np.arange(len(theta))
    theta, boxes = theta.copy(), (boxes[0].copy(), boxes[1].copy())
    for _ in range(_ROUNDS):
        before = boxes[0][left], boxes[1][left]
        common = geometry.common_boxes(theta[left], before)
        start = torch.from_numpy(geometry.between_boxes(theta[left], before, common))
        fixed, moving = (torch.from_numpy(map_of(a[left], b, FINE, REACH)) for a, b in zip(images, common, strict=True))
        moving = moving * torch.from_numpy(sign[left])
        near = geometry.register(fixed, moving, start, _STEPS)
        theta[left], boxes[0][left], boxes[1][left] = near.numpy(), *common
        for column, values in zip(agreed, agreement(fixed, moving, near), strict=True):
            column[left] = values
        left = left[agreed.correlation[left] >= _HOPELESS]
    everything = geometry.whole(len(theta))
    theta = geometry.between_boxes(theta, boxes, (everything, everything))
    kind = np.zeros(len(theta), np.int8)
    found = Evidence(agreed.correlation, agreed.covered, _in_common(theta), agreed.strain, theta, inverted, kind)
    if len(same := np.flatnonzero(found.same)):
        pair = images[0][same], images[1][same]
        found.covered[same] = _drawn_over(pair, theta[same], sign[same])
        kind[same] = _kind(*pair, theta[same], found.covered[same], inverted[same])
    return found


def _drawn_over(images: tuple[UInt8Array, UInt8Array], theta: FloatArray, sign: FloatArray) -> FloatArray:
    """Find what share of what two images show has another rank of grey in one than in the other, ``(P,)``."""
    maps = torch.from_numpy(theta)
    there = geometry.overlap(maps, FINE)
    everything = geometry.whole(len(theta))
    first, second = (torch.from_numpy(ranks_of(each, everything, FINE)) for each in images)
    differs = (geometry.move(second * torch.from_numpy(sign), maps) - first).abs() > _OTHER
    share: FloatArray = ((differs & (there > 0)).sum(dim=(1, 2)) / there.sum(dim=(1, 2)).clamp(min=1)).numpy()
    return share


def _in_common(theta: FloatArray) -> FloatArray:
    """Find what share of the smaller picture both show, ``(P,)``, by maps ``(P, 2, 3)`` between them."""
    maps = torch.from_numpy(theta)
    smaller = torch.linalg.det(maps[:, :, :2]).abs().clamp(min=1)
    common: FloatArray = (geometry.overlap(maps, FINE).mean(dim=(1, 2)) * smaller).numpy()
    return common


class Agreement(NamedTuple):
    """How well pictures agree, ``(P,)`` each, as in :class:`Evidence`."""

    correlation: FloatArray
    covered: FloatArray
    strain: FloatArray


def agreement(fixed: Tensor, moving: Tensor, theta: Tensor) -> Agreement:
    """Compare maps ``(P, S, S)`` where both are, block by block."""
    side = fixed.shape[1]
    there = geometry.overlap(theta, side)
    here, moved = fixed * there, geometry.move(moving, theta) * there

    def blocks(values: Tensor) -> Tensor:
        each = side // _BLOCKS
        return values.reshape(-1, _BLOCKS, each, _BLOCKS, each).sum(dim=(2, 4)).flatten(1)

    both, first, second = blocks(here * moved), blocks(here**2), blocks(moved**2)
    counts = blocks(there) >= _PART * (side // _BLOCKS) ** 2
    number = counts.sum(dim=1)
    error = torch.where(counts, first + second - 2 * both, -torch.inf)
    rank = error.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    kept = counts & (rank >= (_DRAWN * number)[:, None].floor())

    def total(values: Tensor) -> Tensor:
        return (values * kept).sum(dim=1)

    correlation = total(both) / (total(first) * total(second)).clamp(min=1e-6).sqrt()
    own = both / (first * second).clamp(min=1e-6).sqrt()
    covered = ((own < _OWN) & counts).sum(dim=1) / number.clamp(min=1)
    # Least squares of the difference by the two slopes, block by block, as in optical flow (Lucas and Kanade 1981).
    down, across = torch.gradient((here + moved) / 2, dim=(1, 2))
    down, across, rest = down * there, across * there, moved - here
    xx, xy, yy = blocks(across**2), blocks(across * down), blocks(down**2)
    x, y, damping = blocks(across * rest), blocks(down * rest), 0.05 * (xx + yy) + 1e-3
    xx, yy = xx + damping, yy + damping
    explained = (yy * x**2 - 2 * xy * x * y + xx * y**2) / (xx * yy - xy**2)
    strain = 2 * total(explained) / total(first + second).clamp(min=1e-6)
    return Agreement(*(each.numpy() for each in (correlation, covered, strain)))


def _kind(
    first: UInt8Array,
    second: UInt8Array,
    theta: FloatArray,
    covered: FloatArray,
    inverted: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int8]:
    """Name what was done to images ``(P, S, S)``: places in :data:`KINDS`."""
    _, angle, _, _, mirrored = measures(theta)
    back = geometry.inverse(theta)
    sides = [_beside(images, maps) for images, maps in ((first, theta), (second, back))]
    framed = np.any([uniform for _, uniform in sides], axis=0)
    cropped = np.any([beside for beside, _ in sides], axis=0)
    applies = [mirrored, inverted, np.abs(angle) >= _TURNED, framed, cropped, covered >= _ANNOTATED]
    return np.select(applies, range(1, len(KINDS) - 1), len(KINDS) - 1).astype(np.int8)


def _beside(images: UInt8Array, theta: FloatArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell which images ``(P, S, S)`` show more than the others to which maps lead, and where that is a border."""
    beside = geometry.overlap(torch.from_numpy(theta), images.shape[1]).numpy() == 0
    more = beside.mean(axis=(1, 2)) >= _BESIDE
    border = np.zeros_like(more)
    for place in np.flatnonzero(more):
        grey = images[place][beside[place]].astype(np.int16)
        border[place] = (np.abs(grey - np.median(grey)) <= _TOLERANCE).mean() >= _UNIFORM
    return more, border
