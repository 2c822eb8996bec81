"""Measurements of a group, the ratios that are taken in each round, and their tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jobs import Job, Measurement, Numbers
from rich.table import Table

from cxrnet.core import console

UNITS = {
    "seconds": "seconds",
    "images_per_second": "images/s",
    "val_accuracy": "val accuracy",
    "waiting_share": "waiting",
    "warm_up_seconds": "warm-up, s",
    "memory_mb": "memory, MB",
    "device_memory_mb": "device memory, MB",
    "ms_per_image": "ms/image",
    "open_seconds": "open, s",
    "split_seconds": "split, s",
}
Formula = Callable[..., float | None]


@dataclass(frozen=True)
class Ratio:
    """A number that is made of those of one or several jobs, and its target.

    Attributes:
        name: what stands against what.
        operands: job and number of each argument of the formula.
        formula: makes the value; ``None`` where there is none.
        least: target from below.
        most: target from above.
        unit: of the value; empty for a ratio.
    """

    name: str
    operands: tuple[tuple[str, str], ...]
    formula: Formula = lambda value: value
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def value(self, numbers: Mapping[str, Numbers]) -> float | None:
        """Compute the value in a round whose numbers are given by job; ``None`` where one of them wasn't measured."""
        given = [numbers.get(job, {}).get(number) for job, number in self.operands]
        return None if None in given else self.formula(*given)

    def over(self, rounds: Sequence[Mapping[str, Numbers]]) -> dict[str, Any]:
        """Return the median of the rounds, their extremes and whether the target is met, as JSON has them.

        ``None`` where most of the rounds have no value, or where there is no target.
        """
        values = [value for numbers in rounds if (value := self.value(numbers)) is not None]
        middle, met = None, None
        if values and 2 * len(values) >= len(rounds):
            middle = median(values)
            met = middle >= self.least if self.least is not None else middle <= self.most if self.most else None
        extremes = None if middle is None else (min(values), max(values))
        facts = {"name": self.name, "value": middle, "unit": self.unit, "extremes": extremes}
        return {**facts, "least": self.least, "most": self.most, "met": met}


def quotient(a: float, b: float) -> float | None:
    """Compute ``a / b``; ``None`` where b is 0."""
    return a / b if b else None


def difference(a: float, b: float) -> float:
    """Compute ``a - b``."""
    return a - b


def repaid_after(start: float, fast_start: float, slow: float, fast: float) -> float | None:
    """Count the images after which a faster rate repays its start, ``fast_start - start = n / slow - n / fast``.

    ``None`` where it is no faster. Starts in seconds, rates in images a second.
    """
    return max(0.0, fast_start - start) / (1 / slow - 1 / fast) if fast > slow else None


@dataclass(frozen=True)
class Group:
    """Jobs that are measured together.

    Attributes:
        title: heading.
        numbers: those of :data:`UNITS` that are shown; the first one also when a job ends.
        jobs: in the order of each round.
        ratios: taken in each round.
        before: jobs that are done once before, and not measured.
        rounds: their number; ``None`` takes ``repeats``.
    """

    title: str
    numbers: Sequence[str]
    jobs: Sequence[Job]
    ratios: Sequence[Ratio]
    before: Sequence[Job] = ()
    rounds: int | None = None

    def to_dict(self, measured: Sequence[Measurement]) -> dict[str, Any]:
        """Return what came of it so far, as JSON has it: every repeat, the medians, the ratios."""
        count = max((len(one.repeats) for one in measured), default=0)
        rounds = [{one.job.name: one.repeats[k] for one in measured if k < len(one.repeats)} for k in range(count)]
        jobs = {one.job.name: {"median": one.medians, **asdict(one)} for one in measured}
        return {"title": self.title, "jobs": jobs, "ratios": [ratio.over(rounds) for ratio in self.ratios]}


def show(result: Mapping[str, Any], numbers: Sequence[str]) -> None:
    """Print the medians of each job of a group, then the ratios with their targets."""
    console.heading(result["title"])
    table = _table("median", *(UNITS[name] for name in numbers))
    for job, one in result["jobs"].items():
        table.add_row(job, *(number_text(one["median"].get(name)) for name in numbers))
    console.show(table)
    table = _table("ratio", "value", "target", "")
    for ratio in result["ratios"]:
        value, unit, least, most = number_text(ratio["value"]), ratio["unit"], ratio["least"], ratio["most"]
        low, high = ratio["extremes"] or (0, 0)
        value = f"{value} {unit}".strip() + (f" ({number_text(low)} to {number_text(high)})" if low < high else "")
        target = f"≥ {least:g} {unit}" if least is not None else f"≤ {most:g} {unit}" if most is not None else ""
        table.add_row(ratio["name"], value, target.strip(), {True: "met", False: "missed", None: ""}[ratio["met"]])
    console.show(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 2))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def number_text(value: float | None) -> str:
    """Write three significant digits, no decimals from a hundred on; a dash where there is no number."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot_growth(result: Mapping[str, Any], file: Path) -> None:
    """Write milliseconds per image over the number of images, as PNG."""
    from matplotlib.figure import Figure

    from cxrnet.reporting.plots.style import save

    medians = [job["median"] for job in result["jobs"].values() if "ms_per_image" in job["median"]]
    figure = Figure(figsize=(4.2, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.semilogx([row["images"] for row in medians], [row["ms_per_image"] for row in medians], marker="o")
    axes.set(xlabel="images", ylabel="ms/image", title="first set-up: reading, duplicates, split")
    axes.set_ylim(bottom=0)
    save(figure, file)
