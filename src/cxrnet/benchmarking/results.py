"""What came of a benchmark, and its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrnet.benchmarking.measuring import Measured
from cxrnet.benchmarking.ratios import Ratio
from cxrnet.core.atomic import write_json


@dataclass(frozen=True)
class GroupResult:
    """What came of a group.

    Attributes:
        title: heading.
        numbers: of a job that are shown; the figure shows the first.
        measured: its jobs.
        ratios: medians of those of each round.
    """

    title: str
    numbers: Sequence[str]
    measured: Sequence[Measured]
    ratios: Sequence[Ratio]

    @property
    def failed(self) -> list[Measured]:
        """Jobs that ended with an error; a contender that isn't installed is none."""
        return [one for one in self.measured if one.failed is not None]


def write_results(results: Mapping[str, GroupResult], about: Mapping[str, Any], file: Path) -> None:
    """Write everything that was measured so far as JSON, whole or not at all.

    Args:
        results: by name of the group.
        about: command, machine and configuration.
        file: to write.
    """
    values = {**about, "groups": {name: _plain(result) for name, result in results.items()}}
    write_json(file, values)


def _plain(result: GroupResult) -> dict[str, Any]:
    return {
        "title": result.title,
        "jobs": {
            one.job.name: {
                "median": one.medians,
                "repeats": one.repeats,
                "missing": one.missing,
                "failed": one.failed,
                "function": one.job.function,
                "settings": dict(one.job.settings),
            }
            for one in result.measured
        },
        "ratios": [ratio.to_dict() for ratio in result.ratios],
    }
