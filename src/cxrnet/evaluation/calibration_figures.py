"""The reliability diagram."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrnet.evaluation.calibration import error_of_table
from cxrnet.evaluation.intervals import wilson
from cxrnet.style import FAINT, FULL, PALETTE, styled


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
    """A marker a bin, with the interval of its accuracy."""
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
