"""Which images may show the same picture: the nearest neighbours of each, in several places and by several parts.

An image is compared as it is and turned, enlarged and mirrored: what crops, borders and rotations do to one of a pair is
undone in the other, to within what its descriptors bear. A pair is a candidate where two of the halves of either image
say so: an image has one nearest neighbour by each half, which agree by chance in 4 of 10 images and in nearly all copies.

Nearest neighbours are looked for in the nearest cells of a k-means partition (an inverted file, Jegou et al. 2011). The
cells have the same size in sets of any size, so that all but finding an image's cells is linear in their number.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array
from sklearn.cluster import KMeans

from cxrnet.data.duplicates.descriptors import DIMENSIONS, HALVES, SIDE, FloatArray, IntArray, Views, learn
from cxrnet.data.duplicates.geometry import affine

# How an image is looked at: enlarged so much, turned by so many degrees. The first is as it is.
PLACES = tuple((zoom, angle) for zoom in (1.0, 1.07, 1.18) for angle in (0.0, -3.0, 3.0))

_VOTES = 2  # halves of either image that must agree
_FEW = 64  # images among which one is enough
_CELL = 48  # views in a cell, on average
_PROBES = 8  # cells that are looked into
_TAUGHT = 20  # views a cell, from which the partition is made
_BLOCK = 2048  # views at a time
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


class _Nearest(NamedTuple):
    """The nearest neighbour of each image by each half, ``(N, 4)`` each; a distance of infinity where there is none."""

    distance: FloatArray
    query: IntArray  # view of the image
    found: IntArray  # view of the neighbour
    place: IntArray  # how the image was looked at, of both signs


def find_candidates(views: Views, count: int) -> Candidates:
    """Find the pairs of ``count`` images that may show the same picture."""
    looks = [affine(zoom, angle, mirrored=mirrored) for mirrored in (False, True) for zoom, angle in PLACES]
    nearest = _nearest(views, count, looks)
    image, half = np.nonzero(np.isfinite(nearest.distance))
    distance, query, found, place = (column[image, half] for column in nearest)
    pair = np.sort(np.stack([views.image[query], views.image[found]]), axis=0)
    votes = pd.DataFrame({"pair": pair[0] * count + pair[1], "distance": distance})
    enough = votes.groupby("pair")["pair"].transform("size") >= (_VOTES if count > _FEW else 1)
    best = votes[enough].sort_values("distance", kind="stable").drop_duplicates("pair").index.to_numpy()
    sign, look = np.divmod(place[best], len(looks))
    theta = np.stack(looks)[look] if len(best) else np.empty((0, 2, 3), np.float32)
    return Candidates(found[best], query[best], theta, (1 - 2 * sign).astype(np.int8))


def _nearest(views: Views, count: int, looks: list[FloatArray]) -> _Nearest:
    shape = (count, len(HALVES))
    nearest = _Nearest(np.full(shape, np.inf, np.float32), *(np.zeros(shape, np.int64) for _ in range(3)))
    if len(views.image) < 2:
        return nearest
    flat = views.maps.reshape(len(views.maps), -1)
    moves = [_weights(look) for look in looks]
    for half, projection in enumerate(learn(views)):
        described = np.concatenate(
            [flat[start : start + _BLOCK].astype(np.float32) @ projection.T for start in range(0, len(flat), _BLOCK)]
        )
        cells = _Cells(described, views.image)
        looked = np.concatenate([(move.T @ projection.T).T for move in moves])
        for start in range(0, len(flat), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(flat)))
            rows = np.concatenate([rows, rows[views.unsure[rows]]])  # these also with the other sign
            sign = np.where(np.arange(len(rows)) < min(_BLOCK, len(flat) - start), 0, 1)
            queries = (flat[rows].astype(np.float32) @ looked.T).reshape(len(rows), 2, len(PLACES), DIMENSIONS)
            queries[sign == 1] *= -1
            _keep_nearest(nearest, half, views, rows, sign, cells.search(queries, views.image[rows]))
    return nearest


def _keep_nearest(
    nearest: _Nearest,
    half: int,
    views: Views,
    rows: IntArray,
    sign: IntArray,
    hits: tuple[IntArray, FloatArray, IntArray, IntArray],
) -> None:
    """Keep the nearest of the hits of each image, and of what was nearest before."""
    query, distance, found, place = hits
    image = views.image[rows[query]]
    order = np.lexsort((distance, image))
    first = order[np.flatnonzero(np.diff(image[order], prepend=-1))]
    first = first[(distance[first] < nearest.distance[image[first], half]) & (distance[first] < _OWN / 2)]
    here = image[first]
    nearest.distance[here, half] = distance[first]
    nearest.query[here, half] = rows[query[first]]
    nearest.found[here, half] = found[first]
    nearest.place[here, half] = place[first] + sign[query[first]] * 2 * len(PLACES)


class _Cells:
    """Descriptors ``(V, 32)`` of the views of images ``(V,)``, in cells."""

    def __init__(self, described: FloatArray, image: IntArray) -> None:
        number = max(1, len(described) // _CELL)
        if number > _PROBES:
            rng = np.random.default_rng(0)
            taught = described[np.sort(rng.permutation(len(described))[: number * _TAUGHT])]
            means = KMeans(number, init="random", n_init=1, max_iter=4, random_state=0).fit(taught).cluster_centers_
        else:
            number, means = 1, described[:1]
        self.means: FloatArray = means.astype(np.float32)
        cell = np.concatenate([self._near(described[k : k + _BLOCK], 1)[:, 0] for k in range(0, len(described), _BLOCK)])
        self.order = np.argsort(cell, kind="stable")
        self.ends = np.cumsum(np.bincount(cell, minlength=number))
        lengths = (described**2).sum(axis=1, keepdims=True)
        # With these, a product is a squared distance: (-2 q, |q|^2, 1) . (x, 1, |x|^2).
        self.described = np.concatenate([described, np.ones_like(lengths), lengths], axis=1)[self.order]
        self.image = image[self.order]

    def _near(self, described: FloatArray, number: int) -> IntArray:
        """Find the nearest cells, ``(Q, number)``, in no order."""
        distance = (self.means**2).sum(axis=1) - 2 * described @ self.means.T
        if number >= len(self.means):
            return np.tile(np.arange(len(self.means)), (len(described), 1))
        return np.argpartition(distance, number - 1, axis=1)[:, :number]

    def search(self, queries: FloatArray, image: IntArray) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
        """Find the nearest view of another image in each of the nearest cells.

        Args:
            queries: ``(Q, 2, L, 32)``: as they are and mirrored, in L places; the first of them says where to look.
            image: of each query, ``(Q,)``.

        Returns:
            For each look into a cell ``(H,)``: the query, the squared distance, the view, and the place, 0..2 L - 1.
        """
        count, _, places, size = queries.shape
        queries = queries.reshape(2 * count, places, size)
        lengths = (queries**2).sum(axis=2, keepdims=True)
        queries = np.concatenate([-2 * queries, lengths, np.ones_like(lengths)], axis=2)
        cells = self._near(queries[:, 0, :size] / -2, _PROBES)
        look = np.argsort(cells.ravel(), kind="stable")
        row, ends = look // cells.shape[1], np.cumsum(np.bincount(cells.ravel(), minlength=len(self.means)))
        distance, found, place = np.empty(len(row), np.float32), np.empty(len(row), np.int64), np.empty(len(row), np.int64)
        begin = 0
        for cell, end in enumerate(ends):
            inside = slice(self.ends[cell - 1] if cell else 0, self.ends[cell])
            if end > begin and inside.stop > inside.start:
                rows, others = row[begin:end], self.described[inside]
                product = (queries[rows].reshape(-1, size + 2) @ others.T).reshape(len(rows), places, -1)
                product += np.where(image[rows // 2, None] == self.image[inside], _OWN, np.float32(0))[:, None]
                product = product.reshape(len(rows), -1)
                nearest = product.argmin(axis=1)
                distance[begin:end] = product[np.arange(len(rows)), nearest]
                place[begin:end], column = np.divmod(nearest, len(others))
                found[begin:end] = self.order[inside][column]
            elif end > begin:
                distance[begin:end] = _OWN
            begin = end
        return row // 2, distance, found, place + row % 2 * places


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
