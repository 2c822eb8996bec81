"""Are two models on the same images different? Paired tests, and Holm's correction for many pairs.

McNemar's exact test, or its form for clusters of several images, is for the accuracy; DeLong's test for an AUC; the
bootstrap, both models on the same resamples, for everything else. All take the images of a patient together.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, norm, rankdata, t

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import LEVEL, ROUNDING, Interval, percentile

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class PairedTest(NamedTuple):
    """The result of a test of the difference first - second."""

    low: float
    """Ends of the confidence interval of the difference."""
    high: float
    p: float
    """Two-sided."""
    test: str
    """Name of the test; empty where there is none."""
    reason: str = ""
    """Reason why the interval, the p or both are NaN."""


def no_test(reason: str) -> PairedTest:
    """Make the result of a test that can't be done, and say why."""
    return PairedTest(np.nan, np.nan, np.nan, "", reason)


def mcnemar(first: BoolArray, second: BoolArray, clusters: IntArray) -> float:
    """Test whether two models are right equally often: the exact two-sided p over clusters of images.

    Were the models alike, they could change places in any cluster, with all its images, and the images that the first
    one gets right more than the second would as likely be those that it gets right less. p is the share of all such
    exchanges after which the models differ by as much as they do, or more: a permutation test (Ernst 2004,
    Statistical Science 19:676), which keeps to its level for clusters of any number and size. Where each cluster
    is one image it is McNemar's exact test: of the images that only one model gets right, half would be the first one's
    (Edwards 1948; McNemar 1947). The test of Durkalski et al. 2003 (doi:10.1002/sim.1438) approximates it for many
    clusters, with the same weight for each: it is of another difference than that of the accuracies.
    With no image that only one model gets right the models can't be told apart, and p is 1.

    Args:
        first: (N,) true where the first model predicts the image right.
        second: (N,) the same of the second model.
        clusters: (N,) number of the cluster of each image.

    >>> first, second = np.array([True] * 6 + [False]), np.array([False] * 5 + [True, True])
    >>> round(mcnemar(first, second, np.arange(7)), 12)
    0.21875
    >>> round(mcnemar(first, second, np.array([0, 0, 0, 1, 1, 2, 3])), 12)
    0.5
    """
    gains = np.bincount(clusters, first.astype(np.float64) - second).astype(int)
    chances = np.ones(1)  # of each sum of gains, from the lowest to the highest
    for size, count in zip(*np.unique(np.abs(gains[gains != 0]), return_counts=True), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, steps)
    sums = np.arange(len(chances)) - np.abs(gains).sum()
    return min(1.0, float(chances[np.abs(sums) >= abs(gains.sum())].sum()))


def accuracy_test(first: BoolArray, second: BoolArray, clusters: IntArray, resampled: PairedTest) -> PairedTest:
    """Test a difference of accuracy by McNemar, with the interval of the bootstrap; arrays as for :func:`mcnemar`."""
    alone = len(np.unique(clusters)) == len(clusters)
    return resampled._replace(
        p=mcnemar(first, second, clusters), test="exact McNemar" if alone else "exact cluster permutation"
    )


@dataclass(frozen=True)
class AucDifference:
    """A difference of two ROC-AUCs.

    Attributes:
        value: in -1..1.
        error: its standard error. 0 where no share differs from another: the two models rank alike.
        free: degrees of freedom of the error; infinite where no patient has two images.
    """

    value: float
    error: float
    free: float = np.inf

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the value -/+ a multiple of the error."""
        half = float(t.ppf((1 + level) / 2, self.free)) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p of a difference of 0; 1 where it is 0 without error, NaN where another one has none."""
        if self.error == 0:
            return 1.0 if self.value == 0 else float("nan")
        return float(2 * t.sf(abs(self.value) / self.error, self.free))


def delong_difference(
    positive: BoolArray, first: FloatArray, second: FloatArray, clusters: IntArray | None = None
) -> AucDifference:
    """Compute the difference of two AUCs on the same images, first - second, with its standard error.

    DeLong, DeLong & Clarke-Pearson 1988 (doi:10.2307/2531595), over clusters Obuchowski 1997 (doi:10.2307/2533958),
    with the degrees of freedom of Welch and Satterthwaite. All arrays are ``(N,)``: which images are of the class,
    scores of both models on any scale, and the number of each image's patient (None where each image is on its own).

    Raises:
        CxrnetError: the positives, or the negatives, are of fewer than two patients.
    """
    shares = _shares(positive, first) - _shares(positive, second)
    cluster = np.arange(len(shares)) if clusters is None else clusters
    total, value = cluster.max() + 1, float(shares[positive].mean())
    sums, variances, free = [], [], []
    for side in (positive, ~positive):
        sizes = np.bincount(cluster[side], minlength=total)
        if (sizes > 0).sum() < 2:
            raise CxrnetError("DeLong: the positives, or the negatives, are of one patient; give images of two of each")
        sums.append(np.bincount(cluster[side], weights=shares[side] - value, minlength=total) / side.sum())
        variances.append(_times(sums[-1], sums[-1], (sizes > 0).sum()))
        free.append(sizes.sum() ** 2 / (sizes @ sizes) - 1)
    in_all = np.unique(cluster).size
    variance = sum(variances) + 2 * _times(sums[0], sums[1], in_all)
    if variance <= 0 or in_all == len(cluster):
        return AucDifference(value, float(np.sqrt(max(variance, 0.0))))
    spread = np.square(variances) / free
    return AucDifference(value, float(np.sqrt(variance)), float(sum(variances) ** 2 / spread.sum()))


def _shares(positive: BoolArray, score: FloatArray) -> FloatArray:
    """Compute for a positive the share of negatives below, for a negative that of positives above, ties half: (N,)."""
    among_all = rankdata(score)
    shares = np.empty(len(score))
    shares[positive] = (among_all[positive] - rankdata(score[positive])) / (~positive).sum()
    shares[~positive] = 1 - (among_all[~positive] - rankdata(score[~positive])) / positive.sum()
    return shares


def _times(first: FloatArray, second: FloatArray, clusters: int) -> float:
    """Sum products over clusters, as a covariance takes it of a sample."""
    return float(first @ second) * clusters / (clusters - 1)


def auc_test(
    positive: BoolArray, first: FloatArray, second: FloatArray, clusters: IntArray, level: float
) -> PairedTest:
    """Test a difference of ROC-AUC by DeLong; arrays as for :func:`delong_difference`."""
    auc = delong_difference(positive, first, second, clusters)
    if auc.error == 0:
        return PairedTest(np.nan, np.nan, auc.p, "DeLong", "the error of the difference is 0: no interval")
    low, high = auc.interval(level)
    return PairedTest(max(low, -1.0), min(high, 1.0), auc.p, "DeLong")


def bootstrap_test(first: FloatArray, second: FloatArray, clusters: float, level: float) -> PairedTest:
    """Compute interval and p of a difference from the metrics of both models on the same resamples, ``(R,)``.

    The p is that of the largest interval by :func:`cxrnet.evaluation.confidence_intervals.percentile` that leaves zero
    out. The share of resamples on the other side of zero counts the table itself among them (Davison & Hinkley 1997,
    eq. 4.11), so that p is never 0. Resamples with a NaN are left out; ``clusters`` is as there.
    """
    differences = first - second
    differences = differences[~np.isnan(differences)]
    p = _p(min((differences <= 0).sum(), (differences >= 0).sum()), len(differences), clusters)
    if np.ptp(differences) < ROUNDING:
        return PairedTest(np.nan, np.nan, p, "paired bootstrap", "all resamples give the same difference: no interval")
    return PairedTest(*percentile(differences, clusters, level), p, "paired bootstrap")


def smallest_p(resamples: int, clusters: float) -> float:
    """Return the p where every resample is on the same side of zero; arguments as for :func:`bootstrap_test`."""
    return _p(0, resamples, clusters)


def _p(beyond: int, resamples: int, clusters: float) -> float:
    """Compute the two-sided p of ``beyond`` of the resamples on the other side of zero."""
    z = max(0.0, -float(norm.ppf((1 + beyond) / (1 + resamples))))
    return float(2 * t.sf(z * np.sqrt((clusters - 1) / clusters), clusters - 1))


def holm(p: FloatArray) -> FloatArray:
    """Correct the p (T,) of several tests so that the chance of any false claim stays below the level (Holm 1979).

    NaN, where there is no test, stays NaN and doesn't count.

    >>> holm(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.06, 0.06])
    """
    corrected = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected
