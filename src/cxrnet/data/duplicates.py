"""Search for duplicates: one radiograph under two names, recognised by its content.

Public collections took images from publications and from each other, re-encoded, resized and with another contrast.
Exact duplicates are the same file. Two images are near-duplicates when

* their perceptual or their difference hash differs in at most 4 of 64 bits, and
* their 64 x 64 versions correlate at 0.98 or more, or the ranks of their 32 x 32 versions at 0.985 or more. Ranks
  bear a change of contrast, which plain correlation does not.

With 10 bits instead of 4, pairs appear that are two radiographs of one patient; with a rank correlation of 0.97,
pairs of different synthetic patients (up to 0.978, where the true duplicates in covid19_image have 0.990 and more).
The result is a lower bound: duplicates that were cropped by more than a few per cent, turned or mirrored escape.

Comparing all pairs takes 600 bytes an image. Two vectors of length 1 with mean 0 (grey values, or their ranks)
correlate as their product. With P the projection onto some of the cosines of a discrete cosine transform, Cauchy and
Schwarz bound it by ``x . y <= Px . Py + |x - Px| |y - Py|``, so only the length of the rest is kept, and no pair above
a limit is lost. On 3,283 real radiographs, 283 of 5.4 million pairs pass the bound of 0.98 and 210 reach it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from scipy.fft import dct

from cxrnet.core.cache import kept
from cxrnet.core.grouping import components, link
from cxrnet.data.images import store
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import Images, processors

SEARCH_SIZE = (64, 64)  # at which images are compared
_HASH_BITS = 4
_CORRELATION = 0.98
_RANK_CORRELATION = 0.985

FORMAT = 1  # of a kept search and its rules

_COSINES = 7  # in each direction, of the projection
_TILE = 512  # rows multiplied with as many others at a time: what fits into a cache
_ROUNDING = 1e-4  # far more than float32 loses in a product of such vectors
_BLOCK = 1024  # pairs whose images are read at a time
_FINGERPRINTS = 256  # images whose fingerprints are made at a time: what fits into a cache

_FloatArray = npt.NDArray[np.float32]
_IntArray = npt.NDArray[np.int64]
_HashArray = npt.NDArray[np.uint64]
_Pairs = tuple[_IntArray, _IntArray]


class Rows(Protocol):
    """Images read by their places: an array, or :class:`cxrnet.data.images.reader.Images`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: _IntArray, /) -> UInt8Array: ...


class Found(NamedTuple):
    """Pairs by the places of their images, ``(P,)`` each; they depend on the files alone."""

    a: _IntArray
    b: _IntArray
    exact: npt.NDArray[np.bool_]
    correlation: _FloatArray
    hash_distance: _IntArray


def find_duplicates(images: Rows, manifest: pd.DataFrame, cache: Path | None = None) -> pd.DataFrame:
    """Find exact and near-duplicates among the images of a manifest.

    What was found when the images were written as shards, by the rules of today, is taken from there. Else only a
    fingerprint of each image stays in memory; images are read block by block, those of a likely pair again.

    Args:
        images: in the order of the manifest's rows, ``(N, 64, 64) uint8``, straight from the file.
        manifest: exact duplicates have the same ``sha256``, where it is known.
        cache: folder that keeps the result for files of the same content in the same order, for which every
            ``sha256`` must be known; ``None`` keeps nothing.

    Returns:
        One row a pair, sorted: ``image_id_a``, ``image_id_b``, ``kind`` (``exact`` or ``near``), ``correlation``
        (Pearson, of the 64 x 64 versions, -1..1), ``hash_distance`` (of the nearer of the two hashes, 0..64 bits),
        ``split_a``, ``split_b``, ``label_a``, ``label_b``.
    """
    if len(images) != len(manifest):
        raise ValueError(f"{len(images)} images for {len(manifest)} rows of the manifest")
    noted = images.noted if isinstance(images, Images) else None
    if isinstance(images, Images) and noted is not None and noted.rules == rules():
        found = _among(images, noted.duplicates)
    elif cache is None:
        found = search(images, manifest)
    else:
        made_by = json.dumps([FORMAT, store.made_with(), SEARCH_SIZE, _HASH_BITS, _CORRELATION, _RANK_CORRELATION])
        key = hashlib.sha256("\n".join([made_by, *manifest["sha256"]]).encode()).hexdigest()[:32]
        folder = kept(
            cache / "copies" / key,
            lambda partial: np.savez(partial / "copies.npz", **search(images, manifest)._asdict()),
        )
        with np.load(folder / "copies.npz") as columns:
            found = Found(**columns)
    ids = manifest["image_id"].to_numpy(object)
    swap = ids[found.a] > ids[found.b]
    sides = {"a": np.where(swap, found.b, found.a), "b": np.where(swap, found.a, found.b)}
    pairs = pd.DataFrame(
        {
            **{f"image_id_{side}": pd.array(ids[rows], "string") for side, rows in sides.items()},
            "kind": pd.array(np.where(found.exact, "exact", "near"), "string"),
            "correlation": found.correlation,
            "hash_distance": found.hash_distance,
            **{
                f"{name}_{side}": manifest[name].array[rows]
                for name in ("split", "label")
                for side, rows in sides.items()
            },
        }
    )
    return pairs.sort_values(["image_id_a", "image_id_b"], ignore_index=True)


def group_duplicates(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Fill ``group_id`` of the images that have a duplicate with the first ``image_id`` of the group.

    Args:
        pairs: from :func:`find_duplicates`.
        manifest: the searched manifest; its groups are kept, or joined by a duplicate.
    """
    numbers = link(manifest, ("group_id",))
    row = pd.Series(np.arange(len(manifest)), index=manifest["image_id"])
    a, b = row[pairs["image_id_a"]].to_numpy(), row[pairs["image_id_b"]].to_numpy()
    groups = components(len(manifest), numbers[a], numbers[b])[numbers]
    ids = manifest["image_id"].groupby(groups)
    named = (ids.transform("size") > 1) | manifest["group_id"].notna()
    return manifest.assign(group_id=ids.transform("min").where(named).astype("string"))


def rules() -> str:
    """Name the rules by which duplicates are searched."""
    return json.dumps([FORMAT, SEARCH_SIZE, _HASH_BITS, _CORRELATION, _RANK_CORRELATION])


def _among(images: Images, found: Mapping[str, npt.NDArray[Any]]) -> Found:
    """Keep the pairs of which both images are in some rows of an array, by their places among them."""
    place = np.full(len(images.array), -1)
    place[images.rows] = np.arange(len(images))
    a, b = place[found["a"]], place[found["b"]]
    both = (a >= 0) & (b >= 0)
    return Found(**{name: column[both] for name, column in {**found, "a": a, "b": b}.items()})


def search(images: Rows, manifest: pd.DataFrame) -> Found:
    """Search the images of a manifest, as :func:`find_duplicates` does, and keep nothing."""
    if images[np.arange(0)].shape[1:] != SEARCH_SIZE:
        raise ValueError("duplicates are searched at 64 x 64 pixels, straight from the file")

    def fingerprints(start: int) -> tuple[_HashArray, _FloatArray, _FloatArray]:
        small = images[np.arange(start, min(start + _FINGERPRINTS, len(images)))]
        return _hashes(small), _project(_grey_values(small)), _project(_grey_ranks(small))

    with ThreadPoolExecutor(processors()) as pool:
        parts = pool.map(fingerprints, range(0, len(images), _FINGERPRINTS))
    hashes, values, ranks = (np.concatenate(column) for column in zip(*parts, strict=True))
    files = link(manifest, ("sha256",))
    a, b = _candidates(files, hashes, values, ranks)
    bits, exact = _hash_distance(hashes[a], hashes[b]), files[a] == files[b]
    correlation, rank_correlation = _correlations(images, a, b)
    alike = (bits <= _HASH_BITS) & ((correlation >= _CORRELATION) | (rank_correlation >= _RANK_CORRELATION))
    return Found(*(column[exact | alike] for column in (a, b, exact, correlation, bits)))


def _candidates(files: _IntArray, hashes: _HashArray, values: _FloatArray, ranks: _FloatArray) -> _Pairs:
    """Find the pairs of rows that are one file, or that the fingerprints let pass: ``a < b``, sorted, each once."""
    n = len(files)
    order = np.argsort(files, kind="stable")
    ordered, found = files[order], []
    for step in range(1, np.bincount(files).max()):
        here = np.flatnonzero(ordered[step:] == ordered[:-step])
        found.append(order[here] * n + order[here + step])
    for limit, projected in ((_CORRELATION, values), (_RANK_CORRELATION, ranks)):
        for a, b in _pairs_that_may_reach(limit, projected):
            near = _hash_distance(hashes[a], hashes[b]) <= _HASH_BITS
            found.append(np.minimum(a, b)[near] * n + np.maximum(a, b)[near])
    return np.divmod(np.unique(np.concatenate(found)), n)


def _pairs_that_may_reach(limit: float, projected: _FloatArray) -> Iterator[_Pairs]:
    """Find the pairs of rows ``(N, 49)`` that may correlate at a limit or more: all that do, few others, each once.

    Rows are sorted along the axis on which they differ most, and compared with those near them on it only.
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


def _correlations(images: Rows, a: _IntArray, b: _IntArray) -> tuple[_FloatArray, _FloatArray]:
    """Correlate the grey values and the ranks of each pair, ``(P,)`` each."""
    correlation, rank_correlation = np.empty(len(a), np.float32), np.empty(len(a), np.float32)
    # Pairs of one group come after each other, so that an image is read few times.
    order = np.argsort(components(len(images), a, b)[a], kind="stable")
    for start in range(0, len(order), _BLOCK):
        pairs = order[start : start + _BLOCK]
        rows, places = np.unique(np.stack([a[pairs], b[pairs]]), return_inverse=True)
        first, second = places.reshape(2, -1)
        small = images[rows]
        for result, vectors in ((correlation, _grey_values(small)), (rank_correlation, _grey_ranks(small))):
            result[pairs] = np.vecdot(vectors[first], vectors[second])
    return correlation, rank_correlation


def _grey_values(small: UInt8Array) -> _FloatArray:
    return _standardise(small.reshape(len(small), -1))


def _grey_ranks(small: UInt8Array) -> _FloatArray:
    """Rank the grey values at half the size, ``(N, 1024)``."""
    sums = _sums_of_four(small).reshape(len(small), -1)
    # Equal values get the mean of their ranks. There are 1,021 values, so counting is faster than sorting.
    values = 4 * 255 + 1
    flat = sums + np.arange(len(small))[:, None] * values
    counts = np.bincount(flat.ravel(), minlength=len(small) * values).reshape(len(small), values)
    ranks = (counts.cumsum(axis=1) - (counts - 1) / 2).astype(np.float32)
    return _standardise(ranks.ravel()[flat])


def _standardise(values: npt.NDArray[np.generic]) -> _FloatArray:
    """Bring rows to mean 0 and length 1; constant ones become 0."""
    rows = values.astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    return rows


def _project(rows: _FloatArray) -> _FloatArray:
    """Project square images of mean 0, ``(N, side * side)``: Px and the length of the rest, ``(N, 49)``."""
    side = round(rows.shape[1] ** 0.5)
    cosines = dct(np.eye(side, dtype=np.float32), axis=0, norm="ortho")[:_COSINES]
    low: _FloatArray = (cosines @ rows.reshape(-1, side, side) @ cosines.T).reshape(len(rows), -1)
    low[:, 0] = 0  # of the constant, to rounding
    low[:, 0] = np.sqrt(np.maximum(0, (rows**2).sum(axis=1) - (low**2).sum(axis=1)))
    return low


def _hashes(small: UInt8Array) -> _HashArray:
    """Compute the perceptual and the difference hash, 64 bits each: ``(N, 2)``."""
    count, height, width = small.shape
    # Perceptual: the 8 x 8 lowest frequencies against their median.
    halves = _sums_of_four(small).astype(np.float32) / 4
    low = dct(dct(halves, axis=1, norm="ortho")[:, :8], axis=2, norm="ortho")[:, :, :8].reshape(count, 64)
    perceptual = low > np.median(low, axis=1, keepdims=True)
    # Difference: where grey values rise from one neighbour in a row to the next, 8 rows of 9. To resize, Pillow takes
    # row by row, then column by column: images below each other, then side by side are as one.
    rows = Image.fromarray(small.reshape(-1, width)).resize((9, count * height), Image.Resampling.BILINEAR)
    beside = np.asarray(rows).reshape(count, height, 9).swapaxes(0, 1).reshape(height, -1)
    columns = Image.fromarray(beside).resize((count * 9, 8), Image.Resampling.BILINEAR)
    tiny = np.asarray(columns).reshape(8, count, 9).swapaxes(0, 1)
    difference = (tiny[:, :, 1:] > tiny[:, :, :-1]).reshape(count, 64)
    return np.packbits(np.stack([perceptual, difference], axis=1), axis=2).view(np.uint64)[:, :, 0]


def _hash_distance(a: _HashArray, b: _HashArray) -> _IntArray:
    """Count the bits that differ in the nearer of the two hashes ``(N, 2)``: ``(N,)``, 0..64."""
    distance: _IntArray = np.bitwise_count(a ^ b).min(axis=1).astype(np.int64)
    return distance


def _sums_of_four(small: UInt8Array) -> npt.NDArray[np.uint16]:
    rows = small[:, ::2].astype(np.uint16) + small[:, 1::2]
    sums: npt.NDArray[np.uint16] = rows[:, :, ::2] + rows[:, :, 1::2]
    return sums
