"""The search for copies: one radiograph under two names, told by its content.

Public collections took images from publications and from each other, re-encoded, resized and with another
contrast, so a test image often stands in train too. Two images count as near copies when

* their perceptual or their difference hash differs in at most 4 of 64 bits, and
* their 64 x 64 versions correlate at 0.98 or more, or the ranks of their 32 x 32 versions at 0.985 or more. Ranks
  bear a change of contrast, which plain correlation does not.

With 10 bits instead of 4, pairs appear that are two radiographs of one patient; with a rank correlation of 0.97,
pairs of different synthetic patients (up to 0.978, where the true copies in covid19_image have 0.990 and more).
What is found is a lower bound: copies that were cut by more than a few per cent, turned or mirrored escape.
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

from cxrnet.core.cache import kept
from cxrnet.core.grouping import components, link
from cxrnet.data.duplicates.fingerprints import (
    FloatArray,
    HashArray,
    IntArray,
    grey_ranks,
    grey_values,
    hash_distance,
    hashes,
    pairs_that_may_reach,
    project,
)
from cxrnet.data.images import store
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import processors
from cxrnet.data.images.resize import resize_all

COPY_SIZE = (64, 64)  # at which images are compared
HASH_BITS = 4
CORRELATION = 0.98
RANK_CORRELATION = 0.985

FORMAT = 1  # of what is kept of a search, and of how copies are told

_BLOCK = 1024  # pairs whose images are read at a time
_FINGERPRINTS = 256  # images whose fingerprints are made at a time: what fits into a cache

_Pairs = tuple[IntArray, IntArray]


class _Copies(NamedTuple):
    """Pairs of copies by the places of their images, ``(P,)`` each: what depends on the files alone."""

    a: IntArray
    b: IntArray
    exact: npt.NDArray[np.bool_]
    correlation: FloatArray
    hash_distance: IntArray


class Rows(Protocol):
    """Images that are read by their places: an array, or :class:`cxrnet.data.images.resize.Images`."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, rows: IntArray, /) -> UInt8Array:
        """Images ``(n, H, W)``."""


def find_copies(images: Rows, manifest: pd.DataFrame, cache: Path | None = None) -> pd.DataFrame:
    """Find exact and near copies among the images of a manifest.

    Only a fingerprint of each image stays in memory; images are read block by block, those of a likely pair again.

    Args:
        images: in the order of the manifest's rows, ``(N, H, W) uint8``; best at ``COPY_SIZE``, straight from the file.
        manifest: a manifest; exact copies are told by ``sha256``, where it is known.
        cache: what is found is kept in this folder, and files of the same content in the same order are not searched
            again. Every ``sha256`` must be known then, and images be at ``COPY_SIZE``, straight from the file. ``None``
            keeps nothing.

    Returns:
        One row a pair, sorted: ``image_id_a``, ``image_id_b``, ``kind`` (``exact``: the same file, ``near``: the
        same picture), ``correlation`` (Pearson, of the 64 x 64 versions, -1..1), ``hash_distance`` (of the nearer
        of the two hashes, 0..64 bits), ``split_a``, ``split_b``, ``label_a``, ``label_b``.

    Raises:
        ValueError: images and manifest differ in length.
    """
    if len(images) != len(manifest):
        raise ValueError(f"{len(images)} images for {len(manifest)} rows of the manifest")
    if cache is None:
        return _table(_search(images, manifest), manifest)
    folder = kept(
        cache / "copies" / _key(manifest),
        lambda partial: np.savez(partial / "copies.npz", **_search(images, manifest)._asdict()),
    )
    with np.load(folder / "copies.npz") as columns:
        return _table(_Copies(**columns), manifest)


def _key(manifest: pd.DataFrame) -> str:
    """What a search depends on, as SHA-256 (hex, 32 digits): the content of the files."""
    rules = json.dumps([FORMAT, store.made_with(), COPY_SIZE, HASH_BITS, CORRELATION, RANK_CORRELATION])
    return hashlib.sha256("\n".join([rules, *manifest["sha256"]]).encode()).hexdigest()[:32]


def _search(images: Rows, manifest: pd.DataFrame) -> _Copies:
    files = link(manifest, ("sha256",))
    hash_of, values, ranks = _fingerprints(images)
    a, b = _candidates(files, hash_of, values, ranks)
    bits, exact = hash_distance(hash_of[a], hash_of[b]), files[a] == files[b]
    correlation, rank_correlation = _correlations(images, a, b)
    alike = (bits <= HASH_BITS) & ((correlation >= CORRELATION) | (rank_correlation >= RANK_CORRELATION))
    return _Copies(*(column[exact | alike] for column in (a, b, exact, correlation, bits)))


def _table(found: _Copies, manifest: pd.DataFrame) -> pd.DataFrame:
    """What :func:`find_copies` returns."""
    a, b = found.a, found.b
    ids = manifest["image_id"].to_numpy(object)
    swap = ids[a] > ids[b]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
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


def copy_groups(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Name the groups of copies, so that a split keeps each of them together.

    Args:
        pairs: from :func:`find_copies`.
        manifest: the manifest that was searched; groups that it has already are kept, or joined by a copy.

    Returns:
        The manifest with ``group_id`` filled for images that have a copy: the first ``image_id`` of the group.
    """
    numbers = link(manifest, ("group_id",))
    row = pd.Series(np.arange(len(manifest)), index=manifest["image_id"])
    a, b = row[pairs["image_id_a"]].to_numpy(), row[pairs["image_id_b"]].to_numpy()
    groups = components(len(manifest), numbers[a], numbers[b])[numbers]
    ids = manifest["image_id"].groupby(groups)
    named = (ids.transform("size") > 1) | manifest["group_id"].notna()
    return manifest.assign(group_id=ids.transform("min").where(named).astype("string"))


def _fingerprints(images: Rows) -> tuple[HashArray, FloatArray, FloatArray]:
    """Hashes ``(N, 2)``, projected grey values and ranks ``(N, 49)`` of all images."""

    def of_block(start: int) -> tuple[HashArray, FloatArray, FloatArray]:
        small = _small(images[np.arange(start, min(start + _FINGERPRINTS, len(images)))])
        return hashes(small), project(grey_values(small)), project(grey_ranks(small))

    with ThreadPoolExecutor(processors()) as pool:
        parts = pool.map(of_block, range(0, len(images), _FINGERPRINTS))
    hash_of, values, ranks = (np.concatenate(column) for column in zip(*parts, strict=True))
    return hash_of, values, ranks


def _candidates(files: IntArray, hash_of: HashArray, values: FloatArray, ranks: FloatArray) -> _Pairs:
    """Pairs of rows that are one file, or that the fingerprints let pass: ``a < b``, sorted, each once."""
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
    """Correlation of the grey values and of the ranks of each pair, ``(P,)`` each."""
    correlation, rank_correlation = np.empty(len(a), np.float32), np.empty(len(a), np.float32)
    # Pairs of images that hang together come after each other, so that an image is read few times.
    order = np.argsort(components(len(images), a, b)[a], kind="stable")
    for start in range(0, len(order), _BLOCK):
        pairs = order[start : start + _BLOCK]
        rows, places = np.unique(np.stack([a[pairs], b[pairs]]), return_inverse=True)
        first, second = places.reshape(2, -1)
        small = _small(images[rows])
        for result, vectors in ((correlation, grey_values(small)), (rank_correlation, grey_ranks(small))):
            result[pairs] = np.vecdot(vectors[first], vectors[second])
    return correlation, rank_correlation


def _small(images: UInt8Array) -> UInt8Array:
    """At the size at which images are compared, ``(n, 64, 64)``."""
    if images.shape[1:] == COPY_SIZE:
        return images
    return resize_all(images, COPY_SIZE, "stretch")
