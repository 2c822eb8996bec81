"""The bootstrap: what is drawn, and how often each row counts in each resample.

Images of one patient are alike, so a resample draws patients, with all their images (Davison & Hinkley 1997, section
3.8). It draws as many patients of each label as the table has: the figures are then of this mix of classes, and no
class is lost from a resample. A resample is a row of whole numbers, the times that each image counts, so that figures
are computed for many resamples at once, and for two tables of the same images on the same resamples.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import LEAST
from cxrnet.linking import known_cells, link

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Key = TypeVar("Key")

# Weights computed at once: 8 MB, which the cache of a processor holds in part.
BLOCK = 1_000_000


@dataclass(frozen=True)
class Units:
    """What is drawn as a whole.

    Attributes:
        of_row: the unit of each row, ``(N,)``.
        stratum: of each unit, ``(U,)``. Units are drawn in place of others of their stratum.
        kind: ``patient``, ``group of copies`` or ``image``.
    """

    of_row: IntArray
    stratum: IntArray
    kind: str

    def count(self, rows: npt.NDArray[np.bool_]) -> int:
        """How many units the rows ``(N,)`` come from."""
        return len(np.unique(self.of_row[rows]))


def units_of(predictions: pd.DataFrame) -> Units:
    """Find the units of a table: the patients, the groups of copies where patients aren't known, or the images.

    Units are stratified by the labels of their images. Those that share their set of labels with no other unit form
    one stratum, or they would be in every resample.

    Args:
        predictions: the rows of one split, every label known; ``group_id`` may be missing.
    """
    kinds = {"patient_id": "patient", "group_id": "group of copies"}
    tying = [name for name in kinds if name in predictions and known_cells(predictions[name]).any()]
    of_row = link(predictions, tuple(tying)) if tying else np.arange(len(predictions))
    labels, names = pd.factorize(predictions["label"])
    has_label = np.zeros((of_row.max() + 1, len(names)), bool)
    has_label[of_row, labels] = True
    _, stratum = np.unique(has_label, axis=0, return_inverse=True)
    alone = np.bincount(stratum)[stratum] == 1
    stratum = pd.factorize(np.where(alone, -1, stratum))[0]
    return Units(of_row, stratum, kinds[tying[0]] if tying else "image")


def bootstrap(
    units: Units, statistic: Callable[[FloatArray], Mapping[Key, FloatArray]], resamples: int, seed: int
) -> dict[Key, FloatArray]:
    """Compute figures on resamples.

    Args:
        units: what is drawn.
        statistic: from weights ``(R, N)`` to named figures ``(R,)``.
        resamples: how many.
        seed: the same one gives the same resamples of the same units.

    Returns:
        The figures, ``(resamples,)`` each.

    Raises:
        CxrnetError: ``resamples`` is no whole number, or too small.
    """
    if not isinstance(resamples, int) or resamples < LEAST:
        raise CxrnetError(
            f"resamples: {resamples} won't do; give a whole number from {LEAST} on, or 0 for no intervals"
        )
    parts = [statistic(weights) for weights in draw(units, resamples, seed)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def draw(units: Units, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Draw resamples, a block at a time: how often each row counts, whole numbers, ``(R, N)``."""
    random = np.random.default_rng(seed)
    strata = [np.flatnonzero(units.stratum == number) for number in range(units.stratum.max() + 1)]
    block = max(1, BLOCK // len(units.of_row))
    for start in range(0, resamples, block):
        times = np.empty((min(block, resamples - start), len(units.stratum)))
        for members in strata:
            times[:, members] = _times(random, len(times), len(members))
        yield times[:, units.of_row]


def _times(random: np.random.Generator, resamples: int, size: int) -> IntArray:
    """Draw ``size`` of as many, with replacement: how often each was drawn, ``(resamples, size)``."""
    drawn = random.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size)
