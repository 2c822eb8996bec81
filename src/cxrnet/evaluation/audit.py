"""The audit: looks at what a model tells the classes from, and which of them find something.

A look is a finding only if its interval leaves "nothing" out at a level that is corrected for the number of looks
(Bonferroni): with no shortcut at all, 95 of 100 audits find none. Three kinds of looks count:

* *region*: the class is told from something that should know nothing of the disease (all but the lungs, the border,
  the corners, the size of the file, the source) more than half as well as from the whole image:
  ``(AUC - 0.5) > (AUC of the whole - 0.5) / 2``. Half is a convention; the share stands in the table.
* *planted*: the border or the corners of an image of one class are put into images of the others. Beside it stands the
  same with those of another image of the own class, so that the cut alone moves nothing: without a shortcut as many
  predictions follow the one as the other.
* what is only *told* (8 x 8 thumbnail, sharpness and contrast) may be the disease itself, and is never a finding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

from cxrnet.evaluation.catalogue import Key
from cxrnet.evaluation.confidence_intervals import (
    ROUNDING,
    Clusters,
    FloatArray,
    Interval,
    bootstrap,
    clusters_of,
    newcombe,
    on_log_odds,
    percentile,
    wilson,
)
from cxrnet.evaluation.metrics import Metric, behind, evaluate_resampled, of_one_cluster
from cxrnet.evaluation.predictions import classes_of, label_codes
from cxrnet.evaluation.significance import bootstrap_test
from cxrnet.evaluation.sums import Rows, rows_of

BoolArray = npt.NDArray[np.bool_]
Kind = Literal["data", "model", "planted"]
WHOLE, LUNGS_OUT, LUNGS_ONLY, OUTLINE = "whole image", "lungs out", "lungs only", "outline of the lungs"
BORDER, CORNERS = "border only", "corners only"
THUMBNAIL, ACQUISITION, SHARPNESS = "8 x 8 thumbnail", "acquisition", "sharpness and contrast"
TOLD = (WHOLE, LUNGS_ONLY, OUTLINE, THUMBNAIL, SHARPNESS)
"""Names of looks at what the disease itself may change: never a finding."""
HALF = 0.5  # of what the whole image tells: from here on most of it is in the region

Bound = Callable[[float], float]
"""Lower end of a two-sided interval at a level, of a number that is 0 where there is nothing to find."""


@dataclass(frozen=True)
class Sampling:
    """Settings of the bootstrap: number of resamples, seed, level of the intervals."""

    resamples: int
    seed: int
    level: float


@dataclass(frozen=True)
class Look:
    """One look at one class.

    Attributes:
        kind: ``data``: a probe, trained and tested on the images; ``model``: the bundle's own predictions;
            ``planted``: the bundle's predictions of images with a region of another one.
        name: what was looked at, as ``lungs out``.
        label: the class; of two classes only the second has an AUC of its own.
        value: ROC-AUC, or the share of predictions that follow; NaN where there is none.
        low: lower end of its interval at the level of one look.
        high: upper end.
        whole: ROC-AUC on the whole images, or the share that follows a region of the own class.
        n: images.
        reason: why there is no value or interval.
        bound: lower end of what must be above 0 for a finding, by level; ``None`` where that isn't known.
    """

    kind: Kind
    name: str
    label: str
    value: float
    low: float
    high: float
    whole: float
    n: int
    reason: str = ""
    bound: Bound | None = None

    @property
    def share(self) -> float:
        """Share of what the whole image tells, ``(AUC - 0.5) / (AUC of the whole - 0.5)``; NaN where that is nothing.

        Of a planted region the share that follows beyond what the cut alone moves.
        """
        if self.kind == "planted":
            return self.value - self.whole
        return (self.value - 0.5) / (self.whole - 0.5) if self.whole > 0.5 else np.nan

    @property
    def counts(self) -> bool:
        """Whether it may be a finding, so that the level is corrected for it."""
        return self.bound is not None and self.name not in TOLD


def findings(looks: Sequence[Look], level: float) -> list[Look]:
    """Choose the looks that find something, at a level that holds for all of them together."""
    counted = [look for look in looks if look.counts]
    corrected = corrected_level(looks, level)
    return [look for look in counted if look.bound is not None and look.bound(corrected) > 0]


def corrected_level(looks: Sequence[Look], level: float) -> float:
    """Return the level of each look with which that of all together is kept (Bonferroni)."""
    return 1 - (1 - level) / max(1, sum(look.counts for look in looks))


@dataclass(frozen=True)
class _Judged:
    """A table of predictions with its metrics and their resamples."""

    rows: Rows
    metrics: Mapping[str, Mapping[str, Metric]]
    drawn: Mapping[Key, FloatArray]

    @classmethod
    def of(cls, table: pd.DataFrame, clusters: Clusters, sampling: Sampling) -> "_Judged":
        evaluation, drawn = evaluate_resampled(table, clusters, sampling.resamples, sampling.seed, sampling.level)
        return cls(rows_of(table), evaluation["per_class"], drawn)


def region_looks(
    kind: Kind,
    whole: pd.DataFrame,
    regions: Mapping[str, pd.DataFrame],
    sampling: Sampling,
) -> list[Look]:
    """Look at how well each class is told from regions, and from the whole image, which comes first.

    Args:
        kind: ``data`` or ``model``.
        whole: predictions of the whole images.
        regions: by name, predictions of the same images by a region alone, or without one.
        sampling: settings of the bootstrap; all are computed on the same resamples.
    """
    clusters, classes, looks = clusters_of(whole), classes_of(whole), []
    reference = _Judged.of(whole, clusters, sampling)
    for name, table in {WHOLE: whole, **regions}.items():
        judged = reference if name == WHOLE else _Judged.of(table, clusters, sampling)
        for label in classes[-1:] if len(classes) == 2 else classes:
            key, metric = (label, "roc_auc"), judged.metrics[label]["roc_auc"]
            of_whole = reference.metrics[label]["roc_auc"]["value"]
            low, high = metric.get("interval", (np.nan, np.nan))
            reason, bound = metric.get("reason", metric.get("interval_reason", "")), None
            if not reason and of_one_cluster(clusters, key, judged.rows):
                reason = f"all images of a side are of one {clusters.kind}"
            if not reason and of_whole is not None:
                bound = _most_of(key, judged, reference, clusters)
            value = np.nan if metric["value"] is None else metric["value"]
            looks.append(
                Look(
                    kind,
                    name,
                    label,
                    value,
                    low,
                    high,
                    whole=np.nan if of_whole is None else of_whole,
                    n=len(table),
                    reason=reason,
                    bound=bound,
                )
            )
    return looks


def _most_of(key: Key, region: _Judged, whole: _Judged, clusters: Clusters) -> Bound:
    """Bound the AUC of a region above one half, and above half of what the whole image tells."""
    label, _ = key
    value, of_whole = (each.metrics[label]["roc_auc"]["value"] or 0.0 for each in (region, whole))
    drawn, count = region.drawn[key], behind(clusters, key, region.rows, whole.rows)
    margins = drawn - 0.5 - HALF * (whole.drawn[key] - 0.5)
    margin = value - 0.5 - HALF * (of_whole - 0.5)
    sides = [clusters.count(region.rows.behind(label, side)) for side in ("positives", "negatives")]

    def bound(level: float) -> float:
        return min(_auc_interval(value, drawn, count, sides, level)[0] - 0.5, _low(margin, margins, count, level))

    return bound


def _auc_interval(value: float, drawn: FloatArray, clusters: float, sides: Sequence[int], level: float) -> Interval:
    defined = drawn[~np.isnan(drawn)]
    if np.ptp(defined) < ROUNDING or value in (0, 1):
        positives, negatives = sides
        return newcombe(value, positives, negatives, level)
    return on_log_odds(value, defined, clusters, level=level)


def _low(value: float, drawn: FloatArray, clusters: float, level: float) -> float:
    """Compute the lower end of a normal interval, with the corrections for few clusters of :func:`on_log_odds`."""
    error = float(np.nanstd(drawn, ddof=1)) * np.sqrt(clusters / (clusters - 1))
    return float(value - t.ppf((1 + level) / 2, clusters - 1) * error)


def planted_looks(
    name: str,
    table: pd.DataFrame,
    foreign: Mapping[str, npt.NDArray[np.object_]],
    own: npt.NDArray[np.object_],
    sampling: Sampling,
) -> list[Look]:
    """Look at how many predictions follow a region that was taken from images of a class.

    Args:
        name: the region.
        table: predictions of N images as they are.
        foreign: by class, the predicted class of each image ``(N,)`` with the region of an image of that class.
        own: the same with the region of another image of its own class.
        sampling: settings of the bootstrap.
    """
    clusters, classes, codes = clusters_of(table), classes_of(table), label_codes(table)
    looks = []
    for label, predicted in foreign.items():
        others = codes != classes.index(label)
        followed, control = (predicted == label) & others, (own == label) & others
        n = int(others.sum())

        def statistic(weights: FloatArray, parts: tuple[BoolArray, ...] = (followed, control, others)) -> _Shares:
            shares = [weights @ part.astype(float) for part in parts]
            with np.errstate(invalid="ignore"):
                return {"followed": shares[0] / shares[2], "control": shares[1] / shares[2]}

        if clusters.count(others) < 2:
            reason = f"all other images are of one {clusters.kind}"
            looks.append(Look("planted", name, label, np.nan, np.nan, np.nan, np.nan, n, reason=reason))
            continue
        drawn = bootstrap(clusters, statistic, sampling.resamples, sampling.seed)
        cases = clusters.effective(others)
        value, control_value = followed.sum() / n, control.sum() / n
        low, high = _share_interval(value, drawn["followed"], cases, sampling.level)
        bound = _beyond(value, control_value, drawn, cases)
        looks.append(Look("planted", name, label, value, low, high, control_value, n, bound=bound))
    return looks


_Shares = dict[str, FloatArray]


def _share_interval(value: float, drawn: FloatArray, cases: float, level: float) -> Interval:
    defined = drawn[~np.isnan(drawn)]
    if np.ptp(defined) < ROUNDING:
        return wilson(value * cases, cases, level)
    return percentile(defined, cases, level)


def _beyond(value: float, control: float, drawn: _Shares, cases: float) -> Bound:
    """Bound the share that follows beyond the control; where no resample differs, Wilson's end tells of chance."""
    differences = drawn["followed"] - drawn["control"]

    def bound(level: float) -> float:
        if np.nanstd(differences) < ROUNDING:
            return wilson(value * cases, cases, level)[0] - control if value > control else 0.0
        return _low(value - control, differences, cases, level)

    return bound


def change_table(before: pd.DataFrame, after: Mapping[str, pd.DataFrame], sampling: Sampling) -> pd.DataFrame:
    """State how sensitivity and specificity of each class move under interventions.

    Args:
        before: predictions of the images as they are; of some of them where ``after`` has fewer.
        after: by name, predictions of the changed images.
        sampling: settings of the bootstrap; both sides are computed on the same resamples.

    Returns:
        One row an intervention, class and metric: ``intervention, class, metric, before, after, change, low, high, n,
        reason``. ``change`` is after less before, ``low`` and ``high`` its paired interval, ``n`` the images behind the
        metric; ``reason`` says why something is NaN.
    """
    rows, judged = [], dict[tuple[str, ...], tuple[Clusters, _Judged]]()
    for name, table in after.items():
        ids = tuple(table["image_id"])
        if ids not in judged:
            same = before.set_index("image_id").loc[list(ids)].reset_index()
            clusters = clusters_of(same)
            judged[ids] = clusters, _Judged.of(same, clusters, sampling)
        clusters, reference = judged[ids]
        changed = _Judged.of(table, clusters, sampling)
        for label in classes_of(table):
            for metric in ("sensitivity", "specificity"):
                row = _change((label, metric), (reference, changed), clusters, sampling.level)
                rows.append({"intervention": name, "class": label, "metric": metric} | row)
    columns = ["intervention", "class", "metric", "before", "after", "change", "low", "high", "n", "reason"]
    return pd.DataFrame(rows, columns=columns)


def _change(key: Key, pair: tuple[_Judged, _Judged], clusters: Clusters, level: float) -> dict[str, object]:
    """Compute the columns of one row from ``before`` on."""
    label, name = key
    before, after = (each.metrics[label][name] for each in pair)
    if before["value"] is None or after["value"] is None:
        reason = before.get("reason") or after.get("reason", "")
        numbers = dict.fromkeys(("before", "after", "change", "low", "high"), np.nan)
        return numbers | {"n": 0, "reason": reason}
    row = {"before": before["value"], "after": after["value"], "change": after["value"] - before["value"]}
    if of_one_cluster(clusters, key, *(each.rows for each in pair)):
        return row | {
            "low": np.nan,
            "high": np.nan,
            "n": before["n"],
            "reason": f"all images are of one {clusters.kind}",
        }
    drawn = [each.drawn[key] for each in pair]
    test = bootstrap_test(drawn[1], drawn[0], behind(clusters, key, *(each.rows for each in pair)), level)
    return row | {"low": test.low, "high": test.high, "n": before["n"], "reason": test.reason}
