"""The plots of a comparison: confusion matrices side by side, ROC curves over each other."""

import textwrap
from itertools import cycle, islice
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from cxrnet.evaluation.comparison import Comparison
from cxrnet.evaluation.predictions import counts_of, label_codes, probabilities_of
from cxrnet.reporting.plots.classification import draw_matrix
from cxrnet.reporting.plots.style import DASHES, FAINT, FULL, PALETTE, save, styled

# More curves than colours can't be told apart, and a grid of more matrices isn't read.
MOST_RUNS = len(PALETTE)


def save_comparison_plots(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Draw ``confusion_matrices.png`` and ``roc_overlay.png``, 150 dpi, of the best seven runs.

    Returns:
        Name of the plot to its file.
    """
    draw = {"confusion_matrices": confusion_matrices, "roc_overlay": roc_overlay}
    return {name: save(function(comparison), folder / f"{name}.png") for name, function in draw.items()}


@styled
def confusion_matrices(comparison: Comparison) -> Figure:
    """Draw the confusion matrix of each run: images, below them the share of the images of that label."""
    tables = _drawn(comparison)
    k, columns = len(comparison.classes), _columns(len(tables))
    size = max(0.62 * k, 2.2)
    figure, panels = _grid(len(tables), size, space=0.3)
    for place, (axes, (run, table)) in enumerate(zip(panels, tables.items(), strict=True)):
        draw_matrix(axes, counts_of(table), None, (10, 7))
        axes.set_title(textwrap.fill(run, 24))
        ticks = [textwrap.fill(name, 20) for name in comparison.classes]
        axes.set_yticks(range(k), ticks if place % columns == 0 else [""] * k)
        last = place + columns >= len(tables)
        axes.set_xticks(range(k), ticks if last else [""] * k, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_ylabel("label" if place % columns == 0 else "")
        axes.set_xlabel("predicted" if last else "")
    return figure


@styled
def roc_overlay(comparison: Comparison) -> Figure:
    """Draw the ROC curves of the runs over each other, a panel for each class against the rest.

    Two classes have one panel, the one of the last class: the curve of the other is its mirror image.
    """
    tables = _drawn(comparison)
    shown = comparison.classes if len(comparison.classes) > 2 else comparison.classes[-1:]
    figure, panels = _grid(len(shown), 3.0, space=0.28)
    for axes, name in zip(panels, shown, strict=True):
        _curves(axes, comparison, tables, name)
    handles = panels[0].get_lines()[: len(tables)]
    # Below the labels of the axes, which stand about half an inch under the panels.
    below = -0.6 / figure.get_size_inches()[1]
    columns = 2 if max(map(len, tables)) <= 40 and len(shown) > 1 else 1
    figure.legend(handles, list(tables), loc="upper center", bbox_to_anchor=(0.5, below), ncols=columns)
    return figure


def _curves(axes: Axes, comparison: Comparison, tables: dict[str, pd.DataFrame], name: str) -> None:
    """Draw one panel: a curve a run, its AUC in the corner where no good curve goes."""
    index = comparison.classes.index(name)
    aucs = comparison.metrics[comparison.metrics["metric"] == f"roc_auc_{name}"].set_index("run")["value"]
    for (run, table), colour, dash in zip(tables.items(), PALETTE, cycle(DASHES), strict=False):
        known = not np.isnan(aucs[run])
        x, y, _ = roc_curve(label_codes(table) == index, probabilities_of(table)[:, index]) if known else ([], [], [])
        axes.plot(x, y, color=colour, linestyle=dash, label=f"{aucs[run]:.3f}" if known else "n/a")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.legend(title="ROC-AUC", loc="lower right", fontsize=9, title_fontsize=9)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(textwrap.fill(name, 30))
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity")


def _drawn(comparison: Comparison) -> dict[str, pd.DataFrame]:
    return dict(islice(comparison.tables.items(), MOST_RUNS))


def _columns(panels: int) -> int:
    """Return how many panels stand in a row: at most three, and four as two by two."""
    return 2 if panels == 4 else min(panels, 3)


def _grid(panels: int, size: float, space: float) -> tuple[Figure, list[Axes]]:
    """Make a plot of square panels, ``size`` inches wide, with a share of ``space`` between them."""
    columns = _columns(panels)
    rows = ceil(panels / columns)
    figure = Figure(figsize=(size * columns * (1 + space), size * rows * (1 + space)))
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=FULL | {"wspace": space, "hspace": space})
    axes = list(grid.ravel())
    for empty in axes[panels:]:
        empty.remove()
    return figure, axes[:panels]
