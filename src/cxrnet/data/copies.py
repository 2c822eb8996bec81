"""The search for copies: one radiograph under two names, told by its content.

Public collections took images from publications and from each other, re-encoded, resized and with another
contrast, so a test image often stands in train too. Two images count as near copies when

* their perceptual or their difference hash differs in at most 4 of 64 bits, and
* their 64 x 64 versions correlate at 0.98 or more, or the ranks of their 32 x 32 versions at 0.985 or more. Ranks
  bear a change of contrast, which plain correlation does not.

With 10 bits instead of 4, pairs appear that are two radiographs of one patient; with a rank correlation of 0.97,
pairs of different synthetic patients (up to 0.978, where the true copies in covid19_image have 0.990 and more).
What is found is a lower bound:
copies that were cut by more than a few per cent, turned or mirrored escape.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.fft import dctn
from scipy.stats import rankdata

from cxrnet.data.decode import UInt8Array
from cxrnet.data.images import resize
from cxrnet.linking import components, link

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

COPY_SIZE = (64, 64)  # at which images are compared
HASH_BITS = 4
CORRELATION = 0.98
RANK_CORRELATION = 0.985

_BLOCK = 1024  # images that are compared with all others at a time


def find_copies(images: UInt8Array, manifest: pd.DataFrame) -> pd.DataFrame:
    """Find exact and near copies among the images of a manifest.

    Args:
        images: in the order of the manifest's rows, ``(N, H, W) uint8``; best at ``COPY_SIZE``, straight from the file.
        manifest: a manifest; exact copies are told by ``sha256``, where it is known.

    Returns:
        One row a pair, sorted: ``image_id_a``, ``image_id_b``, ``kind`` (``exact``: the same file, ``near``: the
        same picture), ``correlation`` (Pearson, of the 64 x 64 versions, -1..1), ``hash_distance`` (of the nearer
        of the two hashes, 0..64 bits), ``split_a``, ``split_b``, ``label_a``, ``label_b``.

    Raises:
        ValueError: images and manifest differ in length.
    """
    if len(images) != len(manifest):
        raise ValueError(f"{len(images)} images for {len(manifest)} rows of the manifest")
    files = link(manifest, ("sha256",))
    small = np.stack([resize(image, COPY_SIZE, "stretch") for image in images])
    parts = [(a, b, files[a] == files[b], correlation, bits) for a, b, correlation, bits in _alike(small, files)]
    a, b, exact, correlation, bits = (np.concatenate(column) for column in zip(*parts, strict=True))
    ids = manifest["image_id"].to_numpy(object)
    swap = ids[a] > ids[b]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    pairs = pd.DataFrame(
        {
            "image_id_a": pd.array(ids[a], "string"),
            "image_id_b": pd.array(ids[b], "string"),
            "kind": pd.array(np.where(exact, "exact", "near"), "string"),
            "correlation": correlation,
            "hash_distance": bits,
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


def _alike(small: UInt8Array, files: IntArray) -> Iterator[tuple[IntArray, IntArray, FloatArray, IntArray]]:
    """Pairs of rows that are copies, with their correlation and hash distance, block by block.

    Args:
        small: ``(N, 64, 64) uint8``.
        files: equal numbers for equal files, ``(N,)``.
    """
    n = len(small)
    thumbnails = small.reshape(n, 32, 2, 32, 2).mean(axis=(2, 4), dtype=np.float32)
    perceptual, difference = _perceptual_hash(thumbnails), _difference_hash(small)
    values = _standardise(small.reshape(n, -1))
    ranks = _standardise(rankdata(thumbnails.reshape(n, -1), axis=1))
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        agreement = np.maximum(perceptual[rows] @ perceptual[start:].T, difference[rows] @ difference[start:].T)
        bits = (64 - agreement) / 2
        correlation = values[rows] @ values[start:].T
        rank_correlation = ranks[rows] @ ranks[start:].T
        same_picture = (correlation >= CORRELATION) | (rank_correlation >= RANK_CORRELATION)
        copies = (bits <= HASH_BITS) & same_picture | (files[rows, None] == files[None, start:])
        a, b = np.nonzero(np.triu(copies, k=1))
        yield a + start, b + start, correlation[a, b], bits[a, b].astype(np.int64)


def _perceptual_hash(thumbnails: FloatArray) -> FloatArray:
    """Signs (-1, 1) of the 8 x 8 lowest frequencies against their median: 64 bits as ``(N, 64)``."""
    low = dctn(thumbnails, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(thumbnails), 64)
    return _signs(low > np.median(low, axis=1, keepdims=True))


def _difference_hash(small: UInt8Array) -> FloatArray:
    """Signs (-1, 1) of the differences between neighbours in a row, 8 rows of 9: 64 bits as ``(N, 64)``."""
    tiny = np.stack([resize(image, (8, 9), "stretch") for image in small])
    return _signs(tiny[:, :, 1:] > tiny[:, :, :-1]).reshape(len(small), 64)


def _signs(bits: npt.NDArray[np.bool_]) -> FloatArray:
    return np.where(bits, np.float32(1), np.float32(-1))


def _standardise(values: npt.NDArray[np.generic]) -> FloatArray:
    """Rows of mean 0 and length 1, so that a product of two is their correlation; constant rows become 0."""
    rows = values.astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    return rows
