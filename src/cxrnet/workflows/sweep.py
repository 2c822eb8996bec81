"""A sweep: jobs below one parent run in MLflow, their leaderboard, their comparison and the best of them.

A job is a run like any other. What is known of it is read from its folder, so that it doesn't matter which launcher
runs it, where, and whether the sweep was stopped and resumed in between.
"""

import logging
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from cxrnet.cli.run_folder import say_places, shown
from cxrnet.core import console
from cxrnet.core.atomic import write_text
from cxrnet.core.config import read_config, unresolved
from cxrnet.core.process import quick_imports
from cxrnet.core.spreadsheet import to_csv
from cxrnet.errors import CxrnetError
from cxrnet.tracking.names import job_names, run_name
from cxrnet.tracking.record import PRUNED, RECORD, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.sync import recorded_uri
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.training.schedule import Schedule
from cxrnet.workflows.resume import SWEEP_COMMAND, SWEEP_WORD, without_resume
from cxrnet.workflows.run_context import read_run_facts

with quick_imports():  # so that the jobs of this process find them imported
    from cxrnet.reporting.leaderboard import Job, best_job, comparable, leaderboard, ranked, say_leaderboard, sweep_page

log = logging.getLogger("cxrnet")

REPORTS, LEADERBOARD, BEST, COMPARISON = "classification_reports.txt", "leaderboard.csv", "best", "comparison"
COMPARED = 10  # jobs of a larger sweep that the page compares: the best


class Sweep:
    """A sweep at work.

    Attributes:
        folder: folder of the sweep; each job has a folder in it.
        run: the parent in MLflow.
    """

    def __init__(self, folder: Path, run: TrackedRun, launcher: Launcher) -> None:
        self.folder = folder
        self.run = run
        self._launcher = launcher
        self._started: list[list[str]] = []

    def launch(self, jobs: Sequence[Sequence[str]]) -> list[Job]:
        """Run jobs, each given by its overrides, and return them in order, finished or not."""
        return self.run_jobs(self.enter(jobs))

    def enter(self, jobs: Sequence[Sequence[str]]) -> Sequence[int]:
        """Give jobs, each given by its overrides, their numbers; they may have been run before."""
        first = len(self._started)
        self._started += map(list, jobs)
        return range(first, len(self._started))

    def run_jobs(self, numbers: Sequence[int]) -> list[Job]:
        """Run jobs that have numbers, and return them in order, finished or not."""
        for first, run in _runs(numbers):
            self._launcher.launch([self._started[number] for number in run], initial_job_idx=first)
        return read_jobs(self.folder, numbers)

    def launch_again(self, job: Job, *words: str) -> None:
        """Go on with a job, with further overrides."""
        keys = tuple(f"{word.partition('=')[0]}=" for word in words)
        task = [word for word in without_resume(self._started[job.number]) if not word.startswith(keys)]
        task += [*words, f"resume={_quoted(self.folder)}"]
        self._launcher.launch([task], initial_job_idx=job.number)


@contextmanager
def open_sweep(config: DictConfig, launcher: Launcher, total: int) -> Iterator[Sweep]:
    """Make the parent run before the first job; afterwards rank the jobs, compare them and mark the best one.

    Args:
        config: config of the sweep, with Hydra's part.
        launcher: launcher of Hydra, which runs the jobs.
        total: number of jobs.

    Raises:
        CxrnetError: a job failed, which is told at the end, or the folder or MLflow can't be used.
    """
    folder = Path(config.hydra.sweep.dir)
    outputs = Path(str(config.outputs))
    tracking: dict[str, Any] = OmegaConf.to_container(config.tracking, resolve=True)  # type: ignore[assignment]
    uri = tracking_uri(tracking["uri"], outputs) if tracking["enabled"] else None
    words = [*config.hydra.overrides.task]
    resumed = any(word.startswith("resume=") for word in words) and (folder / RECORD).is_file()
    uri = recorded_uri(folder, uri) if uri and resumed else uri
    command = (*SWEEP_COMMAND, *without_resume(words), *_hydra_words(config))
    choices = config.hydra.runtime.choices
    name = f"sweep {run_name(choices['model'], choices['data'], without_resume(words))}"
    if not resumed:
        OmegaConf.save(config, folder / "multirun.yaml")
    console.heading(f"Sweep of {total} jobs" + (", resumed" if resumed else ""))
    console.say("folder", str(shown(folder)))
    with track(folder, uri, tracking["experiment"], outputs, name, command, resume=resumed) as run:
        run.log_params({"jobs": total} | {f"sweep/{key}": value for key, value in _swept(words).items()})
        sweep = Sweep(folder, run, launcher)
        try:
            yield sweep
        finally:
            jobs = read_jobs(folder)
            _record_refused(jobs, sweep, uri, tracking["experiment"], outputs)
            _rank(jobs, sweep, shlex.join(command))
        _conclude(jobs, sweep)
        if failed := [job for job in jobs if job.status not in ("FINISHED", PRUNED)]:
            raise CxrnetError(
                f"sweep: {len(failed)} of {total} jobs failed, the first is '{failed[0].name}' ({failed[0].reason}); "
                f"to run them again: {shlex.quote(f'resume={shown(folder)}')}"
            )


def _runs(numbers: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Split numbers into those that follow each other, with the first: a launcher numbers its jobs from one on."""
    runs: list[tuple[int, list[int]]] = []
    for number in numbers:
        if not runs or number != runs[-1][1][-1] + 1:
            runs.append((number, []))
        runs[-1][1].append(number)
    return runs


def read_jobs(folder: Path, numbers: Collection[int] | None = None) -> list[Job]:
    """Read the jobs of a sweep that have begun, in order.

    Args:
        folder: folder of the sweep.
        numbers: numbers of the jobs to read; ``None`` for all.

    Raises:
        CxrnetError: a folder in it is none of a job.
    """
    begun = []
    for file in folder.glob("*/.hydra/hydra.yaml"):
        of_another = numbers is not None and not _is_of(numbers, file.parents[1].name)
        if of_another or file.parents[1].is_symlink():
            continue
        try:
            settings = unresolved(file)["hydra"]
            task = without_resume([*map(str, settings["overrides"]["task"])])
            number = int(settings["job"]["num"])
            if numbers is None or number in numbers:
                begun.append((number, task, file.parents[1]))
        except (LookupError, TypeError, ValueError) as error:
            raise CxrnetError(f"sweep: '{file}' is none of a job of a sweep; copy it again") from error
    begun.sort()
    names = job_names([task for _, task, _ in begun])
    return [_read_job(number, name, place) for (number, _, place), name in zip(begun, names, strict=True)]


def _is_of(numbers: Collection[int], folder: str) -> bool:
    """Tell whether the folder of a job may be of one of these numbers; its name, if not given, begins with it."""
    number = re.match(r"\d+(?=_|$)", folder)
    return number is None or int(number[0]) in numbers


def _read_job(number: int, name: str, folder: Path) -> Job:
    record, config, facts = read_record(folder), read_config(folder) or {}, read_run_facts(folder)
    configuration = " ".join(word for word in name.split(" ") if not word.startswith("seed="))
    job = Job(number, name, configuration, folder, record.get("status", "FAILED"), run_id=record.get("run_id"))
    if job.status == "FAILED":
        return replace(job, reason=_reason(folder))
    if job.status == PRUNED:
        return replace(job, reason=record.get("pruned", ""))
    if job.status != "FINISHED":
        return replace(job, reason="stopped before its end")
    schedule, phases = Schedule(monitor=config["schedule"]["monitor"]), facts["phases"]
    kept = [phase["kept_score"] for phase in phases if phase["kept"]]
    return replace(
        job,
        monitor=schedule.monitor,
        higher_is_better=schedule.mode == "max",
        score=sum(kept) / len(kept),
        seconds=sum(phase["seconds"] for phase in phases),
        tested=bool(config.get("test", True)),  # runs of before had no choice
    )


def _reason(folder: Path) -> str:
    """Return the last line of ``error.txt``, which holds a traceback or the line of a user's mistake."""
    file = folder / "error.txt"
    return file.read_text(encoding="utf-8").splitlines()[-1] if file.is_file() else f"see {folder / 'run.log'}"


def _rank(jobs: Sequence[Job], sweep: Sweep, command: str) -> None:
    """Write, print and log the leaderboard and the classification reports of the jobs, as far as they have come."""
    if not jobs:
        return
    file = sweep.folder / LEADERBOARD
    to_csv(leaderboard(jobs), file)
    files = [file, *_write_reports(jobs, sweep.folder)]
    say_leaderboard(jobs)
    for path in files:
        sweep.run.log_artifact(path)
    for place, job in enumerate(ranked(jobs), 1):
        if job.run_id and job.score is not None:
            sweep.run.set_tags({"cxrnet.rank": place}, of=job.run_id)
    warnings = _warnings(jobs)
    sweep.run.set_tags({"mlflow.note.content": sweep_page(jobs, warnings, command)})
    for text in warnings:
        console.warn(text)


def _warnings(jobs: Sequence[Job]) -> list[str]:
    """Say what keeps the scores of jobs from being compared."""
    from cxrnet.evaluation.predictions import read_predictions

    done = [job for job in jobs if job.score is not None]
    if not done:
        return []
    if not comparable(jobs):
        return ["the jobs are monitored by different metrics: none of them is the best"]
    tables = [read_predictions(job.folder / "predictions.parquet") for job in done]
    if len({frozenset(table["image_id"][table["split"] == "val"]) for table in tables}) > 1:
        return ["the jobs were validated on different images, as seed draws the split: scores differ by that too"]
    return []


def _write_reports(jobs: Sequence[Job], folder: Path) -> list[Path]:
    """Write the classification reports of the jobs side by side, of ``test``, or of ``val`` where they have none."""
    from cxrnet.evaluation.predictions import read_predictions
    from cxrnet.reporting.text import side_by_side
    from cxrnet.workflows.finished_run import PREDICTIONS, headline

    done = {job.name: job.folder / PREDICTIONS for job in jobs if (job.folder / PREDICTIONS).is_file()}
    if not done:
        return []
    text = side_by_side({name: headline(read_predictions(file)) for name, file in done.items()})
    lost = [f"no result: {job.name} ({job.reason or job.status})" for job in jobs if job.name not in done]
    return [write_text(folder / REPORTS, "\n".join([text, *lost, ""]) if lost else text)]


def _conclude(jobs: Sequence[Job], sweep: Sweep) -> None:
    """Compare the jobs, predict the test images with the best one where none was to see them, and mark it.

    Raises:
        CxrnetError: the best one can't be tested.
    """
    done = [job for job in ranked(jobs) if job.score is not None]
    places = {"leaderboard": str(shown(sweep.folder) / LEADERBOARD)}
    best = best_job(jobs)
    if len(done) > 1:
        places |= _compare(sorted(done, key=lambda job: job is not best), sweep)
    if best is not None:
        if not best.tested:
            console.heading(f"The best job on the test images: {best.name}")
            sweep.launch_again(best, "test=true")
            (tested,) = read_jobs(sweep.folder, [best.number])
            if not tested.tested:
                raise CxrnetError(f"sweep: the best job, '{best.name}', could not be tested ({tested.reason})")
        _mark(best, sweep)
        places["best"] = str(shown(sweep.folder) / BEST)
    mlflow = f"run {sweep.run.run_id}" if sweep.run.run_id else "not tracked"
    say_places({**places, "everything": str(shown(sweep.folder)), "MLflow": mlflow})


def _compare(jobs: Sequence[Job], sweep: Sweep) -> dict[str, str]:
    """Write the page that compares the best jobs, and return its place; none where there is none."""
    from cxrnet.workflows.compare import PAGE, compare_jobs

    folder = sweep.folder / COMPARISON
    folder.mkdir(exist_ok=True)
    best = [job.folder for job in jobs[:COMPARED]]
    try:
        files, number = compare_jobs(best, folder)
    except CxrnetError as error:
        console.say("comparison", f"none: {error}")
        return {}
    if number < len(jobs):
        why = "it is of the best" if number == len(best) else "the others have other images, as seed draws the split"
        console.say("comparison", f"of {number} of {len(jobs)} jobs: {why}")
    for file in files:
        sweep.run.log_artifact(file, COMPARISON)
    return {"comparison": str(shown(folder) / PAGE)} if files else {}


def _mark(best: Job, sweep: Sweep) -> None:
    """Link the folder of the best job as ``best``, and log its bundle with the parent."""
    from cxrnet.models.bundle import load_bundle

    link = sweep.folder / BEST
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(best.folder.name, target_is_directory=True)
    except OSError as error:  # Windows without the right, a file system without links
        write_text(sweep.folder / f"{BEST}.txt", f"{best.folder.name}\n")
        log.warning("'%s' can't be linked (%s); %s.txt names the best job", link, error, BEST)
    sweep.run.set_tags({"cxrnet.best_run": best.run_id or best.folder.name, "cxrnet.best_job": best.name})
    sweep.run.log_metrics({best.monitor: float(best.score or 0)}, 0)
    if (best.folder / "bundle").is_dir():  # runs over folds have one each
        bundle = load_bundle(best.folder / "bundle")
        sweep.run.log_bundle(best.folder / "bundle", bundle.classes, bundle.defer_below is not None)


def _record_refused(jobs: Sequence[Job], sweep: Sweep, uri: str | None, experiment: str, outputs: Path) -> None:
    """Record jobs that were refused before their run began as failed runs."""
    for job in jobs:
        if job.status == "FAILED" and not (job.folder / RECORD).is_file():
            parent = sweep.run.run_id
            with suppress(CxrnetError), track(job.folder, uri, experiment, outputs, job.name, parent_run_id=parent):
                raise CxrnetError(job.reason)


def _hydra_words(config: DictConfig) -> list[str]:
    """Return the words that choose sweeper and launcher, for the command that resumes the sweep."""
    return [word for word in config.hydra.overrides.hydra if SWEEP_WORD.match(word)]


def _swept(words: Sequence[str]) -> dict[str, str]:
    """Return the keys that have several values, and these."""
    parser = OverridesParser.create()
    parsed = [parser.parse_override(word) for word in words]
    return {each.key_or_group: str(each.get_value_string()) for each in parsed if each.is_sweep_override()}


def _quoted(folder: Path) -> str:
    return "'" + str(folder.resolve()).replace("'", r"\'") + "'"
