"""DeLong: the standard error of a ROC-AUC, and the test of two AUCs on the same images.

An AUC is a mean over positives, of the share of negatives that each scores above, and at the same time a mean over
negatives, of the share of positives above each. The spread of these shares gives its error (DeLong, DeLong &
Clarke-Pearson 1988, doi:10.2307/2531595); midranks give the shares without comparing all pairs (Sun & Xu 2014,
doi:10.1109/LSP.2014.2337313). Where several images are of one patient, the shares of a patient are summed before their
spread is taken (Obuchowski 1997, doi:10.2307/2533958), which for one image each is the formula of 1988.

The formula of 1988 takes the error for normal. Of patients with several images it is taken for Student's t, or one
patient with many of the images makes a difference of nothing: of the two sides, positives and negatives, each with
Kish's effective number of patients less one as degrees of freedom, by Satterthwaite 1946 (doi:10.2307/3002019).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, t

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.intervals import LEVEL, Interval

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Auc:
    """A ROC-AUC, or the difference of two.

    Attributes:
        value: in 0..1, a difference in -1..1.
        error: its standard error. 0 where no share differs from another: all positives score above all negatives, or
            the two models rank alike.
        free: degrees of freedom of the error; infinite where no patient has two images.
    """

    value: float
    error: float
    free: float = np.inf

    def interval(self, level: float = LEVEL) -> Interval:
        """The value -/+ a multiple of the error, which for one AUC may reach past 0 or 1."""
        half = float(t.ppf((1 + level) / 2, self.free)) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p of a value of 0, for a difference; 1 where it is 0 without error, NaN where another is."""
        if self.error == 0:
            return 1.0 if self.value == 0 else float("nan")
        return float(2 * t.sf(abs(self.value) / self.error, self.free))


def delong(positive: BoolArray, score: FloatArray, units: IntArray | None = None) -> Auc:
    """Compute a ROC-AUC and its standard error.

    Args:
        positive: which images are of the class, ``(N,)``.
        score: of the class, any scale, ``(N,)``.
        units: number of the patient of each image, ``(N,)``; None where each image is on its own.

    Raises:
        CxrnetError: the positives, or the negatives, are of fewer than two patients.
    """
    return _auc(positive, _shares(positive, score), units)


def delong_difference(positive: BoolArray, first: FloatArray, second: FloatArray, units: IntArray | None = None) -> Auc:
    """Compute the difference of two AUCs on the same images, first - second, with its standard error and p.

    Args:
        positive: as for :func:`delong`.
        first: scores of one model, ``(N,)``.
        second: scores of the other, ``(N,)``.
        units: as for :func:`delong`.

    Raises:
        CxrnetError: as for :func:`delong`.
    """
    return _auc(positive, _shares(positive, first) - _shares(positive, second), units)


def _shares(positive: BoolArray, score: FloatArray) -> FloatArray:
    """For a positive the share of negatives below it, for a negative that of positives above it, ties half: (N,)."""
    among_all = rankdata(score)
    shares = np.empty(len(score))
    shares[positive] = (among_all[positive] - rankdata(score[positive])) / (~positive).sum()
    shares[~positive] = 1 - (among_all[~positive] - rankdata(score[~positive])) / positive.sum()
    return shares


def _auc(positive: BoolArray, shares: FloatArray, units: IntArray | None) -> Auc:
    """Mean of the shares, and its error from the spread of their sums over each unit."""
    unit = np.arange(len(shares)) if units is None else units
    total, value = unit.max() + 1, float(shares[positive].mean())
    sums, variances, free = [], [], []
    for side in (positive, ~positive):
        sizes = np.bincount(unit[side], minlength=total)
        if (sizes > 0).sum() < 2:
            raise CxrnetError("DeLong: the positives, or the negatives, are of one patient; give images of two of each")
        sums.append(np.bincount(unit[side], weights=shares[side] - value, minlength=total) / side.sum())
        variances.append(_times(sums[-1], sums[-1], (sizes > 0).sum()))
        free.append(sizes.sum() ** 2 / (sizes @ sizes) - 1)
    units_in_all = np.unique(unit).size
    variance = sum(variances) + 2 * _times(sums[0], sums[1], units_in_all)
    if variance <= 0 or units_in_all == len(unit):
        return Auc(value, float(np.sqrt(max(variance, 0.0))))
    spread = np.square(variances) / free
    return Auc(value, float(np.sqrt(variance)), float(sum(variances) ** 2 / spread.sum()))


def _times(first: FloatArray, second: FloatArray, units: int) -> float:
    """Sum of products over units, as a covariance takes it of a sample."""
    return float(first @ second) * units / (units - 1)
