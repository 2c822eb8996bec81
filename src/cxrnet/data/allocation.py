"""Allocation: give units of several images to parts, so that each part comes near to its share of every class.

A unit is what must not be parted: the images of a patient, the copies of an image, or one image. S parts, K classes,
U units.
"""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def contents_of(units: IntArray, codes: IntArray, classes: int) -> FloatArray:
    """Images of each class in each unit, ``(U, K)``; as floats, which are exact here and fast in products."""
    contents = np.zeros((units.max() + 1, classes))
    np.add.at(contents, (units, codes), 1)
    return contents


def nearest_targets(totals: FloatArray, shares: FloatArray) -> FloatArray:
    """Whole numbers of images by split and class ``(S, K)`` nearest to the shares (largest remainder)."""
    exact = np.round(shares[:, None] * totals[None, :], 9)
    targets = np.floor(exact)
    order = np.argsort(-(exact - targets).round(6), axis=0, kind="stable")
    for k, rest in enumerate((totals - targets.sum(axis=0)).astype(int)):
        targets[order[:rest, k], k] += 1
    return targets


def allocate(contents: FloatArray, targets: FloatArray, keys: npt.NDArray[np.uint64]) -> IntArray:
    """Give each unit ``(U, K)`` a split ``(U,)`` so that the splits come near to ``targets`` ``(S, K)``."""
    order = np.argsort(keys, kind="stable")
    sizes = contents.sum(axis=1)
    place = np.zeros(len(contents), np.int64)
    need = targets.copy()
    several = order[sizes[order] > 1]
    for unit in several[np.argsort(-sizes[several], kind="stable")]:
        # The squared distance to the targets falls most where need and content point the same way.
        place[unit] = split = int(np.argmax(need @ contents[unit]))
        need[split] -= contents[unit]
    single = order[sizes[order] == 1]
    for k in range(contents.shape[1]):
        members = single[contents[single, k] == 1]
        place[members] = np.repeat(np.arange(len(targets)), _fill(need[:, k], len(members)))
    _repair(place, contents, targets)
    return place


def _fill(need: FloatArray, available: int) -> IntArray:
    """Hand out single images by need ``(S,)``; what groups took too much, the other splits lack equally."""
    given = np.maximum(need, 0).astype(np.int64)
    lack = np.zeros_like(given)
    for _ in range(int(given.sum()) - available):
        split = np.argmin(np.where(given > 0, lack, np.iinfo(np.int64).max))
        given[split] -= 1
        lack[split] += 1
    return given


def _repair(place: IntArray, contents: FloatArray, targets: FloatArray) -> None:
    """Move one unit at a time, the best first, while that brings the splits nearer to ``targets``.

    A split without any image of a class weighs more than all distances together. ``place`` is changed.
    """
    heavy = 8 * contents.sum() ** 2
    holds = (contents > 0).astype(float)
    squares = (contents**2).sum(axis=1)
    have = np.zeros_like(targets)
    np.add.at(have, place, contents)
    while True:
        need = targets - have
        pull = contents @ need.T
        rows = np.arange(len(place))
        gain = 2 * (pull - pull[rows, place][:, None] - squares[:, None])
        emptied = (holds * (have[place] == contents)).sum(axis=1)
        gain += heavy * (holds @ (have == 0).T - emptied[:, None])
        gain[rows, place] = 0
        unit, split = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[unit, split] <= 0:
            return
        have[place[unit]] -= contents[unit]
        have[split] += contents[unit]
        place[unit] = split
