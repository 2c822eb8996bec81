"""Confidence intervals of one metric: from bootstrap resamples, or in closed form where resamples say nothing.

Images of one patient are alike, so a resample draws patients, with all their images (Davison & Hinkley 1997, section
3.8), and as many of each label as the table has: metrics are of this mix of classes, and no class is lost from a
resample but one that a single patient has. A resample is a row of whole numbers, the times that each image counts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm, t

from cxrnet.core.grouping import known_cells, link
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.settings import LEAST

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]
Key = TypeVar("Key")
Share = tuple[BoolArray, BoolArray]
"""The images that count, ``(N, T)``, and those that they are a share of, the same shape or ``(N, 1)``."""

LEVEL = 0.95  # where nothing else is said
# Of the resamples. With fewer the interval would be of other tables than ours: those in which the class is predicted.
LEAST_DEFINED = 0.9
ROUNDING = 1e-9  # resamples that differ by less differ by rounding
BLOCK = 1_000_000  # weights computed at once: 8 MB, which the cache of a processor holds in part


@dataclass(frozen=True)
class Clusters:
    """The clusters of a table, each drawn as a whole.

    Attributes:
        of_row: the cluster of each row, ``(N,)``.
        stratum: stratum of each cluster, ``(U,)``. Clusters are drawn in place of others of their stratum.
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

        For a share of 0 or 1 every cluster is a case, the smallest number that it may be of (Korn & Graubard 1998,
        Survey Methodology 24, at its limit); else clusters of many images weigh more than others.
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
    """Compute metrics on resamples, ``(resamples,)`` each; ``statistic`` makes them of weights ``(R, N)``.

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
        rows = np.arange(len(times))[:, None]
        for members in strata:
            size = len(members)
            drawn = random.integers(size, size=(len(times), size)) + size * rows  # with replacement
            times[:, members] = np.bincount(drawn.ravel(), minlength=times[:, members].size).reshape(-1, size)
        yield times[:, clusters.of_row]


@dataclass(frozen=True)
class Resampling:
    """Settings of the intervals: what is drawn, how often (0 for no intervals), from which seed, at which level."""

    clusters: Clusters
    resamples: int
    seed: int
    level: float

    def intervals(self, shares: Sequence[Share]) -> list[FloatArray]:
        """Compute the confidence interval of each share at its T points, ``(T, 2)``; all of the same resamples."""
        sums = [(part.astype(np.float64), whole.astype(np.float64)) for part, whole in shares]

        def drawn(weights: FloatArray) -> dict[int, FloatArray]:
            with np.errstate(invalid="ignore"):
                return {place: (weights @ part) / (weights @ whole) for place, (part, whole) in enumerate(sums)}

        found, resampled = [], bootstrap(self.clusters, drawn, self.resamples, self.seed)
        for place, (part, whole) in enumerate(shares):
            values, rows = part.sum(axis=0) / whole.sum(axis=0), np.broadcast_to(whole, part.shape).T
            points = zip(values, resampled[place].T, rows, strict=True)
            found.append(np.array([self._interval(*point) for point in points]))
        return found

    def _interval(self, value: float, drawn: FloatArray, rows: BoolArray) -> Interval:
        """Compute the interval of one share of the rows ``(N,)``; ``drawn``, ``(R,)``, has it in each resample."""
        defined = drawn[~np.isnan(drawn)]
        if self.clusters.count(rows) < 2 or len(defined) < LEAST_DEFINED * len(drawn) or np.ptp(defined) < ROUNDING:
            cases = self.clusters.cases(rows, value)
            return wilson(value * cases, cases, self.level)
        return on_log_odds(value, defined, self.clusters.effective(rows), level=self.level)


def percentile(drawn: FloatArray, clusters: float, level: float = LEVEL) -> Interval:
    """Take the interval between two percentiles of the resamples, ``drawn`` ``(R,)``.

    Percentiles of few clusters lie too close together. They are taken further out, where the t distribution and the
    spread of a sample have them (the expanded percentile interval, Hesterberg 2015, doi:10.1080/00031305.2015.1089789):
    2.5 % is 1.8 % for 26 clusters and 2.4 % for 500. ``clusters`` is their effective number, above 1.
    """
    tail = norm.cdf(-np.sqrt(clusters / (clusters - 1)) * t.ppf((1 + level) / 2, clusters - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def on_log_odds(
    value: float, drawn: FloatArray, clusters: float, ends: Interval = (0.0, 1.0), level: float = LEVEL
) -> Interval:
    """Compute a confidence interval from a standard error, on the log odds of the metric's place in its range.

    Near an end of its range a metric errs further away from that end than towards it, and a resample can't be better
    than perfect: of small test sets, 85 to 93 of 100 percentile intervals hold a ROC-AUC of 0.96 to 0.99. On log odds
    the error is nearly symmetric (Pepe 2003, The Statistical Evaluation of Medical Tests, chapter 5; Qin & Hotilovac
    2008, Statistical Methods in Medical Research 17:207): 93 to 98. Between -1 and 1, log odds are twice Fisher's z.
    The standard error is that of the resamples, times what resamples of few clusters lack of the spread of a sample
    (Hesterberg 2015, doi:10.1080/00031305.2015.1089789), the multiple of it that of the t distribution.

    Arguments are those of :func:`percentile`; ``value``, that of the table, lies between the ``ends``, the smallest and
    largest value that the metric can have. An infinite one makes the scale logarithmic.
    """
    lowest, above, width = ends[0], value - ends[0], ends[1] - ends[0]
    share, error = above / width, drawn.std(ddof=1) * np.sqrt(clusters / (clusters - 1))
    shrink = np.exp(-t.ppf((1 + level) / 2, clusters - 1) * error / (above * (1 - share)))
    with np.errstate(divide="ignore"):  # of hardly more than one cluster the upper end may be infinite
        high = np.divide(above, share + (1 - share) * shrink)
    return lowest + float(above * shrink / (1 - share + share * shrink)), lowest + float(high)


def wilson(part: float, whole: float, level: float = LEVEL) -> Interval:
    """Compute Wilson's confidence interval of a proportion of independent cases, which has a width at 0 and at 1 too.

    Brown, Cai & DasGupta 2001 (doi:10.1214/ss/1009213286, section 4) recommend it for up to 40 cases. ``part`` need not
    be a whole number, ``whole`` is above 0.

    >>> [round(end, 3) for end in wilson(26, 26)]
    [0.871, 1.0]
    """
    share, z2 = part / whole, norm.ppf((1 + level) / 2) ** 2
    middle = share + z2 / (2 * whole)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * whole)) / whole)
    low, high = (middle - half) / (1 + z2 / whole), (middle + half) / (1 + z2 / whole)
    return max(float(low), 0.0), min(float(high), 1.0)


def newcombe(auc: float, positives: float, negatives: float, level: float = LEVEL) -> Interval:
    """Compute Newcombe's confidence interval of a ROC-AUC in 0..1, which has a width at 0 and at 1 too.

    As Wilson's it holds the AUCs from which the observed one is no further than chance would have it, under the
    variance of Hanley & McNeil at that AUC (Newcombe 2006, doi:10.1002/sim.2324, method 5). Positives and negatives are
    numbers of independent cases, from 1 on.

    >>> [round(end, 3) for end in newcombe(1.0, 20, 40)]
    [0.925, 1.0]
    """
    z, inner = norm.ppf((1 + level) / 2), (positives + negatives) / 2 - 1

    def excess(truth: float) -> float:
        spread = 1 + inner * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return float(abs(auc - truth) - z * np.sqrt(truth * (1 - truth) * spread / (positives * negatives)))

    inside = min(max(auc, 1e-9), 1 - 1e-9)  # at 0 and at 1 the variance vanishes, and the equation holds for nothing
    low = brentq(excess, 0, inside) if auc > 0 else 0.0
    high = brentq(excess, inside, 1) if auc < 1 else 1.0
    return float(low), float(high)


def of_gaps(value: float, drawn: FloatArray, moved: FloatArray, level: float = LEVEL) -> Interval:
    """Compute the confidence interval of a sum of absolute gaps, as the ECE is one.

    Chance adds to such a sum and doesn't cancel: the ECE of a calibrated model is above 0, and that of a resample above
    that of its table, so that percentiles leave the truth out. The lower end is the value less the distance that the
    gaps move between table and resample (``moved``, the sum of their absolute changes, ``(R,)``), which bounds its
    error by the triangle inequality; the upper end is the value and the distance from the mean of the resamples down to
    their percentile (the basic bootstrap, Davison & Hinkley 1997, eq. 5.6, less its correction of the bias). It is wide
    rather than wrong: simulated, 92 to 99 % hold the truth.
    """
    tail = (1 - level) / 2
    low, high = value - np.quantile(moved, 1 - tail), value + drawn.mean() - np.quantile(drawn, tail)
    return max(float(low), 0.0), float(high)


def of_mean(values: FloatArray, ends: FloatArray, weights: FloatArray, independent: bool) -> Interval:
    """Combine the intervals of K parts to that of their mean (Zou & Donner 2008, doi:10.1002/sim.3095).

    ``values`` are ``(K,)``, ``ends`` ``(K, 2)``, ``weights`` ``(K,)`` sum to one. Parts that are not ``independent``,
    on different images, are taken to err together, which is the widest that the interval can be.
    """
    mean = float(weights @ values)
    low, high = np.linalg.norm(weights[:, None] * (ends - values[:, None]), ord=2 if independent else 1, axis=0)
    return mean - float(low), mean + float(high)
