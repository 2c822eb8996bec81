"""What a model is good for, drawn: the decision curve and the risk-coverage curve."""

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrnet.evaluation.triage import percent
from cxrnet.style import DASHES, FAINT, FULL, PALETTE, legend_below, styled


@styled
def decision_figure(curve: pd.DataFrame, name: str) -> Figure:
    """Draw the net benefit of acting on a model, on all patients, and on none.

    Args:
        curve: from :func:`cxrnet.evaluation.decision_curve.decision_curve`, with the intervals of
            :func:`cxrnet.evaluation.bands.decision_band`.
        name: the class that is acted on.
    """
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.plot(curve["threshold"], curve["model"], color=PALETTE[0], label="by the model", zorder=3)
    _band(axes, curve["threshold"], curve, "interval of the model")
    axes.plot(curve["threshold"], curve["treat_all"], color=PALETTE[1], linestyle=DASHES[1], label="all")
    axes.plot(curve["threshold"], curve["treat_none"], color=FAINT, linestyle=DASHES[2], label="none")
    # Treating all falls without end; the best there is fills the picture.
    highest = curve[["model", "treat_all", "high"]].max().max()
    axes.set_ylim(-0.25 * highest, 1.05 * highest)
    axes.set_xlim(curve["threshold"].min(), curve["threshold"].max())
    axes.set_xlabel(f"probability of {name} from which on to act")
    axes.set_ylabel("net benefit")
    axes.set_title(f"prevalence {percent(curve['prevalence'].iloc[0])}")
    legend_below(axes, columns=3)
    return figure


@styled
def risk_coverage_figure(curve: pd.DataFrame, area: float) -> Figure:
    """Draw the error of the calls that are kept over the share of images that goes to a reader.

    Args:
        curve: from :func:`cxrnet.evaluation.referral.risk_coverage`, with the intervals of
            :func:`cxrnet.evaluation.bands.risk_band`.
        area: under it (AURC), for the legend.
    """
    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.plot(curve["referred"], curve["error"], color=PALETTE[0], drawstyle="steps-post", label=f"AURC {area:.3f}")
    _band(axes, curve["referred"], curve, "interval", step="post")
    axes.axhline(curve["error"].iloc[-1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="none referred")
    axes.set_xlim(0, 1)
    # Of the few calls that are left at last nearly nothing is known: their intervals may leave the picture.
    tops = pd.concat([curve["error"], curve["high"][curve["referred"] <= 0.5]])
    axes.set_ylim(0, 1.05 * tops.max() or None)
    axes.set_xlabel("share of images sent to a reader, least certain first")
    axes.set_ylabel("error of the other calls")
    axes.set_title(f"n = {curve['n'].iloc[-1]}")
    legend_below(axes, columns=2)
    return figure


def _band(
    axes: Axes, x: "pd.Series[float]", curve: pd.DataFrame, label: str, step: Literal["post"] | None = None
) -> None:
    """Shade the intervals of the points that have one."""
    known = curve["low"].notna()
    if known.any():
        x, low, high = (column[known] for column in (x, curve["low"], curve["high"]))
        axes.fill_between(x, low, high, step=step, color=PALETTE[0], alpha=0.15, linewidth=0, label=label)
