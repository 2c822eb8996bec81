"""Which images may show the same picture: the nearest neighbours of each, in several places and by several parts.

An image is compared as it is and turned, enlarged and mirrored: what crops, borders and rotations do to one of a pair
is undone in the other, to within what descriptors bear. An image has one nearest neighbour by each half of it. A pair
is a candidate where two of the halves of its images say so: by chance that is so of 3 images in 10, and of nearly all
copies.

Nearest neighbours are looked for in the nearest cells of a k-means partition (an inverted file, Jegou et al. 2011). The
cells have the same size in sets of any size. Where there are many, an image's cells are looked for among those beside
the nearest of a few parts of them, so that this too grows less than with the square of the images.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import csr_array
from sklearn.cluster import KMeans

from cxrnet.data.duplicates.descriptors import DIMENSIONS, SIDE, FloatArray, IntArray, Views, learn
from cxrnet.data.duplicates.geometry import affine

# How an image is looked at: enlarged so much, turned by so many degrees. The first is as it is.
# A pair whose images lie 3 degrees apart is found from one of them, so that the other sense is only needed enlarged.
PLACES = ((1.0, 0.0), (1.0, 3.0), *((zoom, angle) for zoom in (1.07, 1.18) for angle in (0.0, -3.0, 3.0)))

_VOTES = 2  # halves of either image that must agree
_FEW = 64  # images among which one is enough
_CELL = 48  # views in a cell, on average
_PROBES = 16  # cells that are looked into
_TAUGHT = 10  # views a cell, from which the partition is made
_MANY = 500  # cells, from which on they are looked for in two steps
_PARTS = 4  # parts of the cells, times the root of their number
_BESIDE = 400  # cells among which an image's are looked for then: those nearest to the middle of its part
_BLOCK = 16384  # views at a time: each cell takes the time of a call, however few look into it
_ROWS = 1024  # points whose distances to all means are in memory at a time
_OWN = np.float32(1e9)  # the distance to the image itself


class Candidates(NamedTuple):
    """Pairs of views, ``(P,)`` each, once for every pair of images.

    Attributes:
        fixed: one view.
        moving: the other one.
        theta: the map from the first to the second, about, ``(P, 2, 3)``.
        sign: -1 where one map is the other's negative.
    """

    fixed: IntArray
    moving: IntArray
    theta: FloatArray
    sign: npt.NDArray[np.int8]


class Index:
    """The views of ``count`` images by their descriptors, one partition a half."""

    def __init__(self, views: Views, count: int) -> None:
        self.views, self.count = views, count
        self.looks = [affine(zoom, angle, mirrored=mirrored) for mirrored in (False, True) for zoom, angle in PLACES]
        moves = [_weights(look) for look in self.looks]
        self.halves = []
        for projection in learn(views) if len(views.image) > 1 else []:
            described = np.concatenate([maps @ projection.T for _, maps in self._blocks(np.arange(len(views.image)))])
            looked = np.concatenate([(move.T @ projection.T).T for move in moves])
            self.halves.append((looked, _Cells(described)))

    def _blocks(self, rows: IntArray) -> Iterator[tuple[IntArray, FloatArray]]:
        """Take views block by block: their places, and their maps ``(n, 1024)``."""
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            yield block, self.views.maps[block].reshape(len(block), -1).astype(np.float32)

    def find(self, group: IntArray, asked: npt.NDArray[np.bool_]) -> Candidates:
        """Find pairs of images that may show the same picture.

        Args:
            group: the number of each image's group, ``(count,)``; no pairs are looked for within one.
            asked: the images whose neighbours are looked for, ``(count,)``.
        """
        rows = np.flatnonzero(asked[self.views.image])
        hits = [
            self._hits(half, block, maps, group)
            for half in range(len(self.halves))
            for block, maps in self._blocks(np.concatenate([rows, ~rows[self.views.unsure[rows]]]))
        ]
        votes = pd.concat(hits, ignore_index=True) if hits else pd.DataFrame(columns=["half", "query", "distance"])
        return self._agreed(votes.sort_values("distance", kind="stable"))

    def _hits(self, half: int, rows: IntArray, maps: FloatArray, group: IntArray) -> pd.DataFrame:
        """Find the nearest view of another group for each image by one half; ``~row`` asks with the other sign."""
        looked, cells = self.halves[half]
        sign = np.where(rows < 0, -1, 1).astype(np.float32)
        query = np.where(rows < 0, ~rows, rows)
        queries = (maps @ looked.T * sign[:, None]).reshape(len(rows), 2, len(PLACES), DIMENSIONS)
        image = self.views.image
        number, distance, found, place = cells.search(queries, group[image[query]], group[image])
        hits = {"half": half, "query": query[number], "found": found, "look": place, "sign": sign[number]}
        table = pd.DataFrame({**hits, "distance": distance, "image": image[query[number]]})
        table = table[table["distance"] < _OWN / 2].sort_values("distance", kind="stable")
        return table.drop_duplicates("image")

    def _agreed(self, hits: pd.DataFrame) -> Candidates:
        """Keep the pairs that enough halves agree on, as the nearest of their hits has them."""
        if hits.empty:
            none = np.empty(0, np.int64)
            return Candidates(none, none, np.empty((0, 2, 3), np.float32), np.empty(0, np.int8))
        hits = hits.drop_duplicates(["half", "image"])
        ends = np.sort([self.views.image[hits[name].to_numpy(np.int64)] for name in ("query", "found")], axis=0)
        pair = pd.Series(ends[0] * self.count + ends[1], index=hits.index)
        hits = hits[(pair.map(pair.value_counts()) >= (_VOTES if self.count > _FEW else 1)) & ~pair.duplicated()]
        look = hits["look"].to_numpy(np.int64)
        fixed, moving = (hits[name].to_numpy(np.int64) for name in ("found", "query"))
        return Candidates(fixed, moving, np.stack(self.looks)[look], hits["sign"].to_numpy(np.int8))


class _Cells:
    """Descriptors ``(V, 32)`` of views, in cells."""

    def __init__(self, described: FloatArray) -> None:
        number = max(1, len(described) // _CELL)
        if number > _PROBES:
            rng = np.random.default_rng(0)
            taught = described[np.sort(rng.permutation(len(described))[: number * _TAUGHT])]
            means = KMeans(number, init="random", n_init=1, max_iter=4, random_state=0).fit(taught).cluster_centers_
        else:
            number, means = 1, described[:1]
        self.means: FloatArray = means.astype(np.float32)
        self.parts: tuple[FloatArray, IntArray] | None = self._in_parts() if number > _MANY else None
        cell = np.concatenate(
            [self._near(described[k : k + _BLOCK], 1)[:, 0] for k in range(0, len(described), _BLOCK)]
        )
        self.order = np.argsort(cell, kind="stable")
        self.ends = np.cumsum(np.bincount(cell, minlength=number))
        lengths = (described**2).sum(axis=1, keepdims=True)
        # With these, a product is a squared distance: (-2 q, |q|^2, 1) . (x, 1, |x|^2).
        self.described = np.concatenate([described, np.ones_like(lengths), lengths], axis=1)[self.order]

    def _in_parts(self) -> tuple[FloatArray, IntArray]:
        """Divide the cells: the middles of the parts, ``(P, 32)``, and the cells beside each, ``(P, _BESIDE)``."""
        parts = KMeans(int(_PARTS * len(self.means) ** 0.5), init="random", n_init=1, max_iter=4, random_state=0)
        middles: FloatArray = parts.fit(self.means).cluster_centers_.astype(np.float32)
        return middles, _nearest(middles, self.means, _BESIDE)

    def _near(self, described: FloatArray, number: int) -> IntArray:
        """Find the nearest cells, ``(Q, number)``, in no order."""
        if self.parts is None:
            return _nearest(described, self.means, number)
        middles, beside = self.parts
        part = _nearest(described, middles, 1)[:, 0]
        order = np.argsort(part, kind="stable")
        found = np.empty((len(described), number), np.int64)
        for rows in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
            cells = beside[part[rows[0]]]
            found[rows] = cells[_nearest(described[rows], self.means[cells], number)]
        return found

    def search(
        self, queries: FloatArray, group: IntArray, groups: IntArray
    ) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        """Find the nearest view of another group in each of the nearest cells.

        Args:
            queries: ``(Q, 2, L, 32)``: as they are and mirrored, in L places; the first of them says where to look.
            group: group of each query, ``(Q,)``.
            groups: group of each view, ``(V,)``.

        Returns:
            For each look into a cell ``(H,)``: the query, the squared distance, the view, and the place, 0..2 L - 1.
        """
        count, _, places, size = queries.shape
        queries = queries.reshape(2 * count, places, size)
        lengths = (queries**2).sum(axis=2, keepdims=True)
        queries = np.concatenate([-2 * queries, lengths, np.ones_like(lengths)], axis=2, dtype=np.float32)
        cells = self._near(queries[:, 0, :size] * np.float32(-0.5), _PROBES)
        look = np.argsort(cells.ravel(), kind="stable")
        row, ends = look // cells.shape[1], np.cumsum(np.bincount(cells.ravel(), minlength=len(self.means)))
        distance, found, place = (
            np.empty(len(row), np.float32),
            np.empty(len(row), np.int64),
            np.empty(len(row), np.int64),
        )
        begin, groups = 0, groups[self.order]
        for cell, end in enumerate(ends):
            inside = slice(self.ends[cell - 1] if cell else 0, self.ends[cell])
            if end > begin and inside.stop > inside.start:
                rows, others = row[begin:end], self.described[inside]
                product = (queries[rows].reshape(-1, size + 2) @ others.T).reshape(len(rows), places, -1)
                product += np.where(group[rows // 2, None] == groups[inside], _OWN, np.float32(0))[:, None]
                product = product.reshape(len(rows), -1)
                nearest = product.argmin(axis=1)
                distance[begin:end] = product[np.arange(len(rows)), nearest]
                place[begin:end], column = np.divmod(nearest, len(others))
                found[begin:end] = self.order[inside][column]
            elif end > begin:
                distance[begin:end] = _OWN
            begin = end
        return row // 2, distance, found, place + row % 2 * places


def _nearest(points: FloatArray, means: FloatArray, number: int) -> IntArray:
    """Find the means ``(M, 32)`` that are nearest to each of the points ``(Q, 32)``: ``(Q, number)``, in no order."""
    if number >= len(means):
        return np.tile(np.arange(len(means)), (len(points), 1))
    to = torch.from_numpy(means)
    lengths, turned = to.square().sum(dim=1), to.T
    near = []
    for block in torch.split(torch.from_numpy(np.ascontiguousarray(points)), _ROWS):
        distance = torch.addmm(lengths, block, turned, alpha=-2)
        one = number == 1  # for which it is several times as fast
        near.append(distance.argmin(1, keepdim=True) if one else distance.topk(number, largest=False, sorted=False)[1])
    return torch.cat(near).numpy() if near else np.empty((0, number), np.int64)


def _weights(look: FloatArray) -> csr_array:
    """Make the matrix ``(1024, 1024)`` that looks at maps through an affine map, linear between pixels."""
    place = (np.arange(SIDE) + 0.5) * 2 / SIDE - 1
    y, x = np.meshgrid(place, place, indexing="ij")
    at = [((row[0] * x + row[1] * y + row[2] + 1) * SIDE / 2 - 0.5).clip(0, SIDE - 1.001) for row in look]
    (left, top), (right, below) = (each.astype(np.int64) for each in at), (each % 1 for each in at)
    pixels = np.arange(SIDE * SIDE)
    columns = [(top + down) * SIDE + left + across for down in (0, 1) for across in (0, 1)]
    weights = [abs(1 - down - below) * abs(1 - across - right) for down in (0, 1) for across in (0, 1)]
    entries = np.concatenate([each.ravel() for each in weights]).astype(np.float32)
    ends = np.tile(pixels, 4), np.concatenate([each.ravel() for each in columns])
    return csr_array((entries, ends), shape=(len(pixels), len(pixels)))
