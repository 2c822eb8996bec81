"""Search for duplicates: one radiograph under two names, recognised by its content.

Public collections took images from publications and from each other, re-encoded, resized and with another
contrast, so a test image often stands in train too. Exact duplicates are the same file. Two images are near-duplicates
when

* their perceptual or their difference hash differs in at most 4 of 64 bits, and
* their 64 x 64 versions correlate at 0.98 or more, or the ranks of their 32 x 32 versions at 0.985 or more. Ranks
  bear a change of contrast, which plain correlation does not.

With 10 bits instead of 4, pairs appear that are two radiographs of one patient; with a rank correlation of 0.97,
pairs of different synthetic patients (up to 0.978, where the true duplicates in covid19_image have 0.990 and more).
The result is a lower bound: duplicates that were cropped by more than a few per cent, turned or mirrored escape.

Comparing all pairs takes 600 bytes an image. Two vectors of length 1 with mean 0 (grey values, or their ranks)
correlate as their product. With P the projection onto some of the cosines of a discrete cosine transform, Cauchy and
Schwarz bound it::

    x . y  <=  Px . Py + |x - Px| |y - Py|

so only the length of the rest is kept, and no pair above a limit is lost. The low frequencies hold most of a
radiograph: on 3,283 real ones, 283 of 5.4 million pairs pass the bound of 0.98 and 210 reach it.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.fft import dct

from cxrnet.core.cache import kept
from cxrnet.core.grouping import components, link
from cxrnet.data.images import store
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import processors

SEARCH_SIZE = (64, 64)  # at which images are compared
HASH_BITS = 4
CORRELATION = 0.98
RANK_CORRELATION = 0.985

FORMAT = 1  # of a kept search and its rules

_COSINES = 7  # in each direction, of the projection
_TILE = 512  # rows multiplied with as many others at a time: what fits into a cache
_ROUNDING = 1e-4  # far more than float32 loses in a product of such vectors
_BLOCK = 1024  # pairs whose images are read at a time
_FINGERPRINTS = 256  # images whose fingerprints are made at a time: what fits into a cache

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]
_Pairs = tuple[IntArray, IntArray]


class Rows(Protocol):
    """Images read by their places: an array, or :class:`cxrnet.data.images.resize.Images`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: IntArray, /) -> UInt8Array: ...


class _Duplicates(NamedTuple):
    """Pairs by the places of their images, ``(P,)`` each; they depend on the files alone."""

    a: IntArray
    b: IntArray
    exact: BoolArray
    correlation: FloatArray
    hash_distance: IntArray


def find_duplicates(images: Rows, manifest: pd.DataFrame, cache: Path | None = None) -> pd.DataFrame:
    """Find exact and near-duplicates among the images of a manifest.

    Only a fingerprint of each image stays in memory; images are read block by block, those of a likely pair again.

    Args:
        images: in the order of the manifest's rows, ``(N, 64, 64) uint8`` (``SEARCH_SIZE``), straight from the file.
        manifest: a manifest; exact duplicates have the same ``sha256``, where it is known.
        cache: keeps the result in this folder: files of the same content in the same order are not searched again.
            Every ``sha256`` must be known then. ``None`` keeps nothing.

    Returns:
        One row a pair, sorted: ``image_id_a``, ``image_id_b``, ``kind`` (``exact``: the same file, ``near``: the
        same picture), ``correlation`` (Pearson, of the 64 x 64 versions, -1..1), ``hash_distance`` (of the nearer
        of the two hashes, 0..64 bits), ``split_a``, ``split_b``, ``label_a``, ``label_b``.

    Raises:
        ValueError: images and manifest differ in length, or images have another size.
    """
    if len(images) != len(manifest):
        raise ValueError(f"{len(images)} images for {len(manifest)} rows of the manifest")
    if cache is None:
        return _table(_search(images, manifest), manifest)
    rules = json.dumps([FORMAT, store.made_with(), SEARCH_SIZE, HASH_BITS, CORRELATION, RANK_CORRELATION])
    key = hashlib.sha256("\n".join([rules, *manifest["sha256"]]).encode()).hexdigest()[:32]
    folder = kept(
        cache / "copies" / key, lambda partial: np.savez(partial / "copies.npz", **_search(images, manifest)._asdict())
    )
    with np.load(folder / "copies.npz") as columns:
        return _table(_Duplicates(**columns), manifest)


def group_duplicates(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Name the groups of duplicates, so that a split keeps each of them together.

    Args:
        pairs: from :func:`find_duplicates`.
        manifest: the searched manifest; its groups are kept, or joined by a duplicate.

    Returns:
        The manifest with ``group_id`` filled for images that have a duplicate: the first ``image_id`` of the group.
    """
    numbers = link(manifest, ("group_id",))
    row = pd.Series(np.arange(len(manifest)), index=manifest["image_id"])
    a, b = row[pairs["image_id_a"]].to_numpy(), row[pairs["image_id_b"]].to_numpy()
    groups = components(len(manifest), numbers[a], numbers[b])[numbers]
    ids = manifest["image_id"].groupby(groups)
    named = (ids.transform("size") > 1) | manifest["group_id"].notna()
    return manifest.assign(group_id=ids.transform("min").where(named).astype("string"))


def _search(images: Rows, manifest: pd.DataFrame) -> _Duplicates:
    if images[np.arange(0)].shape[1:] != SEARCH_SIZE:
        raise ValueError("duplicates are searched at 64 x 64 pixels, straight from the file")
    files = link(manifest, ("sha256",))
    hash_of, values, ranks = _fingerprints(images)
    a, b = _candidates(files, hash_of, values, ranks)
    bits, exact = hash_distance(hash_of[a], hash_of[b]), files[a] == files[b]
    correlation, rank_correlation = _correlations(images, a, b)
    alike = (bits <= HASH_BITS) & ((correlation >= CORRELATION) | (rank_correlation >= RANK_CORRELATION))
    return _Duplicates(*(column[exact | alike] for column in (a, b, exact, correlation, bits)))


def _table(found: _Duplicates, manifest: pd.DataFrame) -> pd.DataFrame:
    ids = manifest["image_id"].to_numpy(object)
    swap = ids[found.a] > ids[found.b]
    a, b = np.where(swap, found.b, found.a), np.where(swap, found.a, found.b)
    pairs = pd.DataFrame(
        {
            "image_id_a": pd.array(ids[a], "string"),
            "image_id_b": pd.array(ids[b], "string"),
            "kind": pd.array(np.where(found.exact, "exact", "near"), "string"),
            "correlation": found.correlation,
            "hash_distance": found.hash_distance,
            "split_a": manifest["split"].array[a],
            "split_b": manifest["split"].array[b],
            "label_a": manifest["label"].array[a],
            "label_b": manifest["label"].array[b],
        }
    )
    return pairs.sort_values(["image_id_a", "image_id_b"], ignore_index=True)


def _fingerprints(images: Rows) -> tuple[HashArray, FloatArray, FloatArray]:
    """Compute hashes ``(N, 2)`` and projected grey values and ranks ``(N, 49)`` of all images."""

    def of_block(start: int) -> tuple[HashArray, FloatArray, FloatArray]:
        small = images[np.arange(start, min(start + _FINGERPRINTS, len(images)))]
        return hashes(small), project(grey_values(small)), project(grey_ranks(small))

    with ThreadPoolExecutor(processors()) as pool:
        parts = pool.map(of_block, range(0, len(images), _FINGERPRINTS))
    hash_of, values, ranks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return hash_of, values, ranks


def _candidates(files: IntArray, hash_of: HashArray, values: FloatArray, ranks: FloatArray) -> _Pairs:
    """Find the pairs of rows that are one file, or that the fingerprints let pass: ``a < b``, sorted, each once."""
    n = len(files)
    found = [a * n + b for a, b in _same_files(files)]
    for limit, projected in ((CORRELATION, values), (RANK_CORRELATION, ranks)):
        for a, b in pairs_that_may_reach(limit, projected):
            near = hash_distance(hash_of[a], hash_of[b]) <= HASH_BITS
            found.append(np.minimum(a, b)[near] * n + np.maximum(a, b)[near])
    return np.divmod(np.unique(np.concatenate(found)), n)


def _same_files(files: IntArray) -> Iterator[_Pairs]:
    order = np.argsort(files, kind="stable")
    ordered = files[order]
    for step in range(1, np.bincount(files).max()):
        here = np.flatnonzero(ordered[step:] == ordered[:-step])
        yield order[here], order[here + step]


def _correlations(images: Rows, a: IntArray, b: IntArray) -> tuple[FloatArray, FloatArray]:
    """Correlate the grey values and the ranks of each pair, ``(P,)`` each."""
    correlation, rank_correlation = np.empty(len(a), np.float32), np.empty(len(a), np.float32)
    # Pairs of one group come after each other, so that an image is read few times.
    order = np.argsort(components(len(images), a, b)[a], kind="stable")
    for start in range(0, len(order), _BLOCK):
        pairs = order[start : start + _BLOCK]
        rows, places = np.unique(np.stack([a[pairs], b[pairs]]), return_inverse=True)
        first, second = places.reshape(2, -1)
        small = images[rows]
        for result, vectors in ((correlation, grey_values(small)), (rank_correlation, grey_ranks(small))):
            result[pairs] = np.vecdot(vectors[first], vectors[second])
    return correlation, rank_correlation


def grey_values(small: UInt8Array) -> FloatArray:
    """Scale grey values ``(N, 64, 64) uint8`` to mean 0 and length 1, ``(N, 4096)``; constant images become 0."""
    return _standardise(small.reshape(len(small), -1))


def grey_ranks(small: UInt8Array) -> FloatArray:
    """Rank the grey values at half the size, to mean 0 and length 1, ``(N, 1024)``; constant images become 0."""
    sums = _sums_of_four(small).reshape(len(small), -1)
    # Equal values get the mean of their ranks. There are 1,021 values, so counting is faster than sorting.
    values = 4 * 255 + 1
    flat = sums + np.arange(len(small))[:, None] * values
    counts = np.bincount(flat.ravel(), minlength=len(small) * values).reshape(len(small), values)
    ranks = (counts.cumsum(axis=1) - (counts - 1) / 2).astype(np.float32)
    return _standardise(ranks.ravel()[flat])


def _standardise(values: npt.NDArray[np.generic]) -> FloatArray:
    rows = values.astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    return rows


def hashes(small: UInt8Array) -> HashArray:
    """Compute the perceptual and the difference hash of ``(N, 64, 64) uint8``, 64 bits each: ``(N, 2)``."""
    bits = np.stack([_perceptual_hash(small), _difference_hash(small)], axis=1)
    return np.packbits(bits, axis=2).view(np.uint64)[:, :, 0]


def hash_distance(a: HashArray, b: HashArray) -> IntArray:
    """Count the bits that differ in the nearer of the two hashes ``(N, 2)``: ``(N,)``, 0..64."""
    distance: IntArray = np.bitwise_count(a ^ b).min(axis=1).astype(np.int64)
    return distance


def project(rows: FloatArray) -> FloatArray:
    """Project square images of mean 0, ``(N, side * side)``: Px and the length of the rest, ``(N, 49)``."""
    side = round(rows.shape[1] ** 0.5)
    cosines = dct(np.eye(side, dtype=np.float32), axis=0, norm="ortho")[:_COSINES]
    low: FloatArray = (cosines @ rows.reshape(-1, side, side) @ cosines.T).reshape(len(rows), -1)
    low[:, 0] = 0  # of the constant, to rounding
    low[:, 0] = np.sqrt(np.maximum(0, (rows**2).sum(axis=1) - (low**2).sum(axis=1)))
    return low


def pairs_that_may_reach(limit: float, projected: FloatArray) -> Iterator[_Pairs]:
    """Find the pairs of rows that may correlate at a limit or more: all that do, and few others.

    Rows are sorted along the axis on which they differ most, and compared with those near them on it only.

    Args:
        limit: least correlation of a pair, 0..1.
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


def _perceptual_hash(small: UInt8Array) -> BoolArray:
    """Compare the 8 x 8 lowest frequencies with their median, ``(N, 64)``."""
    thumbnails = _sums_of_four(small).astype(np.float32) / 4
    low = dct(dct(thumbnails, axis=1, norm="ortho")[:, :8], axis=2, norm="ortho")[:, :, :8].reshape(len(small), 64)
    above: BoolArray = low > np.median(low, axis=1, keepdims=True)
    return above


def _difference_hash(small: UInt8Array) -> BoolArray:
    """Mark where grey values rise from one neighbour in a row to the next, 8 rows of 9: ``(N, 64)``."""
    # To resize, Pillow takes row by row, then column by column: images below each other, then side by side are as one.
    count, height, width = small.shape
    rows = Image.fromarray(small.reshape(-1, width)).resize((9, count * height), Image.Resampling.BILINEAR)
    beside = np.asarray(rows).reshape(count, height, 9).swapaxes(0, 1).reshape(height, -1)
    columns = Image.fromarray(beside).resize((count * 9, 8), Image.Resampling.BILINEAR)
    tiny = np.asarray(columns).reshape(8, count, 9).swapaxes(0, 1)
    return (tiny[:, :, 1:] > tiny[:, :, :-1]).reshape(count, 64)
