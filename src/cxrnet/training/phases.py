"""Training in phases: each phase is one ``Trainer.fit`` with a fresh optimizer.

A phase starts from the best weights of the phases before it, so early stopping can't end a run before its
fine-tuning begins, and no stale parameter group is carried along. What is kept in the end is the best phase on
validation: a fine-tuning that made things worse is not what the user gets.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.errors import CxrnetError
from cxrnet.models.classifier import Classifier
from cxrnet.models.freezing import Trainable, describe, set_trainable
from cxrnet.models.network import Network
from cxrnet.training.features import FeatureDataModule
from cxrnet.training.history import History
from cxrnet.training.lr_schedules import lr_schedule

OptimizerOfRate = Callable[..., Optimizer]


@dataclass(frozen=True)
class Phase:
    """What is trainable, for how long, at what rate.

    Attributes:
        name: shown everywhere; unique in a schedule.
        trainable: see :mod:`cxrnet.models.freezing`.
        epochs: at most.
        lr: learning rate at the start.
        patience: epochs without improvement before the phase stops; ``None`` never stops early.
        lr_schedule: see :mod:`cxrnet.training.lr_schedules`; ``None`` keeps the rate.
        enabled: a phase that is not enabled is left out.
    """

    name: str
    trainable: Trainable
    epochs: int
    lr: float
    patience: int | None = None
    lr_schedule: dict[str, Any] | None = None
    enabled: bool | None = True


@dataclass(frozen=True)
class Schedule:
    """The phases of a run and what they share.

    Attributes:
        phases: in order.
        monitor: the validation metric that decides which epoch is best.
        mode: ``min`` or ``max`` of the monitored metric.
        views: augmented views of each training image while the backbone is frozen; 0 trains the head the long way,
            on images.
        max_epochs: caps every phase; ``None`` for no cap.
    """

    phases: tuple[Phase, ...]
    monitor: str
    mode: Literal["min", "max"]
    views: int
    max_epochs: int | None = None


@dataclass(frozen=True)
class PhaseResult:
    """What came of a phase.

    Attributes:
        name: of the phase.
        trainable: in words.
        trained_parameters: numbers that the optimizer changed.
        lr: learning rate at the start.
        cached: the head was trained on features.
        first_epoch: counted over all phases, from 1.
        epochs: that were trained.
        best_epoch: counted over all phases, from 1.
        best_score: the monitored metric at its best.
        seconds: wall time, features included.
        kept: the run's final weights come from this phase.
    """

    name: str
    trainable: str
    trained_parameters: int
    lr: float
    cached: bool
    first_epoch: int
    epochs: int
    best_epoch: int
    best_score: float
    seconds: float
    kept: bool = False


def enabled_phases(schedule: Schedule, pretrained: bool) -> tuple[Phase, ...]:
    """The phases that will run. Random weights are never frozen: every phase then trains everything.

    Raises:
        CxrnetError: none is enabled, or two have one name.
    """
    phases = [phase for phase in schedule.phases if phase.enabled]
    names = [phase.name for phase in phases]
    if not phases:
        raise CxrnetError("schedule.phases: no phase is enabled; enable one (finetune=true) or take another schedule")
    if len(set(names)) < len(names):
        raise CxrnetError(f"schedule.phases: two phases have one name ({', '.join(names)}); give each its own")
    if schedule.max_epochs is not None:
        phases = [dataclasses.replace(p, epochs=min(p.epochs, schedule.max_epochs)) for p in phases]
    return tuple(phases if pretrained else [dataclasses.replace(p, trainable="all") for p in phases])


def run_phases(
    network: Network,
    data: XrayDataModule,
    phases: Sequence[Phase],
    schedule: Schedule,
    loss: nn.Module,
    optimizer: OptimizerOfRate,
    trainer: Callable[..., pl.Trainer],
    folder: Path,
    seed: int,
    logger: Logger | None = None,
    callbacks: Callable[[Phase], list[Callback]] | None = None,
) -> tuple[list[PhaseResult], History]:
    """Train a network in place; it ends with the best weights of the best phase.

    Args:
        network: with its starting weights.
        data: set up.
        phases: from :func:`enabled_phases`.
        schedule: what the phases share.
        loss: takes logits and labels.
        optimizer: makes an optimizer of parameters and ``lr=``.
        trainer: makes a Lightning Trainer; this function adds epochs, callbacks and logger.
        folder: gets ``checkpoints/<phase>/best.ckpt`` and ``last.ckpt``.
        seed: each phase starts from a random state that depends on it and on the phase's place alone.
        logger: gets every epoch's metrics, epochs running on over the phases.
        callbacks: makes further callbacks for a phase (progress).
    """
    history = History(logger)
    results: list[PhaseResult] = []
    for place, phase in enumerate(phases):
        pl.seed_everything(seed + place, workers=True, verbose=False)
        started = time.monotonic()
        set_trainable(network, phase.trainable)
        cached = phase.trainable == "head" and schedule.views > 0
        feed = FeatureDataModule(data, network, schedule.views, seed) if cached else data
        classifier = _classifier(network, phase, schedule, loss, optimizer)
        best = _checkpoint(folder, phase, "best", schedule)
        extra = callbacks(phase) if callbacks is not None else []
        first_epoch = history.begin(phase.name)
        fit = trainer(
            max_epochs=phase.epochs,
            logger=logger or False,
            callbacks=[
                history,
                *_stopping(phase, schedule),
                best,
                _checkpoint(folder, phase, "last"),
                *extra,
            ],
            default_root_dir=folder,
            num_sanity_val_steps=0,  # its metrics would stand among the results
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module shares out the training images itself
        )
        fit.fit(classifier, datamodule=feed)
        _load(network, Path(best.best_model_path))
        results.append(
            PhaseResult(
                name=phase.name,
                trainable=describe(phase.trainable),
                trained_parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
                lr=phase.lr,
                cached=cached,
                first_epoch=first_epoch,
                epochs=len(history.rows) - first_epoch + 1,
                best_epoch=history.best(first_epoch, schedule.monitor, schedule.mode)["epoch"],
                best_score=history.best(first_epoch, schedule.monitor, schedule.mode)[schedule.monitor],
                seconds=time.monotonic() - started,
            )
        )
    return _keep_best(network, results, schedule, folder), history


def _classifier(
    network: Network, phase: Phase, schedule: Schedule, loss: nn.Module, optimizer: OptimizerOfRate
) -> Classifier:
    make_schedule = None
    if phase.lr_schedule is not None:
        make_schedule = partial(
            lr_schedule,
            spec=phase.lr_schedule,
            epochs=phase.epochs,
            monitor=schedule.monitor,
            mode=schedule.mode,
        )

    def make_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return optimizer(parameters, lr=phase.lr)

    return Classifier(network, loss, make_optimizer, make_schedule)


def _checkpoint(folder: Path, phase: Phase, name: str, schedule: Schedule | None = None) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=folder / "checkpoints" / phase.name,
        filename=name,
        monitor=schedule.monitor if schedule else None,
        mode=schedule.mode if schedule else "min",
        enable_version_counter=False,
    )


def _stopping(phase: Phase, schedule: Schedule) -> list[Callback]:
    if phase.patience is None:
        return []
    return [EarlyStopping(schedule.monitor, patience=phase.patience, mode=schedule.mode)]


def _keep_best(network: Network, results: list[PhaseResult], schedule: Schedule, folder: Path) -> list[PhaseResult]:
    choose = min if schedule.mode == "min" else max
    kept = choose(results, key=lambda result: result.best_score)  # the earlier one of two equals
    _load(network, folder / "checkpoints" / kept.name / "best.ckpt")
    return [dataclasses.replace(result, kept=result is kept) for result in results]


def _load(network: Network, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
