"""The plots of one split: functions of a table of predictions that return a ``matplotlib.figure.Figure``.

Write one with :func:`cxrnet.reporting.plots.style.save`, which makes room for its labels.
"""

import textwrap
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.predictions import classes_of, counts_of, label_codes, probabilities_of
from cxrnet.reporting.plots.style import DASHES, FAINT, FULL, INK, PALETTE, legend_below, save, styled


def save_plots(predictions: pd.DataFrame, metrics: Evaluation, folder: Path, suffix: str = "") -> dict[str, Path]:
    """Draw the four plots of one split as PNG, 150 dpi.

    Args:
        predictions: the rows of one split.
        metrics: of these rows.
        folder: where to write; made where it is missing.
        suffix: end of the names: ``""`` for test, ``"_val"`` for validation.

    Returns:
        Name (``"confusion_matrix_val"``) to file (``folder/confusion_matrix_val.png``).
    """
    plots = {
        "confusion_matrix": confusion_matrix(predictions),
        "recall_per_class": recall_per_class(predictions, metrics),
        "roc_curves": roc_curves(predictions, metrics),
        "pr_curves": pr_curves(predictions, metrics),
    }
    return {f"{name}{suffix}": save(plot, folder / f"{name}{suffix}.png") for name, plot in plots.items()}


@styled
def confusion_matrix(predictions: pd.DataFrame) -> Figure:
    """Draw the confusion matrix twice: images, and the share of each label's images (rows sum to one)."""
    classes, counts = classes_of(predictions), counts_of(predictions)
    totals = counts.sum(axis=1, keepdims=True)
    # The row of a class without images is left blank, not 0.
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    cell = max(0.55, 2.2 / len(classes))
    figure = Figure(figsize=(2 * cell * len(classes), cell * len(classes)))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw=FULL | {"wspace": 0.08})
    _matrix(left, shares, [[str(count) for count in row] for row in counts], _caption(predictions))
    _matrix(right, shares, [["–" if np.isnan(s) else f"{s:.2f}" for s in row] for row in shares], "share of row")
    left.set_yticks(range(len(classes)), _wrapped(classes))
    left.set_ylabel("label")
    for axes in (left, right):
        axes.set_xticks(range(len(classes)), _wrapped(classes), rotation=40, ha="right", rotation_mode="anchor")
        axes.set_xlabel("predicted")
    return figure


def _wrapped(classes: Iterable[str]) -> list[str]:
    return [textwrap.fill(name, 20) for name in classes]


def _matrix(axes: Axes, shares: npt.NDArray[np.float64], texts: list[list[str]], title: str) -> None:
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    axes.set_title(title)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    size = 13 if len(texts) <= 6 else 9
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            share = shares[row, column]
            colour = "white" if share > 0.55 else INK if share > 0 else FAINT
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


@styled
def recall_per_class(predictions: pd.DataFrame, metrics: Evaluation) -> Figure:
    """Draw the sensitivity of each class as a bar, with the images behind it (``63/66``)."""
    per_class = metrics["per_class"]
    figure = Figure(figsize=(3.6, 0.55 * len(per_class)))
    axes = figure.subplots(gridspec_kw=FULL)
    for row, of_class in enumerate(per_class.values()):
        value, n = of_class["sensitivity"]["value"], of_class["sensitivity"]["n"]
        axes.barh(row, value or 0, height=0.62, color=PALETTE[0])
        text = "no image" if value is None else f"{value:.3f}  ({round(value * n)}/{n})"
        inside = value is not None and value > 0.5
        position = value - 0.02 if value is not None and inside else (value or 0) + 0.02
        alignment, colour = ("right", "white") if inside else ("left", INK)
        axes.text(position, row, text, va="center", ha=alignment, color=colour)
    axes.set_yticks(range(len(per_class)), _wrapped(per_class))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("sensitivity (recall)")
    axes.set_title(_caption(predictions))
    return figure


@styled
def roc_curves(predictions: pd.DataFrame, metrics: Evaluation) -> Figure:
    """Draw the ROC curve of each class against the rest, with its AUC, and the line of chance."""
    figure, axes = _square()
    for name, value, positive, probability, line in _one_vs_rest(axes, predictions, metrics, "roc_auc"):
        false_positive, true_positive, _ = roc_curve(positive, probability)
        axes.plot(false_positive, true_positive, **line, label=f"{name}  AUC {value:.3f}")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity")
    return _finish(figure, axes, predictions)


@styled
def pr_curves(predictions: pd.DataFrame, metrics: Evaluation) -> Figure:
    """Draw precision over recall of each class against the rest; the thin line is its prevalence, which is chance."""
    figure, axes = _square()
    for name, value, positive, probability, line in _one_vs_rest(axes, predictions, metrics, "pr_auc"):
        precision, recall, _ = precision_recall_curve(positive, probability)
        # A step, as the average precision counts it (Davis and Goadrich 2006: no straight lines between points).
        axes.step(recall, precision, where="post", **line, label=f"{name}  AP {value:.3f}")
        axes.axhline(positive.mean(), color=line["color"], linewidth=0.8, linestyle=(0, (4, 3)))
    axes.plot([], [], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), label="chance (prevalence)")
    axes.set_xlabel("sensitivity (recall)")
    axes.set_ylabel("precision")
    return _finish(figure, axes, predictions)


OneVsRest = tuple[str, float, npt.NDArray[np.bool_], npt.NDArray[np.float64], dict[str, Any]]


def _one_vs_rest(axes: Axes, predictions: pd.DataFrame, metrics: Evaluation, name: str) -> Iterator[OneVsRest]:
    """Yield class, metric, ``(N,)`` truth, ``(N,)`` probability and line style of each class.

    A class without the metric stands in the legend of the axes only.
    """
    codes, probabilities = label_codes(predictions), probabilities_of(predictions)
    styles = ({"color": colour, "linestyle": dash} for dash in cycle(DASHES) for colour in PALETTE)
    per_class = metrics["per_class"]
    for index, (label, line) in enumerate(zip(per_class, islice(styles, len(per_class)), strict=True)):
        value = per_class[label][name]["value"]
        if value is None:
            axes.plot([], [], color=FAINT, label=f"{label}  n/a")
        else:
            yield label, value, codes == index, probabilities[:, index], line


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.2, 4.2))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    return figure, axes


def _finish(figure: Figure, axes: Axes, predictions: pd.DataFrame) -> Figure:
    axes.set_title(_caption(predictions))
    many = len(classes_of(predictions)) > 6
    legend_below(axes, columns=2 if many else 1, size=9 if many else 11)
    return figure


def _caption(predictions: pd.DataFrame) -> str:
    splits = ", ".join(sorted(predictions["split"].dropna().unique()))
    return f"{splits}, n = {len(predictions)}" if splits else f"n = {len(predictions)}"


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
            ``train/accuracy, val/accuracy`` in [0, 1].
        kept_epoch: the epoch whose weights were kept.
    """
    return _curve(history, "accuracy", kept_epoch)


def loss_curve(history: pd.DataFrame, kept_epoch: int) -> Figure:
    """Draw the loss of train and val over the epochs; arguments as for :func:`accuracy_curve`."""
    return _curve(history, "loss", kept_epoch)


@styled
def _curve(history: pd.DataFrame, metric: str, kept_epoch: int) -> Figure:
    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.subplots(gridspec_kw=FULL)
    for split, colour in (("train", PALETTE[4]), ("val", PALETTE[0])):
        axes.plot(
            history["epoch"],
            history[f"{split}/{metric}"],
            color=colour,
            marker=".",
            label=split,
            zorder=3,
        )
    kept = history[history["epoch"] == kept_epoch]
    axes.plot(
        kept["epoch"],
        kept[f"val/{metric}"],
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
    axes.set_ylabel(metric)
    legend_below(axes, columns=3)
    return figure


def _mark_phases(axes: Axes, history: pd.DataFrame) -> None:
    """Draw a thin line where a phase starts, its name above the frame."""
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
