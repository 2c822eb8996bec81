"""The jobs of a group, the ratios that are taken in each round, and their tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jobs import Job, Numbers
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


@dataclass(frozen=True)
class Ratio:
    """A number that is made of those of one or several jobs, and its target."""

    name: str  # what stands against what
    operands: tuple[tuple[str, str], ...]  # job and number of each argument of the formula
    formula: Callable[..., float | None] = lambda value: value  # gives None where there is no value
    least: float | None = None  # target from below
    most: float | None = None  # target from above
    unit: str = ""  # of the value; empty for a ratio

    def over(self, rounds: Sequence[Mapping[str, Numbers]]) -> dict[str, Any]:
        """Return the median of the rounds, their extremes and whether the target is met, as JSON has them.

        Args:
            rounds: the numbers of each, by job.

        Returns:
            ``None`` for the value where most of the rounds have none, and for ``met`` where there is no target.
        """
        given = [[numbers.get(job, {}).get(number) for job, number in self.operands] for numbers in rounds]
        computed = [self.formula(*operands) for operands in given if None not in operands]
        values = [value for value in computed if value is not None]
        middle = median(values) if values and 2 * len(values) >= len(rounds) else None
        met = None
        if middle is not None and (self.least is not None or self.most is not None):
            met = (self.least is None or middle >= self.least) and (self.most is None or middle <= self.most)
        extremes = None if middle is None else (min(values), max(values))
        facts = {"name": self.name, "value": middle, "unit": self.unit, "extremes": extremes}
        return {**facts, "least": self.least, "most": self.most, "met": met}


def quotient(a: float, b: float) -> float | None:
    """Compute ``a / b``; ``None`` where b is 0."""
    return a / b if b else None


def repaid_after(start: float, fast_start: float, slow: float, fast: float) -> float | None:
    """Count the images after which a faster rate repays its start, ``fast_start - start = n / slow - n / fast``.

    ``None`` where it is no faster. Starts in seconds, rates in images a second.
    """
    return max(0.0, fast_start - start) / (1 / slow - 1 / fast) if fast > slow else None


@dataclass(frozen=True)
class Group:
    """Jobs that are measured together."""

    title: str
    numbers: Sequence[str]  # those of UNITS that are shown; the first one that a job has also when it ends
    jobs: Sequence[Job]  # in the order of each round
    ratios: Sequence[Ratio]  # taken in each round
    before: Sequence[Job] = ()  # done once before, and not measured
    rounds: int | None = None  # None takes the option repeats

    def to_dict(self) -> dict[str, Any]:
        """Return what came of it so far, as JSON has it: every repeat, the medians, the ratios."""
        count = max((len(job.repeats) for job in self.jobs), default=0)
        rounds = [{job.name: job.repeats[k] for job in self.jobs if k < len(job.repeats)} for k in range(count)]
        jobs = {job.name: {"median": job.medians, **asdict(job)} for job in self.jobs}
        ratios = [ratio.over(rounds) for ratio in self.ratios]
        return {"title": self.title, "numbers": list(self.numbers), "jobs": jobs, "ratios": ratios}


Rows = list[list[str]]


def tables(result: Mapping[str, Any]) -> tuple[Rows, Rows]:
    """Write the medians of each job of a group, and the ratios with their targets, as rows under a row of titles.

    Args:
        result: what :meth:`Group.to_dict` returned.
    """
    jobs: Rows = [["median", *(UNITS[name] for name in result["numbers"])]]
    for job, one in result["jobs"].items():
        jobs.append([job, *(number_text(one["median"].get(name)) for name in result["numbers"])])
    ratios: Rows = [["ratio", "value", "target", ""]]
    for ratio in result["ratios"]:
        value, unit, least, most = number_text(ratio["value"]), ratio["unit"], ratio["least"], ratio["most"]
        low, high = ratio["extremes"] or (0, 0)
        value = f"{value} {unit}".strip() + (f" ({number_text(low)} to {number_text(high)})" if low < high else "")
        target = f"≥ {least:g} {unit}" if least is not None else f"≤ {most:g} {unit}" if most is not None else ""
        met = {True: "met", False: "missed", None: ""}[ratio["met"]]
        ratios.append([ratio["name"], value, target.strip(), met])
    return jobs, ratios


def show(result: Mapping[str, Any]) -> None:
    """Print the tables of a group."""
    console.heading(result["title"])
    for (first, *others), *rows in tables(result):
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 2))
        table.add_column(first, overflow="fold")
        for name in others:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*row)
        console.show(table)


def page(results: Iterable[Mapping[str, Any]], machine: str, command: str) -> str:
    """Write the tables of all groups as Markdown, below the machine and the command that measured them."""
    parts = [f"{machine}: `{command}`"]
    for result in results:
        parts.append(f"## {result['title']}")
        for titles, *rows in tables(result):
            lines = [titles, ["---"] + ["---:"] * (len(titles) - 1), *rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


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
