"""Allocation: give units of several images to parts, so that each part comes near to its share of every class.

A unit is what must not be parted: the images of a patient, the copies of an image, or one image. Which part a unit
comes into is left to chance, so that patients with many images are tested as often as those with one. S parts, K
classes, U units; T types of units, those with the same number of images of every class.
"""

from itertools import combinations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_Moves = list[tuple[int, int, int]]  # the type of a unit, the part that it leaves, the part that it comes into

_GOLDEN = (5**0.5 - 1) / 2  # its multiples, without their whole parts, fill 0..1 most evenly
_SMALL, _SWAPPED = 1024, 128  # types that are moved first, and that are swapped: the smallest


def contents_of(units: IntArray, codes: IntArray, classes: int) -> FloatArray:
    """Images of each class in each unit, ``(U, K)``; as floats, which are exact here and fast in products."""
    contents = np.zeros((units.max() + 1, classes))
    np.add.at(contents, (units, codes), 1)
    return contents


def allocate(contents: FloatArray, shares: FloatArray, seed: int) -> IntArray:
    """Give each unit a part, by chance, so that the parts come near to their shares of every class.

    Types are drawn from the largest to the smallest, each in proportion to what the parts still lack of its classes: so
    a unit of any size comes into a part with the probability that is the part's share, and small units make up for what
    large ones leave. Only a unit that is larger than a part's share of a class doesn't come there. Then units are moved
    one by one as long as that helps.

    Args:
        contents: images of each class in each unit, ``(U, K)``.
        shares: of the parts, ``(S,)``; they sum to one.
        seed: any whole number from 0 on.

    Returns:
        The part of each unit, ``(U,)``.
    """
    bits = np.random.PCG64(seed)  # its raw numbers are the same on every system and in every version
    shuffled = np.argsort(bits.random_raw(len(shares)), kind="stable")  # where parts are alike, none comes first
    start = bits.random_raw() / 2.0**64
    order = np.lexsort((bits.random_raw(len(contents)), *contents.T, -contents.sum(axis=1)))
    ordered = contents[order]
    first = np.flatnonzero(np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1)))
    counts = np.diff(np.append(first, len(order)))
    targets = nearest_targets(contents.sum(axis=0), shares[shuffled])
    numbers = _draw(ordered[first], counts, targets, start)
    _repair(numbers, ordered[first], targets)
    place = np.empty(len(contents), np.int64)
    place[order] = np.repeat(np.tile(shuffled, len(first)), numbers.ravel())
    return place


def nearest_targets(totals: FloatArray, shares: FloatArray) -> FloatArray:
    """Whole numbers of images by part and class ``(S, K)`` nearest to the shares (largest remainder).

    Of equal remainders that of the part goes first that lacks most of the classes before.
    """
    exact = np.round(shares[:, None] * totals[None, :], 9)
    targets = np.floor(exact)
    lack = np.zeros(len(shares))
    for k, rest in enumerate((totals - targets.sum(axis=0)).astype(int)):
        remainder = (exact - targets)[:, k]
        targets[np.lexsort((-lack.round(6), -remainder.round(6)))[:rest], k] += 1
        lack += (exact - targets)[:, k]
    return targets


def _draw(contents: FloatArray, counts: IntArray, targets: FloatArray, start: float) -> IntArray:
    """How many units of each type come into each part, ``(T, S)``.

    Args:
        contents: of the types, ``(T, K)``, the largest first.
        counts: units of each type, ``(T,)``.
        targets: images of each class that the parts should get, ``(S, K)``.
        start: 0..1, by chance.
    """
    need = targets.copy()
    numbers = np.zeros((len(contents), len(targets)), np.int64)
    chances = (start + _GOLDEN * np.arange(len(contents))) % 1
    for number, content, count, chance in zip(numbers, contents, counts, chances, strict=True):
        fits = (content <= need + 1).all(axis=1)
        if not fits.any():
            fits = (content <= targets + 1).all(axis=1)
        if not fits.any():  # larger than any part should be, so there are fewer of them than parts
            for _ in range(count):
                part = int(np.argmax(need @ content))
                number[part] += 1
                need[part] -= content
            continue
        lack = np.maximum(need, 0)
        weight = fits * (lack @ (content / np.maximum(lack.sum(axis=0), 1)))
        weight = weight if weight.any() else fits.astype(float)
        # Systematic sampling (Madow 1949, doi:10.1214/aoms/1177729988): each number is one of the two whole
        # numbers next to what is expected, and on average what is expected.
        ends = np.floor((weight / weight.sum() * count).cumsum().round(9) + chance)
        number[:] = ends
        number[1:] -= ends[:-1].astype(np.int64)
        need -= number[:, None] * content
    return numbers


def _repair(numbers: IntArray, contents: FloatArray, targets: FloatArray) -> None:
    """Move one unit, or where none helps swap two, the best first, while that brings the parts nearer to ``targets``.

    The smallest types come first: large units stay where chance put them. A part without any image of a class weighs
    more than all distances together. ``numbers`` ``(T, S)`` is changed.
    """
    have = numbers.T @ contents
    for first in sorted({max(0, len(contents) - _SMALL), 0}, reverse=True):
        _repair_with(numbers[first:], contents[first:], targets, have)


def _repair_with(numbers: IntArray, contents: FloatArray, targets: FloatArray, have: FloatArray) -> None:
    """The same with some of the types; ``have`` ``(S, K)`` is what the parts hold of all, and changed too."""
    heavy = 8 * targets.sum() ** 2
    holds = (contents > 0).astype(float)
    squares = 2 * (contents**2).sum(axis=1)
    moves: _Moves = []
    while True:
        for kind, source, goal in moves:
            numbers[kind, source] -= 1
            numbers[kind, goal] += 1
            have[source] -= contents[kind]
            have[goal] += contents[kind]
        # By how much the sum of the squared distances falls where a unit comes and where it goes, (T, S) each.
        pull = 2 * contents @ (targets - have).T
        emptied = (holds[:, None] * (have == contents[:, None])).sum(axis=2)
        come = pull + heavy * (holds @ (have == 0).T)
        go = np.where(numbers > 0, -pull - heavy * emptied, -np.inf) - squares[:, None]
        moves = _best_move(come, go) or _best_swap(come, go, contents)
        if not moves:
            return


def _best_move(come: FloatArray, go: FloatArray) -> _Moves:
    """Type, from where and to where; nothing where no move helps."""
    gain = come.max(axis=1) + go.max(axis=1)
    kind = int(np.argmax(gain))
    return [(kind, int(np.argmax(go[kind])), int(np.argmax(come[kind])))] if gain[kind] > 0 else []


def _best_swap(come: FloatArray, go: FloatArray, contents: FloatArray) -> _Moves:
    """The two moves of a swap among the smallest types; nothing where no swap helps."""
    skipped = max(0, len(contents) - _SWAPPED)
    come, go, contents = come[skipped:], go[skipped:], contents[skipped:]
    both = 4 * contents @ contents.T
    best, moves = 0.0, []
    for one, other in combinations(range(come.shape[1]), 2):
        gain = (go[:, one] + come[:, other])[:, None] + go[:, other] + come[:, one] + both
        there, back = divmod(int(np.argmax(gain)), len(contents))
        if gain[there, back] > best:
            best, moves = gain[there, back], [(skipped + there, one, other), (skipped + back, other, one)]
    return moves
