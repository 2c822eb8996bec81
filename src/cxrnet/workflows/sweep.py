"""The end of a sweep: the classification reports of its jobs side by side.

Hydra makes the callback whenever a command starts, so nothing heavy is imported before a sweep begins.
"""

import atexit
import importlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cxrnet.core.atomic import write_text
from cxrnet.core.config import unresolved
from cxrnet.errors import CxrnetError

if TYPE_CHECKING:
    import pandas as pd


REPORTS = "classification_reports.txt"


class SideBySide(Callback):
    """Writes and prints the reports of a sweep when the command ends."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401 (Hydra's own signature)
        """Make sure of the report: Hydra calls ``on_multirun_end`` only where no job failed and nothing was stopped."""
        # Now, because a program that is ending can't import what may start threads.
        importlib.import_module("cxrnet.reporting.text")
        atexit.register(report_sweep, Path(config.hydra.sweep.dir))


def report_sweep(folder: Path) -> None:
    """Write the reports of the jobs of a sweep to ``classification_reports.txt``, and print them.

    Each job is evaluated on ``test``, or on ``val`` where it has none; jobs that left no predictions are named. A
    sweep of which no job left any gets no report.

    Args:
        folder: of the sweep; each job has a folder in it.
    """
    from cxrnet.core import console
    from cxrnet.evaluation.predictions import read_predictions
    from cxrnet.reporting.text import side_by_side

    jobs = _jobs(folder)
    done = {name: job / "predictions.parquet" for name, job in jobs.items() if (job / "predictions.parquet").is_file()}
    if not done:
        return
    text = side_by_side({name: _headline(read_predictions(file)) for name, file in done.items()})
    lost = [f"no result: {name} ({_reason(job)})" for name, job in jobs.items() if name not in done]
    text = "\n".join([text, *lost, ""]) if lost else text
    write_text(folder / REPORTS, text)
    console.heading("The jobs of the sweep")
    print(f"\n{text}")
    console.say("reports", str(folder / REPORTS))


def _headline(predictions: "pd.DataFrame") -> "pd.DataFrame":
    test = predictions[predictions["split"] == "test"]
    return test if len(test) else predictions[predictions["split"] == "val"]


def _reason(job: Path) -> str:
    """Return the last line of ``error.txt``, which holds a traceback or the line of a user's mistake."""
    file = job / "error.txt"
    return file.read_text(encoding="utf-8").splitlines()[-1] if file.is_file() else f"see {job / 'run.log'}"


def _jobs(folder: Path) -> dict[str, Path]:
    """Find the folders of the jobs in the order in which they began, each by its own overrides."""
    started = []
    for file in folder.glob("*/.hydra/hydra.yaml"):
        try:
            settings = unresolved(file)["hydra"]
            started.append((int(settings["job"]["num"]), [*map(str, settings["overrides"]["task"])], file.parents[1]))
        except (LookupError, TypeError, ValueError) as error:
            raise CxrnetError(f"sweep: '{file}' is none of a job of a sweep; copy it again") from error
    started.sort()
    return dict(zip(job_names([task for _, task, _ in started]), (path for *_, path in started), strict=True))


def job_names(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Name each job by its overrides that not all jobs have.

    Args:
        overrides: of each job, as ``["model=vgg16", "optimizer.lr=0.1"]``.

    Returns:
        ``["model=vgg16 lr=0.1", ...]``, the keys shortened where that leaves them different, and with the number of
        the job before it where that doesn't tell it from the others.
    """
    common = set.intersection(*map(set, overrides)) if overrides else set()
    own = [[override.lstrip("+~").partition("=") for override in task if override not in common] for task in overrides]
    ends = Counter(key.rpartition(".")[2] for key in {key for task in own for key, *_ in task})

    def short(key: str) -> str:
        end = key.rpartition(".")[2]
        return end if ends[end] == 1 else key

    names = [" ".join(f"{short(key)}{equals}{value}" for key, equals, value in task) for task in own]
    return [
        name if name and names.count(name) == 1 else f"job {place} {name}".strip() for place, name in enumerate(names)
    ]
