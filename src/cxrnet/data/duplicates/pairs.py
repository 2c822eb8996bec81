"""The search: from images to pairs, and from pairs to groups.

images -> views -> candidates -> registered pairs -> all pairs of each group

Images with the same bytes, or the same 64 x 64 pixels, are looked for once and stand for each other. Only maps and
descriptors stay in memory, about 2 KB an image; pixels are read again for the few candidates that are registered.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.cache import kept
from cxrnet.core.grouping import components, link
from cxrnet.data.duplicates import candidates, evidence, geometry
from cxrnet.data.duplicates.candidates import Index
from cxrnet.data.duplicates.descriptors import FloatArray, IntArray, Rows, describe
from cxrnet.data.duplicates.evidence import KINDS, Evidence, measures
from cxrnet.data.images import store
from cxrnet.data.images.reader import Images

SEARCH_SIZE = (64, 64)  # at which images are compared

FORMAT = 3  # of a kept search and its rules: changes with the numbers of descriptors and candidates

_BLOCK = 1024  # images read at a time
_COMPLETED = 32  # images of a group of which all pairs are compared
_RECOMPRESSED = len(KINDS) - 1


class Found(NamedTuple):
    """Pairs by the places of their images, ``(P,)`` each, ``a < b``; they depend on the files alone.

    Attributes:
        a: the first image.
        b: the second one.
        kind: place in :data:`cxrnet.data.duplicates.evidence.KINDS`.
        correlation: correlation after registration, as in :class:`cxrnet.data.duplicates.evidence.Evidence`.
        covered: share of what both show that is covered.
        theta: affine map from a to b, ``(P, 2, 3)``.
        inverted: whether one is the other's negative.
    """

    a: IntArray
    b: IntArray
    kind: npt.NDArray[np.int8]
    correlation: FloatArray
    covered: FloatArray
    theta: FloatArray
    inverted: npt.NDArray[np.bool_]


def find_duplicates(images: Rows, manifest: pd.DataFrame, cache: Path | None = None) -> pd.DataFrame:
    """Find images of the same picture among those of a manifest.

    What was found when the images were written as shards, by the rules of today, is taken from there.

    Args:
        images: in the order of the manifest's rows, ``(N, 64, 64) uint8``, straight from the file.
        manifest: the same file is the same ``sha256``, where it is known.
        cache: folder that keeps the result for files of the same content in the same order, for which every
            ``sha256`` must be known; ``None`` keeps nothing.

    Returns:
        One row a pair, sorted: ``image_id_a``, ``image_id_b``, ``kind`` (one of
        :data:`cxrnet.data.duplicates.KINDS`: the first that applies, where several do), and the evidence:
        ``correlation`` (of local contrast after registration, without what is covered, -1..1), ``scale`` (how much
        larger b shows things), ``angle`` (degrees that b is turned by), ``shift_x``, ``shift_y`` (of its middle, shares
        of its side), ``covered`` (share of what both show), ``mirrored``, ``inverted``; ``split_a``, ``split_b``,
        ``label_a``, ``label_b``.
    """
    if len(images) != len(manifest):
        raise ValueError(f"{len(images)} images for {len(manifest)} rows of the manifest")
    noted = images.noted if isinstance(images, Images) else None
    if isinstance(images, Images) and noted is not None and noted.rules == rules():
        found = _among(images, noted.duplicates)
    elif cache is None:
        found = search(images, manifest)
    else:
        made_by = json.dumps([*store.made_with(), rules()])
        key = hashlib.sha256("\n".join([made_by, *manifest["sha256"]]).encode()).hexdigest()[:32]
        folder = kept(
            cache / "copies" / key,
            lambda partial: np.savez(partial / "copies.npz", **search(images, manifest)._asdict()),
        )
        with np.load(folder / "copies.npz") as columns:
            found = Found(**columns)
    return _table(found, manifest)


def _table(found: Found, manifest: pd.DataFrame) -> pd.DataFrame:
    """Name the images of pairs, the first in the order of the names first."""
    ids = manifest["image_id"].to_numpy(object)
    swap = ids[found.a] > ids[found.b]
    sides = {"a": np.where(swap, found.b, found.a), "b": np.where(swap, found.a, found.b)}
    theta = np.where(swap[:, None, None], geometry.inverse(found.theta), found.theta)
    scale, angle, across, down, mirrored = measures(theta)
    pairs = pd.DataFrame(
        {
            **{f"image_id_{side}": pd.array(ids[rows], "string") for side, rows in sides.items()},
            "kind": pd.array(np.array(KINDS, object)[found.kind], "string"),
            "correlation": found.correlation,
            "scale": scale,
            "angle": angle,
            "shift_x": across,
            "shift_y": down,
            "covered": found.covered,
            "mirrored": mirrored,
            "inverted": found.inverted,
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
    ids = manifest["image_id"]
    # Of the rows that are in a pair or a group alone: as Python's texts a million ids are hundreds of megabytes.
    paired = np.flatnonzero(ids.isin(pd.concat([pairs["image_id_a"], pairs["image_id_b"]])))
    row = pd.Series(paired, index=ids.iloc[paired])
    a, b = row[pairs["image_id_a"]].to_numpy(), row[pairs["image_id_b"]].to_numpy()
    groups = components(len(manifest), numbers[a], numbers[b])[numbers]
    named = np.flatnonzero((np.bincount(groups)[groups] > 1) | manifest["group_id"].notna().to_numpy(bool))
    first = pd.Series(pd.NA, manifest.index, dtype="string")
    first.iloc[named] = ids.iloc[named].groupby(groups[named]).transform("min")
    return manifest.assign(group_id=first)


def rules() -> str:
    """Name the rules by which duplicates are searched."""
    return json.dumps([FORMAT, SEARCH_SIZE, candidates.PLACES, evidence.limits()])


def _among(images: Images, found: Mapping[str, npt.NDArray[Any]]) -> Found:
    """Keep the pairs of which both images are in some rows of an array, by their places among them."""
    place = np.full(len(images.array), -1)
    place[images.rows] = np.arange(len(images))
    a, b = place[found["a"]], place[found["b"]]
    both = (a >= 0) & (b >= 0)
    return _ordered(Found(**{name: column[both] for name, column in {**found, "a": a, "b": b}.items()}))


def search(images: Rows, manifest: pd.DataFrame) -> Found:
    """Search the images of a manifest, as :func:`find_duplicates` does, and keep nothing."""
    if images[np.arange(0)].shape[1:] != SEARCH_SIZE:
        raise ValueError("duplicates are searched at 64 x 64 pixels, straight from the file")
    files = link(manifest, ("sha256",))
    same = link(pd.DataFrame({"file": files, "pixels": _pixels(images)}), ("file", "pixels"))
    order = np.argsort(same, kind="stable")
    ends = np.cumsum(np.bincount(same)) if len(same) else np.empty(0, np.int64)
    first = order[np.concatenate([[0], ends[:-1]]).astype(np.int64)] if len(same) else order
    pair, found = _complete(images, *_pairs(images, first))
    members = np.split(order, ends[:-1])
    return _ordered(_spread(pair, found, same, members, files))


def _pixels(images: Rows) -> pd.Series:
    """Name the pixels of each image; missing where it has one grey value only."""
    names: list[str | None] = []
    for start in range(0, len(images), _BLOCK):
        small = images[np.arange(start, min(start + _BLOCK, len(images)))]
        plain = small.min(axis=(1, 2)) == small.max(axis=(1, 2))
        names += [
            None if empty else hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
            for image, empty in zip(small, plain, strict=True)
        ]
    return pd.Series(names, dtype="string")


def _pairs(images: Rows, places: IntArray) -> tuple[IntArray, Evidence]:
    """Find pairs ``(2, P)`` among the images at some places, and their evidence.

    Of images that have a copy, the nearest others are looked for again: each has one nearest neighbour by each half.
    """
    views = describe(images, places)
    index = Index(views, len(images))
    group, asked = np.arange(len(images)), np.ones(len(images), bool)
    pairs, weights = [np.empty((2, 0), np.int64)], [evidence.nothing()]
    while asked.any():
        near = index.find(group, asked)
        left, weighed = evidence.weigh(images, views, near)
        same = weighed.same
        pairs.append(np.stack([views.image[near.fixed[left]], views.image[near.moving[left]]])[:, same])
        weights.append(evidence.right_way_round(images, pairs[-1], weighed.take(same)))
        group = components(len(images), *np.concatenate(pairs, axis=1))
        asked = np.isin(group, group[pairs[-1]])
    return np.concatenate(pairs, axis=1), evidence.together(weights)


def _complete(images: Rows, pair: IntArray, found: Evidence) -> tuple[IntArray, Evidence]:
    """Compare the pairs ``(2, P)`` of each group that are no candidates, by what lies between them.

    Each image has few candidates, so of a group of copies not every pair is one.
    """
    if not pair.size:
        return pair, found
    places, ends = np.unique(pair, return_inverse=True)
    ends = ends.reshape(pair.shape)
    group = components(len(places), *ends)
    known = set(map(tuple, np.sort(ends, axis=0).T.tolist()))
    # From the first image of each group to the others, edge by edge.
    theta = geometry.whole_maps(len(places))
    inverted, reached = np.zeros(len(places), bool), np.zeros(len(places), bool)
    reached[np.unique(group, return_index=True)[1]] = True
    back = geometry.inverse(found.theta)
    while True:
        new = np.flatnonzero(reached[ends[0]] != reached[ends[1]])
        if not len(new):
            break
        for edge in new.tolist():
            a, b = ends[:, edge]
            here, there, step = (a, b, found.theta) if reached[a] else (b, a, back)
            if not reached[there]:
                theta[there] = geometry.compose(theta[here][None], step[edge][None])[0]
                inverted[there], reached[there] = inverted[here] ^ found.inverted[edge], True
    missing = [
        (a, b)
        for rows in pd.Series(np.arange(len(places))).groupby(group).agg(list)
        if 2 < len(rows) <= _COMPLETED
        for k, a in enumerate(rows)
        for b in rows[k + 1 :]
        if (a, b) not in known
    ]
    if not missing:
        return pair, found
    a, b = np.array(missing).T
    between = geometry.compose(geometry.inverse(theta[a]), theta[b])
    whole = geometry.whole(len(a))
    more = evidence.compare(images, (places[a], places[b]), (whole, whole), between, inverted[a] ^ inverted[b])
    same = more.same
    joined = evidence.together([found, more.take(same)])
    return np.concatenate([pair, np.stack([places[a], places[b]])[:, same]], axis=1), joined


def _spread(pair: IntArray, found: Evidence, same: IntArray, members: list[IntArray], files: IntArray) -> Found:
    """Give what was found of one image to all that are the same, and pair these.

    Args:
        pair: the images that were compared, ``(2, P)``.
        found: their evidence.
        same: the number of each image's set of images that are the same, ``(N,)``.
        members: the images of each set.
        files: the number of each image's file, ``(N,)``.
    """
    rows = [np.empty((3, 0), np.int64)]
    for number, (a, b) in enumerate(pair.T.tolist()):
        first, second = members[same[a]], members[same[b]]
        every = np.repeat(first, len(second)), np.tile(second, len(first))
        rows.append(np.stack([*every, np.full(len(every[0]), number)]))
    a, b, number = np.concatenate(rows, axis=1)
    twins = [np.empty((2, 0), np.int64)]
    twins += [rows[np.stack(np.triu_indices(len(rows), 1))] for rows in members if len(rows) > 1]
    c, d = np.concatenate(twins, axis=1)
    kind = np.where(files[c] == files[d], 0, _RECOMPRESSED).astype(np.int8)
    none = np.zeros(len(c), np.float32)
    return Found(
        np.concatenate([a, c]),
        np.concatenate([b, d]),
        np.concatenate([found.kind[number], kind]),
        np.concatenate([found.correlation[number], none + 1]),
        np.concatenate([found.covered[number], none]),
        np.concatenate([found.theta[number], geometry.whole_maps(len(c))]),
        np.concatenate([found.inverted[number], none > 0]),
    )


def _ordered(found: Found) -> Found:
    """Put the image that comes first first, and sort the pairs."""
    swap = found.a > found.b
    found = found._replace(
        a=np.where(swap, found.b, found.a),
        b=np.where(swap, found.a, found.b),
        theta=np.where(swap[:, None, None], geometry.inverse(found.theta), found.theta),
    )
    order = np.lexsort((found.b, found.a))
    columns: list[npt.NDArray[Any]] = [column[order] for column in found]
    return Found(*columns)
