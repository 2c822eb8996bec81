"""The style of every plot, and its file.

Plots need neither pyplot nor a display. The font is the one that comes with matplotlib, so a plot is the same
on every machine.
"""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxrnet.core.atomic import whole_file

DPI = 150
_MARGIN = 0.12  # around a plot, inches
# Okabe and Ito 2008, "Color Universal Design": told apart by colour-blind readers; yellow is left out (on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":")
INK, FAINT = "#1f2933", "#8a949e"
# About 11 pt on a page 5 inches wide: still readable when a phone shows the plot 350 px wide.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titleweight": "normal",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    # A dollar in a class name is a dollar.
    "text.parse_math": False,
    "figure.facecolor": "white",
}
# Axes that fill the plot, for `gridspec_kw`; ticks and labels stand outside, so write plots with `save`.
FULL = {"left": 0, "right": 1, "bottom": 0, "top": 1}
styled = rc_context(STYLE)
"""Decorator: draw in the style of this module, and leave matplotlib's settings as they were."""


@styled
def save(figure: Figure, path: Path) -> Path:
    """Write a plot as PNG, 150 dpi, whole or not at all, and return its path.

    The size of a plot is that of its axes with all around them: a long class name makes it larger and is not cut off.
    """
    figure.set_dpi(DPI)
    if figure.get_layout_engine() is not None:  # which moves the axes
        figure.draw_without_rendering()
    # To find the size, matplotlib would draw all of it once more.
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    size = figure.get_tightbbox(renderer)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=DPI, format="png", bbox_inches=size.padded(_MARGIN))
    return path


def legend_below(axes: Axes, columns: int, size: int = 11) -> None:
    """Put the legend below the axes, where it hides nothing; ``size`` in points."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, fontsize=size)
