"""The bootstrap: what is drawn, and how often each row counts in each resample.

Images of one patient are alike, so a resample draws patients, with all their images (Davison & Hinkley 1997, section
3.8). It draws as many patients of each label as the table has: the metrics are then of this mix of classes, and no
class is lost from a resample but one that a single patient has. A resample is a row of whole numbers, the times that
each image counts, so that metrics are computed for many resamples at once, and for two tables of the same images on the
same resamples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.grouping import known_cells, link
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import Interval, on_log_odds, wilson
from cxrnet.evaluation.settings import LEAST

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Key = TypeVar("Key")

# Of the resamples. With fewer the interval would be of other tables than ours: those in which the class is predicted.
LEAST_DEFINED = 0.9
# Resamples that differ by less differ by rounding.
ROUNDING = 1e-9
# Weights computed at once: 8 MB, which the cache of a processor holds in part.
BLOCK = 1_000_000


@dataclass(frozen=True)
class Clusters:
    """The clusters of a table, each drawn as a whole.

    Attributes:
        of_row: the cluster of each row, ``(N,)``.
        stratum: of each cluster, ``(U,)``. Clusters are drawn in place of others of their stratum.
        kind: ``patient``, ``duplicate group`` or ``image``.
    """

    of_row: IntArray
    stratum: IntArray
    kind: str

    def count(self, rows: BoolArray) -> int:
        """Count the clusters that the rows ``(N,)`` come from."""
        return len(np.unique(self.of_row[rows]))

    def effective(self, rows: BoolArray) -> float:
        """Count the clusters of equal size that would tell as much as those of the rows ``(N,)``, 0 of no rows.

        Kish's (sum n)^2 / sum n^2 over their sizes n (Kish 1965, Survey Sampling, section 8.2; as degrees of freedom
        Carter, Schnepel & Steigerwald 2017, doi:10.1162/REST_a_00639): of clusters of equal size it is their number,
        of one with 30 images beside 10 with one each it is 1.8.
        """
        sizes = np.bincount(self.of_row[rows])
        return float(sizes.sum() ** 2 / (sizes @ sizes)) if len(sizes) else 0.0

    def cases(self, rows: BoolArray, share: float) -> float:
        """Count the cases that a share of rows ``(N,)`` is of, as if the images of a cluster went right together.

        For a share of 0 or 1 every cluster is a case; else clusters of many images weigh more than others.
        """
        return self.count(rows) if share in (0, 1) else self.effective(rows)


def clusters_of(predictions: pd.DataFrame) -> Clusters:
    """Find the clusters of a table: the patients, the duplicate groups where patients aren't known, or the images.

    Each is in the stratum of its rarest label, the one that the fewest clusters have, so that no class is lost from a
    resample. One that is alone in its stratum would be in every resample, as if it were certain: it is drawn with those
    of the largest stratum.

    Args:
        predictions: the rows of one split, every label known; ``group_id`` may be missing.
    """
    kinds = {"patient_id": "patient", "group_id": "duplicate group"}
    tying = [name for name in kinds if name in predictions and known_cells(predictions[name]).any()]
    of_row = link(predictions, tuple(tying)) if tying else np.arange(len(predictions))
    labels, names = pd.factorize(predictions["label"])
    has_label = np.zeros((of_row.max() + 1, len(names)), bool)
    has_label[of_row, labels] = True
    stratum = np.where(has_label, has_label.sum(axis=0), len(has_label) + 1).argmin(axis=1)
    sizes = np.bincount(stratum)
    stratum = pd.factorize(np.where(sizes[stratum] == 1, sizes.argmax(), stratum))[0]
    return Clusters(of_row, stratum, kinds[tying[0]] if tying else "image")


def bootstrap(
    clusters: Clusters, statistic: Callable[[FloatArray], Mapping[Key, FloatArray]], resamples: int, seed: int
) -> dict[Key, FloatArray]:
    """Compute metrics on resamples.

    Args:
        clusters: what is drawn.
        statistic: from weights ``(R, N)`` to named metrics ``(R,)``.
        resamples: how many.
        seed: the same one gives the same resamples of the same clusters.

    Returns:
        The metrics, ``(resamples,)`` each.

    Raises:
        CxrnetError: ``resamples`` is no whole number, or too small.
    """
    if not isinstance(resamples, int) or resamples < LEAST:
        raise CxrnetError(
            f"resamples: {resamples} won't do; give a whole number from {LEAST} on, or 0 for no intervals"
        )
    parts = [statistic(weights) for weights in draw(clusters, resamples, seed)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def draw(clusters: Clusters, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Draw resamples, a block at a time: how often each row counts, whole numbers, ``(R, N)``."""
    random = np.random.default_rng(seed)
    strata = [np.flatnonzero(clusters.stratum == number) for number in range(clusters.stratum.max() + 1)]
    block = max(1, BLOCK // len(clusters.of_row))
    for start in range(0, resamples, block):
        times = np.empty((min(block, resamples - start), len(clusters.stratum)))
        for members in strata:
            times[:, members] = _times(random, len(times), len(members))
        yield times[:, clusters.of_row]


def _times(random: np.random.Generator, resamples: int, size: int) -> IntArray:
    """Draw ``size`` of as many, with replacement: how often each was drawn, ``(resamples, size)``."""
    drawn = random.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size)


Share = tuple[BoolArray, BoolArray]
"""The images that count, ``(N, T)``, and those that they are a share of, the same shape or ``(N, 1)``."""

# Along a risk-coverage curve, which has a point an image: every hundredth of the images.
POINTS = 100


@dataclass(frozen=True)
class Resampling:
    """Settings of the intervals.

    Attributes:
        clusters: what is drawn.
        resamples: how many; 0 for no intervals.
        seed: of the draws.
        level: of the intervals.
    """

    clusters: Clusters
    resamples: int
    seed: int
    level: float


def intervals(shares: Sequence[Share], resampling: Resampling) -> list[FloatArray]:
    """Compute the confidence interval of each share, ``(T, 2)``; all of the same resamples."""
    sums = [(part.astype(np.float64), whole.astype(np.float64)) for part, whole in shares]

    def drawn(weights: FloatArray) -> dict[int, FloatArray]:
        with np.errstate(invalid="ignore"):
            return {place: (weights @ part) / (weights @ whole) for place, (part, whole) in enumerate(sums)}

    resampled = bootstrap(resampling.clusters, drawn, resampling.resamples, resampling.seed)
    return [_of_share(*share, resampled[place], resampling) for place, share in enumerate(shares)]


def _of_share(part: BoolArray, whole: BoolArray, drawn: FloatArray, resampling: Resampling) -> FloatArray:
    """Compute the confidence interval at each of T points, of which there are R resamples, ``(R, T)``."""
    values = part.sum(axis=0) / whole.sum(axis=0)
    points = zip(values, drawn.T, np.broadcast_to(whole, part.shape).T, strict=True)
    return np.array([_interval(*point, resampling) for point in points])


def _interval(value: float, drawn: FloatArray, rows: BoolArray, resampling: Resampling) -> Interval:
    """Compute the interval of one share of the rows ``(N,)``; ``drawn``, ``(R,)``, has it in each resample."""
    clusters, level, defined = resampling.clusters, resampling.level, drawn[~np.isnan(drawn)]
    if clusters.count(rows) < 2 or len(defined) < LEAST_DEFINED * len(drawn) or np.ptp(defined) < ROUNDING:
        cases = clusters.cases(rows, value)
        return wilson(value * cases, cases, level)
    return on_log_odds(value, defined, clusters.effective(rows), level=level)
