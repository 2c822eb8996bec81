"""The plots of one split, of its analysis and of a training; each function returns a ``matplotlib.figure.Figure``.

Write one with :func:`cxrnet.reporting.plots.style.save`, which makes room for its labels.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrnet.evaluation.calibration import error_of_table
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.predictions import classes_of, counts_of, label_codes, probabilities_of
from cxrnet.reporting.plots.style import DASHES, FAINT, FULL, INK, PALETTE, legend_below, save, styled
from cxrnet.reporting.wording import percent

L2Losses = tuple[float, Sequence[tuple[float, float]]]  # the chosen L2; each that was tried, with its log loss
_RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 10,
    "markerfacecolor": "none",
    "markeredgecolor": PALETTE[1],
    "markeredgewidth": 1.8,
    "zorder": 4,
}
_THIN: dict[str, Any] = {"color": FAINT, "linewidth": 1, "linestyle": (0, (4, 3))}


def save_plots(predictions: pd.DataFrame, metrics: Evaluation, folder: Path, suffix: str = "") -> dict[str, Path]:
    """Draw the four plots of one split as PNG, 150 dpi; ``suffix`` ends their names: ``""`` for test, ``"_val"``.

    Returns:
        Name (``"confusion_matrix_val"``) to file (``folder/confusion_matrix_val.png``).
    """
    plots = {
        "confusion_matrix": confusion_matrix(predictions),
        "sensitivity_per_class": sensitivity_per_class(predictions, metrics),
        "roc_curves": roc_curves(predictions, metrics),
        "pr_curves": pr_curves(predictions, metrics),
    }
    return {f"{name}{suffix}": save(plot, folder / f"{name}{suffix}.png") for name, plot in plots.items()}


def draw_matrix(
    axes: Axes, counts: npt.NDArray[np.int64], texts: list[list[str]] | None, sizes: tuple[int, int]
) -> None:
    """Draw a confusion matrix (K, K), shaded by the share of the images of each label.

    ``texts`` are those of the cells, ``None`` for counts with shares below them; ``sizes`` those of the font, in
    points, of few classes and of many.
    """
    shares = shares_of(counts)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (row, column), share in np.ndenumerate(shares):
        both = f"{counts[row, column]}" + ("" if np.isnan(share) else f"\n{share:.2f}")
        text = both if texts is None else texts[row][column]
        colour = "white" if share > 0.55 else INK if share > 0 else FAINT
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=sizes[len(counts) > 6])


def shares_of(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the share of the images of each label, (K, K), rows sum to one; NaN of a label without images."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0))


@styled
def confusion_matrix(predictions: pd.DataFrame) -> Figure:
    """Draw the confusion matrix twice: images, and the share of each label's images (rows sum to one)."""
    classes, counts = classes_of(predictions), counts_of(predictions)
    cell = max(0.55, 2.2 / len(classes))
    figure = Figure(figsize=(2 * cell * len(classes), cell * len(classes)))
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw=FULL | {"wspace": 0.08})
    shares = [["–" if np.isnan(share) else f"{share:.2f}" for share in row] for row in shares_of(counts)]
    draw_matrix(left, counts, [[str(count) for count in row] for row in counts], (13, 9))
    draw_matrix(right, counts, shares, (13, 9))
    left.set_title(_caption(predictions))
    right.set_title("share of row")
    left.set_yticks(range(len(classes)), _wrapped(classes))
    left.set_ylabel("label")
    for axes in (left, right):
        axes.set_xticks(range(len(classes)), _wrapped(classes), rotation=40, ha="right", rotation_mode="anchor")
        axes.set_xlabel("predicted")
    return figure


def _wrapped(classes: Iterable[str]) -> list[str]:
    return [textwrap.fill(name, 20) for name in classes]


@styled
def sensitivity_per_class(predictions: pd.DataFrame, metrics: Evaluation) -> Figure:
    """Draw the sensitivity of each class as a bar, with the images behind it (``63/66``)."""
    per_class = metrics["per_class"]
    figure = Figure(figsize=(3.6, 0.55 * len(per_class)))
    axes = figure.subplots(gridspec_kw=FULL)
    for row, of_class in enumerate(per_class.values()):
        metric, value = of_class["sensitivity"], of_class["sensitivity"]["value"] or 0.0
        axes.barh(row, value, height=0.62, color=PALETTE[0])
        counts = f"{value:.3f}  ({round(value * metric['n'])}/{metric['n']})"
        text, inside = "no image" if metric["value"] is None else counts, value > 0.5
        place, alignment, colour = (value - 0.02, "right", "white") if inside else (value + 0.02, "left", INK)
        axes.text(place, row, text, va="center", ha=alignment, color=colour)
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
        axes.plot(false_positive, true_positive, **line, label=f"{name}  ROC-AUC {value:.3f}")
    axes.plot([0, 1], [0, 1], **_THIN, label="chance")
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
        axes.step(recall, precision, where="post", **line, label=f"{name}  PR-AUC {value:.3f}")
        axes.axhline(positive.mean(), **{**_THIN, "color": line["color"], "linewidth": 0.8})
    axes.plot([], [], **_THIN, label="chance (prevalence)")
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
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
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
    """Draw ``accuracy_curve.png`` and ``loss_curve.png`` of a training; see :func:`training_curve`."""
    plots = {f"{metric}_curve": training_curve(history, metric, kept_epoch) for metric in ("accuracy", "loss")}
    return {name: save(plot, folder / f"{name}.png") for name, plot in plots.items()}


@styled
def training_curve(history: pd.DataFrame, metric: str, kept_epoch: int) -> Figure:
    """Draw a metric (``accuracy``, ``loss``) of train and val over the epochs, the kept epoch and the starts of phases.

    ``history`` has one row an epoch: ``phase``, ``epoch`` (from 1, running on across phases), ``train/<metric>``,
    ``val/<metric>``.
    """
    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.subplots(gridspec_kw=FULL)
    for split, colour in (("train", PALETTE[4]), ("val", PALETTE[0])):
        axes.plot(history["epoch"], history[f"{split}/{metric}"], color=colour, marker=".", label=split, zorder=3)
    kept = history[history["epoch"] == kept_epoch]
    axes.plot(kept["epoch"], kept[f"val/{metric}"], ls="none", **_RING, label=f"kept (epoch {kept_epoch})")
    starts = history[history["phase"] != history["phase"].shift()]
    above = axes.get_xaxis_transform()
    for phase, epoch in zip(starts["phase"], starts["epoch"], strict=True):
        axes.axvline(epoch - 0.5, color=FAINT, linewidth=0.8)
        axes.text(epoch - 0.4, 1.01, phase, transform=above, color=FAINT, va="bottom", fontsize=10)
    axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(metric)
    legend_below(axes, columns=3)
    return figure


@styled
def l2_choice(losses: Mapping[str, L2Losses]) -> Figure:
    """Draw, by phase, the cross-validated log loss of each L2 that was tried, and a ring around the chosen one."""
    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.subplots(gridspec_kw=FULL)
    for colour, (phase, (chosen, tried)) in zip(cycle(PALETTE), losses.items(), strict=False):
        axes.plot(*zip(*tried, strict=True), color=colour, marker=".", label=phase)
        axes.plot(chosen, dict(tried)[chosen], ls="none", **_RING, label=f"chosen ({chosen:g})")
    strengths = sorted({strength for _, tried in losses.values() for strength, _ in tried})
    axes.set_xscale("log")
    axes.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("L2, from strong to weak")
    axes.set_ylabel("log loss, held out")
    legend_below(axes, columns=3)
    return figure


@styled
def reliability_diagram(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw accuracy over confidence with Wilson's intervals, and below it the images of each bin.

    ``tables``, by the name that the legend has, are from :func:`cxrnet.evaluation.calibration.reliability_table`, of
    the same images.
    """
    figure = Figure(figsize=(4.2, 5.2))
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw=FULL | {"height_ratios": [4.2, 0.8], "hspace": 0.08})
    top.plot([0, 1], [0, 1], **_THIN, label="confidence = accuracy")
    for number, (name, table) in enumerate(tables.items()):
        colour, x, y = PALETTE[number % len(PALETTE)], table["confidence"], table["accuracy"]
        right = (y * table["n"]).round().astype(int)
        bounds = np.array([wilson(part, whole) for part, whole in zip(right, table["n"], strict=True)]).T
        line: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 5, "elinewidth": 1, "capsize": 2}
        top.errorbar(x, y, yerr=np.abs(bounds - y.to_numpy()), **line, label=f"{name}  ECE {error_of_table(table):.3f}")
        fill = (colour, 0.0 if number else 0.3)
        bottom.bar(table["low"], table["n"], table["high"] - table["low"], align="edge", color=fill, edgecolor=colour)
    top.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel="accuracy")
    top.set_title(f"n = {next(iter(tables.values()))['n'].sum()}")
    bottom.set(ylabel="images", xlabel="confidence")
    bottom.legend(*top.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, -0.55))
    return figure


@styled
def decision_plot(curve: pd.DataFrame, name: str) -> Figure:
    """Draw the net benefit of acting on a model, on all patients, and on none, for the class ``name``."""
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.plot(curve["threshold"], curve["model"], color=PALETTE[0], label="by the model", zorder=3)
    _band(axes, curve["threshold"], curve)
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
    """Draw the error of the predictions that are kept over the share that is deferred; ``area`` is that under it."""
    figure = Figure(figsize=(4.6, 3.1))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.plot(curve["deferred"], curve["error"], color=PALETTE[0], drawstyle="steps-post", label=f"AURC {area:.3f}")
    _band(axes, curve["deferred"], curve, step="post")
    axes.axhline(curve["error"].iloc[-1], **_THIN, label="none deferred")
    # The intervals of the last few predictions are wide and may leave the plot.
    tops = pd.concat([curve["error"], curve["high"][curve["deferred"] <= 0.5]])
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * tops.max() or None))
    axes.set_xlabel("share of predictions deferred, least certain first")
    axes.set_ylabel("error of the other predictions")
    axes.set_title(f"n = {curve['n'].iloc[-1]}")
    legend_below(axes, columns=2)
    return figure


def _band(axes: Axes, x: "pd.Series[float]", curve: pd.DataFrame, step: Literal["post"] | None = None) -> None:
    """Shade the intervals of the points that have one."""
    known = curve["low"].notna()
    if known.any():
        x, low, high = (column[known] for column in (x, curve["low"], curve["high"]))
        axes.fill_between(x, low, high, step=step, color=PALETTE[0], alpha=0.15, linewidth=0, label="confidence band")
