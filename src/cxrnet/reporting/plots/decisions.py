"""Plots of decisions: reliability diagram, decision curve, risk-coverage curve."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrnet.evaluation.calibration import error_of_table
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.reporting.plots.style import DASHES, FAINT, FULL, PALETTE, legend_below, styled
from cxrnet.reporting.wording import percent


@styled
def reliability_diagram(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw accuracy over confidence with Wilson's intervals, and below it the images of each bin.

    Args:
        tables: what the legend calls it (``"temperature 1"``, ``"temperature 1.8"``) to a table from
            :func:`cxrnet.evaluation.calibration.reliability_table`, of the same images. On the diagonal a confidence
            is what it says.
    """
    figure = Figure(figsize=(4.2, 5.2))
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw=FULL | {"height_ratios": [4.2, 0.8], "hspace": 0.08})
    top.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="confidence = accuracy")
    for number, (name, table) in enumerate(tables.items()):
        colour = PALETTE[number % len(PALETTE)]
        _accuracies(top, table, f"{name}  ECE {error_of_table(table):.3f}", colour)
        width = table["high"] - table["low"]
        bottom.bar(
            table["low"], table["n"], width, align="edge", color=(colour, 0.0 if number else 0.3), edgecolor=colour
        )
    top.set_xlim(-0.02, 1.02)
    top.set_ylim(-0.02, 1.02)
    top.set_ylabel("accuracy")
    top.set_title(f"n = {next(iter(tables.values()))['n'].sum()}")
    bottom.set_ylabel("images")
    bottom.set_xlabel("confidence")
    bottom.legend(*top.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, -0.55))
    return figure


def _accuracies(axes: Axes, table: pd.DataFrame, label: str, colour: str) -> None:
    """Draw a marker a bin, with the confidence interval of its accuracy."""
    right = (table["accuracy"] * table["n"]).round().astype(int)
    bounds = np.array([wilson(part, whole) for part, whole in zip(right, table["n"], strict=True)]).T
    reach = np.abs(bounds - table["accuracy"].to_numpy())
    axes.errorbar(
        table["confidence"],
        table["accuracy"],
        yerr=reach,
        color=colour,
        marker="o",
        markersize=5,
        elinewidth=1,
        capsize=2,
        label=label,
    )


@styled
def decision_plot(curve: pd.DataFrame, name: str) -> Figure:
    """Draw the net benefit of acting on a model, on all patients, and on none.

    Args:
        curve: from :func:`cxrnet.evaluation.prevalence.decision_curve`, with the intervals of
            :func:`cxrnet.evaluation.prevalence.decision_band`.
        name: the class that is acted on.
    """
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.plot(curve["threshold"], curve["model"], color=PALETTE[0], label="by the model", zorder=3)
    _band(axes, curve["threshold"], curve, "confidence band")
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
def risk_coverage_plot(curve: pd.DataFrame, area: float) -> Figure:
    """Draw the error of the predictions that are kept over the share that is deferred to a reader.

    Args:
        curve: from :func:`cxrnet.evaluation.selective_prediction.risk_coverage`, with the intervals of
            :func:`cxrnet.evaluation.selective_prediction.risk_with_band`.
        area: under it (AURC), for the legend.
    """
    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.plot(curve["deferred"], curve["error"], color=PALETTE[0], drawstyle="steps-post", label=f"AURC {area:.3f}")
    _band(axes, curve["deferred"], curve, "confidence band", step="post")
    axes.axhline(curve["error"].iloc[-1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="none deferred")
    axes.set_xlim(0, 1)
    # The intervals of the last few predictions are wide and may leave the plot.
    tops = pd.concat([curve["error"], curve["high"][curve["deferred"] <= 0.5]])
    axes.set_ylim(0, 1.05 * tops.max() or None)
    axes.set_xlabel("share of predictions deferred, least certain first")
    axes.set_ylabel("error of the other predictions")
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
