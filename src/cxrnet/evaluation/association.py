"""Association of two names of an image, as its class and its source: how far one tells the other."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import chi2_contingency, ncx2

from cxrnet.core.grouping import link
from cxrnet.evaluation.confidence_intervals import LEVEL

_TIES = ("patient_id", "group_id", "sha256")
_LEAST = 5  # cases a cell, on average, from which on chi-squared tells anything (Cochran 1954, doi:10.2307/3001666)


@dataclass(frozen=True)
class Association:
    """Cramér's V of two columns.

    Attributes:
        value: corrected for bias, 0 (one tells nothing of the other) to 1 (one tells the other); ``None`` for a gap.
        interval: its confidence interval; ``None`` where there are too few cases.
        n: cases: each patient, or group of duplicates, counts once for each pair of names it has.
        reason: why there is no value, or no interval; empty where there are both.
    """

    value: float | None
    interval: tuple[float, float] | None
    n: int
    reason: str = ""

    @property
    def found(self) -> bool:
        """Whether the interval leaves nothing out but an association."""
        return self.interval is not None and self.interval[0] > 0


def associate(rows: pd.DataFrame, first: str, second: str, level: float = LEVEL) -> Association:
    """Measure how far one column tells another.

    The value is Cramér's V corrected for its bias (Bergsma 2013, doi:10.1016/j.jkss.2012.10.002). The interval is that
    of the noncentrality of chi-squared (Smithson 2003, Confidence Intervals, chapter 4). Both take patients, not
    images, for cases: ten images of one patient are no ten cases.

    Args:
        rows: rows of a manifest.
        first: a column; rows in which it is missing don't count.
        second: another one.
        level: level of the interval.
    """
    for name in (first, second):
        if rows[name].isna().all():
            return Association(None, None, 0, f"{name} is not known of any image")
    known = rows[rows[first].notna() & rows[second].notna()]
    cases = known.assign(_cluster=link(known, tuple(name for name in _TIES if name in known)) if len(known) else [])
    cases = cases.drop_duplicates(["_cluster", first, second])
    n, (height, width) = len(cases), (cases[first].nunique(), cases[second].nunique())
    if min(height, width) < 2:
        name, values = (first, cases[first]) if height < 2 else (second, cases[second])
        which = (
            f"all are of {name} '{values.iloc[0]}'" if len(values) else f"{first} and {second} are not known together"
        )
        return Association(None, None, n, which)
    table = pd.crosstab(cases[first].astype(str), cases[second].astype(str)).to_numpy()
    statistic = float(chi2_contingency(table, correction=False).statistic)
    freedom = (height - 1) * (width - 1)
    excess = max(0.0, statistic / n - freedom / (n - 1))
    sides = (side - (side - 1) ** 2 / (n - 1) for side in (height, width))
    most = min(sides) - 1
    value = min(1.0, float(np.sqrt(excess / most))) if most > 0 else 0.0
    if n < _LEAST * height * width:
        return Association(value, None, n, f"{n} cases in {height} × {width} cells are too few for an interval")
    scale = n * (min(height, width) - 1)
    low, high = (
        float(np.sqrt(min(1.0, _noncentrality(statistic, freedom, tail) / scale)))
        for tail in ((1 + level) / 2, (1 - level) / 2)
    )
    return Association(value, (low, max(high, value)), n)


def _noncentrality(statistic: float, freedom: int, below: float) -> float:
    """Find the noncentrality at which a share of chi-squared lies below a value; 0 where it does at none."""
    if ncx2.cdf(statistic, freedom, 1e-9) <= below:
        return 0.0
    high = statistic + 1.0
    while ncx2.cdf(statistic, freedom, high) > below:
        high *= 2
    return float(brentq(lambda value: ncx2.cdf(statistic, freedom, value) - below, 1e-9, high))
