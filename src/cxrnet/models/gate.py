"""The gate: whether an image looks like those that a network was trained on, by the network's own features.

A classifier has a class for everything, a photograph too. Two distances tell what it wasn't trained on: that of the
features from the plane of the main directions of the training images' features (the residual of a principal component
analysis, Wang et al. 2022, doi:10.1109/CVPR52688.2022.00487), and the cosine distance to the nearest of them (Sun et
al. 2022, arXiv:2204.06507). Each is taken as its logarithm and standardised by what training images have that were left
out with their patients; an image is turned away where the sum is above all but ``ALARM`` of these, or the second
distance alone is above nearly all. docs/gate.md has the measurements that this was chosen by.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh
from sklearn.model_selection import GroupKFold
from torch.nn import functional

TURNED_AWAY = "does not look like a frontal chest radiograph"
"""What is said of an image that the gate turns away."""
INVERTED = "its negative does: bones are dark in it"
"""What is said besides where that holds."""

ALARM = 0.01  # share of left-out training images above the threshold
_ALARM_NEAREST = 0.002  # and of the second one
DIRECTIONS = 32  # main directions of the features
_WIDTH = 2048  # features at most: more are averaged, which for flattened maps is over neighbouring pixels
THUMBNAIL = (96, 96)  # pixels
LIMIT = 1000  # training images at most
FEWEST = 60  # and at least: main directions and a tail of 1 % can't be known of fewer
_FOLDS = 5
_LEAST = 1e-6

FloatArray = npt.NDArray[np.float32]
_ARRAYS = ("mean", "directions", "nearest", "labels")
_THUMBNAILS = "thumbnails"
_NUMBERS = ("centre", "spread", "limits")


@dataclass(frozen=True)
class Gate:
    """A fitted gate; W features, averaged down from those of the network where it has more.

    Attributes:
        mean: of the training images' features, ``(W,) float32``.
        directions: main ones, ``(32, W) float16``, orthonormal.
        nearest: features of training images, of length 1, ``(N, W) float16``, N at most 1,000.
        labels: places of their classes, ``(N,) int16``.
        centre: medians of the logarithms of both distances, of training images that were left out.
        spread: standard deviations of them.
        limits: of the sum of both, standardised, and of the second one, above which an image is turned away.
        thumbnails: the same images, small, ``(N, T, T) uint8``; ``None`` where none may leave the house.
    """

    mean: FloatArray
    directions: npt.NDArray[np.float16]
    nearest: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int16]
    centre: tuple[float, float]
    spread: tuple[float, float]
    limits: tuple[float, float]
    thumbnails: npt.NDArray[np.uint8] | None = None

    def most_like(self, features: FloatArray, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Find the training images that are most like one image by its features, ``(1, F) float32``.

        Returns:
            Their places, the most like first, ``(count,)``, and the cosines of their features.
        """
        cosines = (_of_length_1(_narrow(features)) @ self.nearest.astype(np.float32).T)[0].astype(np.float64)
        places = np.argsort(-cosines, kind="stable")[:count]
        return places, cosines[places]

    def scores(self, features: FloatArray) -> npt.NDArray[np.float64]:
        """Say how strange images are by their features, ``(N, F) float32``: ``(N,)``, above 0 is turned away."""
        distances = _distances(_narrow(features), self.mean, self.directions, self.nearest)
        standard = (distances - self.centre) / self.spread
        return np.asarray(np.maximum(standard.sum(axis=1) - self.limits[0], standard[:, 1] - self.limits[1]))

    def turns_away(self, features: FloatArray) -> npt.NDArray[np.bool_]:
        """Tell which images aren't like those of the training, by their features ``(N, F) float32``."""
        return np.asarray(self.scores(features) > 0)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays, as a bundle keeps them."""
        names = _ARRAYS if self.thumbnails is None else (*_ARRAYS, _THUMBNAILS)
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in names}

    @property
    def numbers(self) -> dict[str, list[float]]:
        """The numbers, as a bundle keeps them."""
        return {name: list(getattr(self, name)) for name in _NUMBERS}

    @classmethod
    def read(cls, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, list[float]], width: int) -> "Gate":
        """Put a gate together again, for a network of ``width`` features.

        Raises:
            ValueError: a part is missing, or they don't fit each other or the network.
        """
        if set(tensors) - {_THUMBNAILS} != set(_ARRAYS) or set(numbers) != set(_NUMBERS):
            raise ValueError("its gate lacks a part")
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        pairs = {name: tuple(map(float, values)) for name, values in numbers.items()}
        fits = {len(values) for values in pairs.values()} == {2} and np.isfinite(list(pairs.values())).all()
        shape = {arrays["mean"].shape[-1], arrays["directions"].shape[-1], arrays["nearest"].shape[-1]}
        alike = len({len(arrays[name]) for name in arrays if name not in ("mean", "directions")}) == 1
        if not (fits and alike) or shape != {min(width, _WIDTH)} or min(pairs["spread"]) <= 0:
            raise ValueError("its gate doesn't fit the network")
        return cls(**arrays, **pairs)  # type: ignore[arg-type]


def fit_gate(
    features: FloatArray,
    groups: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int16] | None = None,
    thumbnails: npt.NDArray[np.uint8] | None = None,
) -> Gate | None:
    """Fit a gate.

    Args:
        features: of training and validation images, ``(N, F) float32``.
        groups: number of each image's patient and duplicate group, ``(N,)``: what is left out is left out with its
            group.
        labels: places of their classes, ``(N,)``; ``None``: all of the first one.
        thumbnails: the images, small, ``(N, T, T)``, to be kept in the bundle; ``None`` keeps none.

    Returns:
        ``None`` where there are fewer than :data:`FEWEST` images, or fewer than five groups.
    """
    narrow = _narrow(features)
    if len(narrow) < FEWEST or len(np.unique(groups)) < _FOLDS or not np.isfinite(narrow).all():
        return None
    left_out = np.empty((len(narrow), 2))
    for kept, out in GroupKFold(_FOLDS).split(narrow, groups=groups):
        left_out[out] = _distances(narrow[out], *_fitted(narrow[kept]))
    centre, spread = np.median(left_out, axis=0), np.maximum(left_out.std(axis=0), _LEAST)
    standard = (left_out - centre) / spread
    limits = np.quantile(standard.sum(axis=1), 1 - ALARM), np.quantile(standard[:, 1], 1 - _ALARM_NEAREST)
    a, b, c = ((float(each[0]), float(each[1])) for each in (centre, spread, limits))
    kept = np.zeros(len(narrow), np.int16) if labels is None else labels.astype(np.int16)
    return Gate(*_fitted(narrow), kept, centre=a, spread=b, limits=c, thumbnails=thumbnails)


def _narrow(features: FloatArray) -> FloatArray:
    """Average features ``(N, F)`` down to ``(N, 2048)`` where there are more."""
    if features.shape[1] <= _WIDTH:
        return features
    pooled: FloatArray = functional.adaptive_avg_pool1d(torch.from_numpy(features)[:, None], _WIDTH)[:, 0].numpy()
    return pooled


def _fitted(features: FloatArray) -> tuple[FloatArray, npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Find the mean, the main directions and the features of length 1 of images ``(N, W)``."""
    mean = features.mean(axis=0)
    centred, count = features - mean, min(DIRECTIONS, len(features) // 2)
    # By the products of the images, which are fewer than a singular value decomposition would take.
    sizes, images = eigh(
        (centred @ centred.T).astype(np.float64), subset_by_index=[len(centred) - count, len(centred) - 1]
    )
    directions = images.T @ centred / np.sqrt(np.maximum(sizes, _LEAST))[:, None]
    return mean, directions.astype(np.float16), _of_length_1(features).astype(np.float16)


def _distances(
    features: FloatArray, mean: FloatArray, directions: npt.NDArray[np.float16], nearest: npt.NDArray[np.float16]
) -> npt.NDArray[np.float64]:
    """Compute the logarithms of both distances, ``(N, 2)``."""
    centred = features - mean
    along = centred @ directions.astype(np.float32).T
    residual = (centred**2).sum(axis=1) - (along**2).sum(axis=1)
    cosine = (_of_length_1(features) @ nearest.astype(np.float32).T).max(axis=1)
    return np.log(np.maximum(np.stack([residual, 1 - cosine], axis=1).astype(np.float64), _LEAST))


def _of_length_1(features: FloatArray) -> FloatArray:
    lengths = np.sqrt((features**2).sum(axis=1, keepdims=True))
    return np.asarray(features / np.maximum(lengths, np.float32(_LEAST)))
