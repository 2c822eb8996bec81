"""The trial that a job is, seen from the job, wherever it runs."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from cxrnet.training.checkpoints import checkpoint, read_progress
from cxrnet.training.pruning import Pruning
from cxrnet.training.schedule import Phase
from cxrnet.training.trainer import Training
from cxrnet.workflows.study import RECORD, SearchSettings, check_installed, make_pruner, open_storage


def with_pruning(training: Training, settings: SearchSettings, sweep: Path, job: int) -> Training:
    """Return the training of a trial, with the pruner that the search asks for.

    Args:
        training: training of the job.
        settings: settings of the search.
        sweep: folder of the sweep.
        job: number in the sweep.
    """
    if settings.pruner == "none":
        return training
    trial, phases = _trial(settings, sweep, job), [*training.phases]

    def pruning(phase: Phase) -> list[Callback]:
        place = phases.index(phase)
        earlier = checkpoint(training.folder, phases[place - 1].name, "last") if place else None
        before = len(read_progress(earlier).rows) if earlier else 0
        return [Pruning(trial, training.schedule.monitor, before, phase is phases[-1])]

    return training.with_callbacks(pruning)


def _trial(settings: SearchSettings, sweep: Path, job: int) -> Any:  # noqa: ANN401 (Optuna's)
    """Find the trial of a job in the study."""
    check_installed()
    import optuna

    number = json.loads((sweep / RECORD).read_text(encoding="utf-8"))["trials"][job]
    study = optuna.load_study(
        study_name=settings.name,
        storage=open_storage(settings.place(sweep)),
        sampler=optuna.samplers.RandomSampler(),  # which is not asked
        pruner=make_pruner(settings.pruner),
    )
    return optuna.trial.Trial(study, study.trials[number]._trial_id)
