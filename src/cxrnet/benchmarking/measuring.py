"""Rounds: every contender in turn, so that what else the machine does hits all of them alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich import get_console

from cxrnet.benchmarking.jobs import Answer, Job, Numbers, run_job


@dataclass
class Measured:
    """All repeats of one job.

    Attributes:
        job: what was done.
        repeats: what each repeat measured.
        missing: why the contender isn't there; it is asked once.
        failed: what went wrong; it isn't tried again.
    """

    job: Job
    repeats: list[Numbers] = field(default_factory=list)
    missing: str | None = None
    failed: str | None = None

    def add(self, answer: Answer) -> None:
        """Take what came of one repeat."""
        if answer.numbers is not None:
            self.repeats.append(answer.numbers)
        self.missing, self.failed = answer.missing, answer.failed

    @property
    def medians(self) -> Numbers:
        """The median of every number; a fact in words is that of the first repeat."""
        first = self.repeats[0] if self.repeats else {}
        return {
            name: median(numbers[name] for numbers in self.repeats) if isinstance(value, int | float) else value
            for name, value in first.items()
        }


@dataclass(frozen=True)
class Table:
    """Numbers of a group's jobs, by name."""

    rows: dict[str, Numbers]

    def get(self, job: str, number: str) -> float | None:
        """A number; ``None`` where the job wasn't done."""
        value = self.rows.get(job, {}).get(number)
        return None if value is None else float(value)


def measure(group: str, measured: Sequence[Measured], repeats: int, log: Path) -> None:
    """Run every job once, then every job a second time, and so on.

    Args:
        group: shown while it lasts.
        measured: jobs in the order in which they run, names are unique; they take what was measured as it comes.
        repeats: rounds.
        log: see :func:`cxrnet.benchmarking.jobs.run_job`.
    """
    with get_console().status(group) as status:
        for number, one in _rounds(measured, repeats):
            status.update(f"{group}, round {number} of {repeats}: {one.job.name}")
            one.add(run_job(one.job, log))


def rounds_of(measured: Sequence[Measured]) -> list[Table]:
    """What each round measured; a job that wasn't done in a round isn't in its table."""
    rounds = max((len(one.repeats) for one in measured), default=0)
    return [
        Table({one.job.name: one.repeats[number] for one in measured if number < len(one.repeats)})
        for number in range(rounds)
    ]


def _rounds(measured: Sequence[Measured], repeats: int) -> Iterator[tuple[int, Measured]]:
    for number in range(1, repeats + 1):
        for one in measured:
            if one.missing is None and one.failed is None:
                yield number, one
