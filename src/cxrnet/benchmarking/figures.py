"""The figure of a group: a bar for each job with every repeat as a dot, or a line where data sets grow."""

from pathlib import Path

from matplotlib.figure import Figure

from cxrnet.benchmarking.measuring import Measured
from cxrnet.benchmarking.plan import NUMBERS
from cxrnet.benchmarking.results import GroupResult
from cxrnet.benchmarking.saying import number_text
from cxrnet.reporting.plots.style import FAINT, FULL, INK, PALETTE, save, styled


def draw(result: GroupResult, file: Path) -> Path:
    """Write a group's figure as PNG, 150 dpi."""
    return save(growth_figure(result) if result.numbers[0] == "ms_per_image" else bars(result), file)


@styled
def bars(result: GroupResult) -> Figure:
    """Draw the median of each job; cxrnet's own stand out, a job that wasn't done says why."""
    number = result.numbers[0]
    figure = Figure(figsize=(4.2, 0.34 * len(result.measured)))
    axes = figure.subplots(gridspec_kw=FULL)
    for row, one in enumerate(result.measured):
        value = one.medians.get(number, 0.0)
        repeats = [numbers[number] for numbers in one.repeats]
        axes.barh(row, value, height=0.66, color=PALETTE[0] if "cxrnet" in one.job.name else FAINT)
        axes.plot(repeats, [row] * len(repeats), ".", color=INK, markersize=3)
        axes.text(max([value, *repeats]), row, f" {_words(one, value)}", va="center", fontsize=9)
    axes.set_yticks(range(len(result.measured)), [one.job.name for one in result.measured])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(NUMBERS[number])
    axes.set_title(result.title)
    return figure


def _words(one: Measured, value: float) -> str:
    if one.repeats:
        return number_text(value)
    return "missing" if one.missing is not None else "failed"


@styled
def growth_figure(result: GroupResult) -> Figure:
    """Draw the time per image of each set-up over its number of images."""
    number = result.numbers[0]
    medians = [one.medians for one in result.measured if number in one.medians]
    points = sorted((row["images"], row[number]) for row in medians)
    figure = Figure(figsize=(4.2, 2.6))
    axes = figure.subplots(gridspec_kw=FULL)
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o", color=PALETTE[0])
    for images, value in points:
        axes.annotate(number_text(value), (images, value), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_xticks([x for x, _ in points], [f"{x:,}" for x, _ in points])
    axes.minorticks_off()
    axes.set_ylim(0, 1.25 * max((y for _, y in points), default=1.0))
    axes.set_xlabel("images")
    axes.set_ylabel(NUMBERS[number])
    axes.set_title("first set-up: reading, copies, split")
    return figure
