"""The curves of a training: functions of its history."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrnet.style import FAINT, FULL, PALETTE, legend_below, save, styled


def save_curves(history: pd.DataFrame, kept_epoch: int, folder: Path) -> dict[str, Path]:
    """Draw ``accuracy_curve.png`` and ``loss_curve.png`` of a training; see :func:`accuracy_curve`."""
    return {
        "accuracy_curve": save(accuracy_curve(history, kept_epoch), folder / "accuracy_curve.png"),
        "loss_curve": save(loss_curve(history, kept_epoch), folder / "loss_curve.png"),
    }


def accuracy_curve(history: pd.DataFrame, kept_epoch: int) -> Figure:
    """Draw the accuracy of train and val over the epochs.

    Args:
        history: one row an epoch: ``phase`` (name), ``epoch`` (from 1, running on across phases),
            ``train_accuracy, val_accuracy`` in [0, 1].
        kept_epoch: the epoch whose weights were kept.
    """
    return _curve(history, "accuracy", kept_epoch)


def loss_curve(history: pd.DataFrame, kept_epoch: int) -> Figure:
    """Draw the loss of train and val over the epochs; arguments as for :func:`accuracy_curve`."""
    return _curve(history, "loss", kept_epoch)


@styled
def _curve(history: pd.DataFrame, figure_name: str, kept_epoch: int) -> Figure:
    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.subplots(gridspec_kw=FULL)
    for split, colour in (("train", PALETTE[4]), ("val", PALETTE[0])):
        axes.plot(
            history["epoch"],
            history[f"{split}_{figure_name}"],
            color=colour,
            marker=".",
            label=split,
            zorder=3,
        )
    kept = history[history["epoch"] == kept_epoch]
    axes.plot(
        kept["epoch"],
        kept[f"val_{figure_name}"],
        linestyle="none",
        marker="o",
        markersize=10,
        markerfacecolor="none",
        markeredgecolor=PALETTE[1],
        markeredgewidth=1.8,
        zorder=4,
        label=f"kept (epoch {kept_epoch})",
    )
    _mark_phases(axes, history)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(figure_name)
    legend_below(axes, columns=3)
    return figure


def _mark_phases(axes: Axes, history: pd.DataFrame) -> None:
    """A thin line where a phase starts, its name above the frame."""
    starts = history[history["phase"] != history["phase"].shift()]
    for phase, epoch in zip(starts["phase"], starts["epoch"], strict=True):
        axes.axvline(epoch - 0.5, color=FAINT, linewidth=0.8)
        axes.text(
            epoch - 0.4,
            1.01,
            phase,
            transform=axes.get_xaxis_transform(),
            color=FAINT,
            va="bottom",
            fontsize=10,
        )
    axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
