"""How much of an attribution lies inside the lungs or the lesion, against chance and a random network.

*Energy* is the share of a map's sum inside a region (H. Wang et al. 2020, arXiv:1910.01279), *pointing* whether its
maximum lies there (J. Zhang et al. 2018, doi:10.1007/s11263-017-1059-x). A map that says nothing has the region's share
of the area in both. A map that hardly changes when all weights are random fails the sanity check of J. Adebayo et al.
2018 (arXiv:1810.03292).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from cxrnet.evaluation.audit import Sampling
from cxrnet.evaluation.confidence_intervals import ROUNDING, Clusters, FloatArray, bootstrap, clusters_of, percentile

BoolArray = npt.NDArray[np.bool_]

FAILS = 0.5  # rank correlation with the map of a random network from which on a map fails the sanity check
_SMOOTH = 0.05  # of the side: the width of the blobs in a random map


def energy(maps: npt.NDArray[np.floating], region: BoolArray) -> FloatArray:
    """Compute the share of each map's sum inside a region; maps and region ``(N, H, W)``; NaN of an empty map."""
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    inside = (maps * region).sum(axis=(1, 2), dtype=np.float64)
    shares: FloatArray = np.divide(inside, total, out=np.full(len(maps), np.nan), where=total > 0)
    return shares


def pointing(maps: npt.NDArray[np.floating], region: BoolArray) -> FloatArray:
    """Tell whether each map has its maximum inside a region, 0 or 1; NaN of an empty map."""
    flat = maps.reshape(len(maps), -1)
    hits = np.take_along_axis(region.reshape(len(maps), -1), flat.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(flat.max(axis=1) > 0, hits.astype(np.float64), np.nan)


def agreement(maps: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> FloatArray:
    """Compute Spearman's rank correlation of each map with another, ``(N,)`` in -1..1; NaN where one is constant."""
    found = np.full(len(maps), np.nan)
    for place, (one, other) in enumerate(zip(maps, others, strict=True)):
        if np.ptp(one) > 0 and np.ptp(other) > 0:
            found[place] = spearmanr(one.ravel(), other.ravel()).statistic
    return found


def random_maps(shape: tuple[int, int, int], seed: int) -> npt.NDArray[np.float32]:
    """Draw smooth maps ``(N, H, W)`` in 0..1 that know nothing of any image."""
    noise = np.random.default_rng(seed).random(shape, dtype=np.float32)
    sigma = _SMOOTH * min(shape[1:])
    smooth = gaussian_filter(noise, (0, sigma, sigma), mode="wrap")
    low, high = (end(smooth, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    drawn: npt.NDArray[np.float32] = (smooth - low) / np.maximum(high - low, 1e-12)
    return drawn


def inside_table(
    rows: pd.DataFrame,
    maps: Mapping[str, npt.NDArray[np.floating]],
    regions: Mapping[str, BoolArray],
    sampling: Sampling,
) -> pd.DataFrame:
    """State how much of maps lies inside regions, beside the region's share of the area.

    Args:
        rows: predictions of N images, for their clusters.
        maps: ``(N, H, W)`` by what made them.
        regions: ``(N, H, W)`` by name; images of which a region is empty don't count for it.
        sampling: settings of the bootstrap.

    Returns:
        One row a region, map and measure: ``region, map, measure`` (``energy`` or ``pointing``), ``value, low, high``,
        ``area`` (mean share of the area), ``excess, excess_low, excess_high`` (value less area, paired), ``n`` and
        ``empty`` (images whose map is empty, which don't count). Ends are NaN where resamples say nothing.
    """
    found = []
    for region, marked in regions.items():
        there = marked.any(axis=(1, 2))
        if there.sum() < 2:
            continue
        area = marked[there].mean(axis=(1, 2))
        for name, each in maps.items():
            for measure, values in (("energy", energy), ("pointing", pointing)):
                of_image = values(each[there], marked[there])
                known = ~np.isnan(of_image)
                row = {"region": region, "map": name, "measure": measure, "empty": int((~known).sum())}
                if known.sum() < 2:
                    continue
                clusters = clusters_of(rows[there][known])
                found.append(row | _means(of_image[known], area[known], clusters, sampling))
    columns = ["region", "map", "measure", "value", "low", "high", "area", "excess", "excess_low", "excess_high", "n"]
    return pd.DataFrame(found, columns=[*columns, "empty"])


def _means(values: FloatArray, area: FloatArray, clusters: Clusters, sampling: Sampling) -> dict[str, object]:
    """Compute the mean of values ``(N,)`` and of what they exceed the area by, with intervals."""

    def statistic(weights: FloatArray) -> dict[str, FloatArray]:
        total = weights.sum(axis=1)
        return {"value": weights @ values / total, "excess": weights @ (values - area) / total}

    drawn = bootstrap(clusters, statistic, sampling.resamples, sampling.seed)
    row: dict[str, object] = {
        "value": values.mean(),
        "area": area.mean(),
        "excess": (values - area).mean(),
        "n": len(values),
    }
    cases = clusters.effective(np.ones(len(values), bool))
    for name, prefix in (("value", ""), ("excess", "excess_")):
        silent = cases <= 1 or np.ptp(drawn[name]) < ROUNDING
        low, high = (np.nan, np.nan) if silent else percentile(drawn[name], cases, sampling.level)
        row |= {f"{prefix}low": low, f"{prefix}high": high}
    return row
