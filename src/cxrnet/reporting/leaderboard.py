"""The jobs of a sweep, ranked by the monitored validation metric: console, CSV and the page in MLflow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table as ConsoleTable

from cxrnet.core import console
from cxrnet.reporting.rendering import Table, bullets, code, markdown, paragraph
from cxrnet.reporting.wording import duration

ROWS = 20  # of a leaderboard on the console and in MLflow; the file has all


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        number: from 0, in the order of the sweep.
        name: what tells it from the others: ``"model=vgg16 lr=0.1 seed=1"``.
        configuration: the same without its seed; jobs of one configuration are repetitions.
        folder: folder of its run.
        status: FINISHED, PRUNED, FAILED, KILLED, or RUNNING for one whose process was killed.
        monitor: the metric that decides, ``"val/loss"``.
        higher_is_better: direction of ``monitor``.
        score: the value of ``monitor`` of the kept weights, over folds and seeds its mean; ``None`` where none is.
        seconds: seconds that its phases trained.
        run_id: id of its run in MLflow.
        reason: why it failed or was pruned.
        tested: it has predicted the test images.
    """

    number: int
    name: str
    configuration: str
    folder: Path
    status: str
    monitor: str = ""
    higher_is_better: bool = False
    score: float | None = None
    seconds: float = math.nan
    run_id: str | None = None
    reason: str = ""
    tested: bool = False


def comparable(jobs: Sequence[Job]) -> bool:
    """Tell whether all scores are of one metric, so that the jobs can be ranked."""
    return len({job.monitor for job in jobs if job.score is not None}) == 1


def ranked(jobs: Sequence[Job]) -> list[Job]:
    """Order jobs: finished ones by their score, the best first; behind them the others in the order of the sweep.

    Jobs that are monitored by different metrics stay in the order of the sweep.
    """
    if not comparable(jobs):
        return [*jobs]
    done = [job for job in jobs if job.score is not None]
    done.sort(key=lambda job: -(job.score or 0) if job.higher_is_better else job.score or 0)
    return [*done, *(job for job in jobs if job.score is None)]


def by_configuration(jobs: Sequence[Job]) -> pd.DataFrame:
    """Average the scores of the jobs that differ in their seed alone.

    Returns:
        A row a configuration, the best first: ``configuration``, ``mean``, ``sd`` (NaN of one job), ``jobs``. Empty
        where no configuration is repeated, or the jobs can't be ranked.
    """
    done = [job for job in jobs if job.score is not None] if comparable(jobs) else []
    table = pd.DataFrame({"configuration": [job.configuration for job in done], "score": [job.score for job in done]})
    if not table["configuration"].duplicated().any():
        return table.iloc[:0]
    means = table.astype({"score": float}).groupby("configuration", sort=False)["score"].agg(["mean", "std", "count"])
    means = means.rename(columns={"std": "sd", "count": "jobs"}).reset_index()
    return means.sort_values("mean", ascending=not done[0].higher_is_better, kind="stable", ignore_index=True)


def best_job(jobs: Sequence[Job]) -> Job | None:
    """Return the best job: of the configuration with the best mean over its seeds; ``None`` where jobs have no rank.

    Seeds draw the split too, so a single score may be best by the luck of its validation images.
    """
    order = [job for job in ranked(jobs) if job.score is not None] if comparable(jobs) else []
    repeated = by_configuration(jobs)
    if len(repeated):
        order = [job for job in order if job.configuration == repeated["configuration"].iloc[0]]
    return order[0] if order else None


def leaderboard(jobs: Sequence[Job]) -> pd.DataFrame:
    """Lay out jobs, one row each, the best first; ``rank`` is empty for those without a score."""
    order, places = ranked(jobs), _places(jobs)
    return pd.DataFrame(
        {
            "rank": pd.array([places.get(job.number) for job in order], "Int64"),
            "job": [job.name for job in order],
            "metric": [job.monitor for job in order],
            "score": [math.nan if job.score is None else job.score for job in order],
            "status": [job.status for job in order],
            "seconds": [job.seconds for job in order],
            "folder": [job.folder.name for job in order],
            "run_id": [job.run_id for job in order],
            "reason": [job.reason for job in order],
        }
    )


def say_leaderboard(jobs: Sequence[Job]) -> None:
    """Print the leaderboard, and the means over seeds where there are any."""
    for title, rows in _tables(jobs).items():
        console.heading(title)
        table = ConsoleTable(box=None, pad_edge=False, padding=(0, 2, 0, 2), collapse_padding=True)
        for name in rows:
            table.add_column(name, justify="left" if name in ("job", "status", "configuration") else "right")
        for row in rows.itertuples(index=False):
            table.add_row(*map(str, row))
        console.show(table)
    if text := best_text(jobs):
        console.say("best job", text)
    if len(jobs) > ROWS:
        console.say("not shown", f"{len(jobs) - ROWS} further jobs, see leaderboard.csv")


def sweep_page(jobs: Sequence[Job], warnings: Sequence[str], command: str) -> str:
    """Write the text on top of a sweep's page in MLflow: the leaderboard, the warnings, the command."""
    tables = [
        f"**{title}**\n\n{markdown(Table('', rows, text=2 if 'job' in rows else 1, grouped=False, note=''))}"
        for title, rows in _tables(jobs).items()
    ]
    best = f"Best job: {paragraph(best_text(jobs))}.\n" if best_text(jobs) else ""
    more = f"{len(jobs) - ROWS} further jobs: see leaderboard.csv.\n" if len(jobs) > ROWS else ""
    listed = f"**Warnings**\n\n{bullets(warnings)}\n" if warnings else ""
    return "\n".join(filter(None, [best, *tables, more, listed, code(command)]))


def best_text(jobs: Sequence[Job]) -> str:
    """Say which job is the best, and its mean over seeds; empty where none is."""
    if (best := best_job(jobs)) is None:
        return ""
    text = f"{best.name}, {best.monitor} {best.score:.4f}"
    if len(means := by_configuration(jobs)):
        first = means.iloc[0]
        name = first["configuration"] or "all jobs"
        text += f"; {name} has the best mean, {first['mean']:.4f} over {first['jobs']} seeds"
    return text


def metric_of(jobs: Sequence[Job]) -> str:
    """Name the metric that ranks jobs, with its direction."""
    if not comparable(jobs):
        return "no metric that all jobs share"
    known = next(job for job in jobs if job.score is not None)
    return f"{known.monitor} ({'higher' if known.higher_is_better else 'lower'} is better)"


def _tables(jobs: Sequence[Job]) -> dict[str, pd.DataFrame]:
    """Lay out the tables as they are read, by their titles."""
    tables = {f"Leaderboard, by {metric_of(jobs)}": _shown(jobs)}
    if len(means := by_configuration(jobs)):
        means[["mean", "sd"]] = means[["mean", "sd"]].map("{:.4f}".format)
        means["configuration"] = means["configuration"].replace("", "all jobs")
        tables["Mean over seeds"] = means[:ROWS].astype(str)
    return tables


def _places(jobs: Sequence[Job]) -> dict[int, int]:
    """Return the rank of each job that has one, by its number."""
    done = [job for job in ranked(jobs) if job.score is not None] if comparable(jobs) else []
    return {job.number: place for place, job in enumerate(done, 1)}


def _shown(jobs: Sequence[Job]) -> pd.DataFrame:
    places = _places(jobs)
    rows = [
        {
            "rank": str(places.get(job.number, "")),
            "job": job.name,
            "score": "" if job.score is None else f"{job.score:.4f}",
            "training time": "" if math.isnan(job.seconds) else duration(job.seconds),
            "status": job.reason if job.status == "PRUNED" else ": ".join(filter(None, (job.status, job.reason))),
        }
        for job in ranked(jobs)[:ROWS]
    ]
    return pd.DataFrame(rows, columns=["rank", "job", "score", "training time", "status"])
