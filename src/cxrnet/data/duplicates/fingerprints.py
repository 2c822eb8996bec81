"""Fingerprints: what tells copies of a radiograph among hundreds of thousands, in 600 bytes an image.

Two vectors of length 1 with mean 0 (grey values, or their ranks) correlate as their product. With P the projection onto
some of the cosines of a discrete cosine transform, Cauchy and Schwarz bound it::

    x . y  <=  Px . Py + |x - Px| |y - Py|

so of the rest only the length is kept, and no pair above a limit is lost. The low frequencies hold most of a
radiograph: on 3,283 real ones, of 5.4 million pairs 283 pass the bound of 0.98 and 210 reach it.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dct

from cxrnet.data.images.decode import UInt8Array

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

_COSINES = 7  # in each direction, of the projection
_TILE = 512  # rows that are multiplied with as many others at a time: what fits into a cache
_ROUNDING = 1e-4  # far more than float32 loses in a product of such vectors


def grey_values(small: UInt8Array) -> FloatArray:
    """Grey values ``(N, 64, 64) uint8`` of mean 0 and length 1, ``(N, 4096)``; constant images become 0."""
    return _standardise(small.reshape(len(small), -1))


def grey_ranks(small: UInt8Array) -> FloatArray:
    """Ranks of the grey values at half the size, of mean 0 and length 1, ``(N, 1024)``; constant images become 0."""
    sums = _sums_of_four(small).reshape(len(small), -1)
    # Equal values get the mean of their ranks. There are 1,021 values, so counting is faster than sorting.
    values = 4 * 255 + 1
    flat = sums + np.arange(len(small))[:, None] * values
    counts = np.bincount(flat.ravel(), minlength=len(small) * values).reshape(len(small), values)
    ranks = (counts.cumsum(axis=1) - (counts - 1) / 2).astype(np.float32)
    return _standardise(ranks.ravel()[flat])


def hashes(small: UInt8Array) -> HashArray:
    """Perceptual and difference hash of ``(N, 64, 64) uint8``, 64 bits each: ``(N, 2)``."""
    bits = np.stack([_perceptual_hash(small), _difference_hash(small)], axis=1)
    return np.packbits(bits, axis=2).view(np.uint64)[:, :, 0]


def hash_distance(a: HashArray, b: HashArray) -> IntArray:
    """Bits that differ in the nearer of the two hashes ``(N, 2)``: ``(N,)``, 0..64."""
    distance: IntArray = np.bitwise_count(a ^ b).min(axis=1).astype(np.int64)
    return distance


def project(rows: FloatArray) -> FloatArray:
    """Px and the length of the rest, see above, of square images of mean 0: ``(N, side * side)`` to ``(N, 49)``."""
    side = round(rows.shape[1] ** 0.5)
    cosines = dct(np.eye(side, dtype=np.float32), axis=0, norm="ortho")[:_COSINES]
    low: FloatArray = (cosines @ rows.reshape(-1, side, side) @ cosines.T).reshape(len(rows), -1)
    low[:, 0] = 0  # of the constant, to rounding
    low[:, 0] = np.sqrt(np.maximum(0, (rows**2).sum(axis=1) - (low**2).sum(axis=1)))
    return low


def pairs_that_may_reach(limit: float, projected: FloatArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of rows that may correlate at a limit or more: all that do, and few others.

    Rows are sorted along the axis on which they differ most, and compared with those near them on it only.

    Args:
        limit: of the correlation, 0..1.
        projected: from :func:`project`, ``(N, 49)``.

    Yields:
        Some rows and their partners, ``(n,)`` each; every pair once.
    """
    limit -= _ROUNDING
    axis = int(projected.var(axis=0).argmax())
    order = np.argsort(projected[:, axis], kind="stable")
    rows = projected[order]
    # Vectors of length 1 with this product are so far apart, on one axis at most as far.
    ends = np.searchsorted(rows[:, axis], rows[:, axis] + np.sqrt(2 - 2 * limit), side="right")
    for start in range(0, len(rows), _TILE):
        block = rows[start : start + _TILE]
        for other in range(start, ends[start + len(block) - 1], _TILE):
            product = block @ rows[other : other + _TILE].T
            first, second = np.divmod(np.flatnonzero(product >= limit), product.shape[1])
            first, second = first + start, second + other
            once = first < second
            yield order[first[once]], order[second[once]]


def _sums_of_four(small: UInt8Array) -> npt.NDArray[np.uint16]:
    rows = small[:, ::2].astype(np.uint16) + small[:, 1::2]
    sums: npt.NDArray[np.uint16] = rows[:, :, ::2] + rows[:, :, 1::2]
    return sums


def _perceptual_hash(small: UInt8Array) -> npt.NDArray[np.bool_]:
    """Whether the 8 x 8 lowest frequencies lie above their median, ``(N, 64)``."""
    thumbnails = _sums_of_four(small).astype(np.float32) / 4
    low = dct(dct(thumbnails, axis=1, norm="ortho")[:, :8], axis=2, norm="ortho")[:, :, :8].reshape(len(small), 64)
    above: npt.NDArray[np.bool_] = low > np.median(low, axis=1, keepdims=True)
    return above


def _difference_hash(small: UInt8Array) -> npt.NDArray[np.bool_]:
    """Whether grey values rise from one neighbour in a row to the next, 8 rows of 9: ``(N, 64)``."""
    # To resize, Pillow takes row by row, then column by column: images below each other, then side by side are as one.
    count, height, width = small.shape
    rows = Image.fromarray(small.reshape(-1, width)).resize((9, count * height), Image.Resampling.BILINEAR)
    beside = np.asarray(rows).reshape(count, height, 9).swapaxes(0, 1).reshape(height, -1)
    columns = Image.fromarray(beside).resize((count * 9, 8), Image.Resampling.BILINEAR)
    tiny = np.asarray(columns).reshape(8, count, 9).swapaxes(0, 1)
    return (tiny[:, :, 1:] > tiny[:, :, :-1]).reshape(count, 64)


def _standardise(values: npt.NDArray[np.generic]) -> FloatArray:
    """Rows of mean 0 and length 1, so that a product of two is their correlation; constant rows become 0."""
    rows = values.astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    return rows
