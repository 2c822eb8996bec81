"""A search: a sweep whose jobs are the trials of an Optuna study, asked for as the others end.

The study knows what was tried and what came of it, ``search.json`` in the sweep's folder which of its trials are jobs
of this sweep. What a trial came to is read from its folder, as of any job.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from cxrnet.core import console
from cxrnet.core.atomic import write_json
from cxrnet.errors import CxrnetError
from cxrnet.reporting.leaderboard import Job
from cxrnet.tracking.names import says_where
from cxrnet.tracking.store import printable
from cxrnet.training.schedule import Schedule
from cxrnet.workflows.build import check_monitor
from cxrnet.workflows.study import (
    KEY,
    RECORD,
    SearchSettings,
    Space,
    check_installed,
    make_sampler,
    open_study,
    read_space,
    values_of,
    word_of,
)
from cxrnet.workflows.sweep import Sweep, open_sweep, read_jobs

if TYPE_CHECKING:
    from optuna import Study

HOPELESS = 5  # trials that fail before any has finished end the search


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        settings: settings of the sweeper.
        space: by key, its values.
        fixed: words that all trials have.
        monitor: the metric that is searched by.
        folder: folder of the sweep.
    """

    settings: SearchSettings
    space: Space
    fixed: tuple[str, ...]
    monitor: str
    folder: Path

    @property
    def total(self) -> int:
        """Trials of this command; a grid has an end."""
        if self.settings.sampler != "grid":
            return self.settings.n_trials
        return min(self.settings.n_trials, grid_size(self.space))

    def example(self) -> list[str]:
        """Return the words of some trial, to see whether it can be composed."""
        first = {key: getattr(each, "choices", None) or (each.low,) for key, each in self.space.items()}  # type: ignore[attr-defined]
        return self.words({key: values[0] for key, values in first.items()})

    def words(self, values: dict[str, Any]) -> list[str]:
        """Return the words of a trial with these values.

        Raises:
            CxrnetError: the space doesn't have them.
        """
        return [*self.fixed, *(word_of(key, each, values[key]) for key, each in self.space.items())]

    def about(self, overrides: Sequence[Override]) -> dict[str, object]:
        """Say what a study is of: its metric, its space, and what its trials have in common."""
        space = {each.get_key_element(): each.get_value_string() for each in overrides if each.is_sweep_override()}
        keys = ("resume", "test", "trainer", "logger")
        common = [
            word
            for word in self.fixed
            if (key := word.lstrip("+~").partition("=")[0]).partition(".")[0] not in keys and not says_where(key)
        ]
        return {"metric": self.monitor, "space": space, "words": sorted(common)}


def grid_size(space: Space) -> int:
    """Count the points of a grid."""
    return prod(len(values_of(key, each)) for key, each in space.items())


def plan_search(config: DictConfig, overrides: Sequence[Override], settings: SearchSettings) -> Search:
    """Plan a search, and refuse what can't be searched.

    Args:
        config: config of the sweep, with Hydra's part.
        overrides: overrides of the command line and of the sweeper's ``params``, one a key.
        settings: settings of the sweeper.

    Raises:
        CxrnetError: there is nothing to search, the metric is not logged, or trials would see the test images.
    """
    check_installed()
    words = {each.get_key_element().lstrip("+"): str(each.input_line) for each in overrides}
    if words.get("test", "test=false").partition("=")[2].lower() != "false":
        raise CxrnetError("test: true, but a search tests the best of its trials alone, in the end; leave test out")
    if config.folds or config.seeds:
        raise CxrnetError("folds: a search ranks trials by one validation split; leave folds and seeds out")
    check_monitor(str(config.schedule.monitor), config.data.classes)
    space = read_space(overrides)
    if "schedule.monitor" in space:
        raise CxrnetError("schedule.monitor: it is what a search ranks its trials by; give one metric")
    # A trial is a run without the space that it was drawn from.
    others = [
        each for each in overrides if not each.is_sweep_override() and each.key_or_group not in ("test", "search")
    ]
    fixed = [str(each.input_line) for each in others]
    monitor, folder = str(config.schedule.monitor), Path(config.hydra.sweep.dir)
    found = Search(settings, space, (*fixed, "test=false"), monitor, folder)
    make_sampler(settings, space)
    return found


def search(plan: Search, overrides: Sequence[Override], config: DictConfig, launcher: Launcher) -> None:
    """Ask for trials and run them, rank them, test the best.

    Raises:
        CxrnetError: the study can't be used, or trials failed, which is told at the end.
    """
    settings, about = plan.settings, plan.about(overrides)
    record = _read_record(plan)
    direction: Any = "minimize" if Schedule(monitor=plan.monitor).mode == "min" else "maximize"
    study = open_study(settings, plan.folder, direction, about)
    study.sampler = make_sampler(settings, plan.space)
    if settings.n_jobs > 1 and config.hydra.runtime.choices["hydra/launcher"] == "basic":
        console.warn(f"{KEY}.n_jobs: trials run one after the other; to run several at once: hydra/launcher=joblib")
    with open_sweep(config, launcher, plan.total) as sweep:
        console.say("study", f"'{settings.name}' in {printable(settings.place(plan.folder))}")
        space: Any = about["space"]
        sweep.run.log_params({f"sweep/{key}": text for key, text in space.items()})
        _go_on(plan, study, record, sweep)
        for asked in _asked(plan, study, record):
            _tell(plan, study, record, sweep.launch([plan.words(study.trials[number].params) for number in asked]))
            _check_hope(plan.folder, record)
        _write_study(plan, study, record, sweep)


def _go_on(plan: Search, study: "Study", record: list[int], sweep: Sweep) -> None:
    """Go on with the trials that a search was stopped in."""
    if plan.settings.storage is None:  # whose trials are all of this search: killed before one became a job
        for trial in study.trials[len(record) :]:
            if trial.number not in record and trial.params.keys() == plan.space.keys():
                record.append(trial.number)
    trials = study.trials
    sweep.enter([plan.words(trials[number].params) for number in record])
    _tell(plan, study, record, read_jobs(plan.folder))
    trials = study.trials
    if left := [job for job, number in enumerate(record) if not trials[number].state.is_finished()]:
        _tell(plan, study, record, sweep.run_jobs(left))


def _asked(plan: Search, study: "Study", record: list[int]) -> Iterator[list[int]]:
    """Yield numbers of new trials, as many as run at once, until there are enough."""
    while len(record) < plan.total:
        more = min(plan.settings.n_jobs, plan.total - len(record))
        if plan.settings.sampler == "grid":
            more = min(more, grid_size(plan.space) - len(study.trials))
            if more <= 0:
                console.say("grid", "the rest is run by the other commands that share the study")
                return
        asked = [study.ask(plan.space).number for _ in range(more)]
        record += asked
        _write_record(plan, record)
        yield asked


def _tell(plan: Search, study: "Study", record: Sequence[int], jobs: Sequence[Job]) -> None:
    """Tell the study what jobs came to. One that failed stays open, for it may be resumed."""
    from optuna.trial import TrialState

    trials = study.trials
    for job in jobs:
        if job.number >= len(record) or trials[record[job.number]].state.is_finished():
            continue
        if job.status == "PRUNED":
            study.tell(record[job.number], state=TrialState.PRUNED)
        elif job.score is not None:
            if job.monitor != plan.monitor:
                raise CxrnetError(
                    f"schedule.monitor: '{job.name}' is monitored by {job.monitor}, the search by {plan.monitor}; "
                    f"give schedule.monitor={plan.monitor}"
                )
            study.tell(record[job.number], job.score)


def _check_hope(folder: Path, record: Sequence[int]) -> None:
    """Refuse to go on where all trials fail."""
    if len(record) < HOPELESS or len(record) >= 2 * HOPELESS:
        return
    jobs = read_jobs(folder)
    if len(jobs) >= HOPELESS and all(job.status == "FAILED" for job in jobs):
        raise CxrnetError(f"search: the first {len(jobs)} trials failed, the last one: {jobs[-1].reason}")


def _read_record(plan: Search) -> list[int]:
    """Read which trials of the study are jobs of this sweep, by number of the job.

    Raises:
        CxrnetError: the sweep was begun with another storage, or the file is none of a search.
    """
    file = plan.folder / RECORD
    if not file.is_file():
        if (plan.folder / "run.json").is_file():
            raise CxrnetError(f"resume: '{plan.folder}' is no search (no {RECORD}); leave hydra/sweeper=optuna out")
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        trials, storage, name = found["trials"], found["storage"], found["study"]
        if not all(isinstance(each, int) and each >= 0 for each in trials):
            raise ValueError(trials)
    except (LookupError, TypeError, ValueError) as error:
        raise CxrnetError(f"resume: '{file}' is none of a search; copy it again") from error
    given = plan.settings.storage and printable(plan.settings.place(plan.folder))
    if storage != given or name != plan.settings.name:
        asked = f"{KEY}.storage={storage or 'null'} {KEY}.study_name={name if storage else 'null'}"
        raise CxrnetError(f"resume: the search began with another study; give {asked}")
    return [*trials]


def _write_record(plan: Search, record: Sequence[int]) -> None:
    settings = plan.settings
    storage = settings.storage and printable(settings.place(plan.folder))
    write_json(plan.folder / RECORD, {"study": settings.name, "storage": storage, "trials": [*record]})


def _write_study(plan: Search, study: "Study", record: Sequence[int], sweep: Sweep) -> None:
    """Write and log the trials and the plots of the study, as far as it has come."""
    from cxrnet.reporting.search import write_study

    jobs = {number: job for job, number in enumerate(record)}
    for file in write_study(study, jobs, plan.monitor, plan.folder):
        sweep.run.log_artifact(file)
