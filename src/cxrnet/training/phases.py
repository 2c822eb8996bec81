"""Training in phases: each phase is one ``Trainer.fit`` with a fresh optimizer.

A phase starts from the best weights of the phases before it, so early stopping can't end a run before its
fine-tuning begins, and no stale parameter group is carried along. What is kept in the end is the best phase on
validation: a fine-tuning that made things worse is not what the user gets.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from torch.optim import Optimizer

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.errors import CxrnetError
from cxrnet.models.classifier import Classifier, val_metric_names
from cxrnet.models.freezing import describe, set_trainable
from cxrnet.models.network import Network
from cxrnet.training.features import FeatureDataModule
from cxrnet.training.history import History, LogMetrics, rank
from cxrnet.training.lr_schedules import lr_schedule
from cxrnet.training.schedule import Phase, Schedule

OptimizerOfRate = Callable[..., Optimizer]


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
    log_metrics: LogMetrics | None = None,
    callbacks: Callable[[Phase], list[Callback]] | None = None,
) -> tuple[list[PhaseResult], History]:
    """Train a network in place; it ends with the best weights of the best phase.

    Args:
        network: with its starting weights.
        data: set up.
        phases: from :func:`cxrnet.training.schedule.enabled_phases`.
        schedule: what the phases share.
        loss: takes logits and labels.
        optimizer: makes an optimizer of parameters and ``lr=``.
        trainer: makes a Lightning Trainer; this function adds epochs, callbacks and logger.
        folder: gets ``checkpoints/<phase>/best.ckpt`` and ``last.ckpt``.
        seed: each phase starts from a random state that depends on it and on the phase's place alone.
        log_metrics: gets every epoch's metrics and its number, epochs running on over the phases.
        callbacks: makes further callbacks for a phase (progress).

    Raises:
        CxrnetError: a phase, the monitored metric, the optimizer or the trainer is not usable, or training diverged.
    """
    _check(network, phases, schedule, loss, optimizer)
    history = History(log_metrics)
    results: list[PhaseResult] = []
    for place, phase in enumerate(phases):
        pl.seed_everything(seed + place, workers=True, verbose=False)
        started = time.monotonic()
        set_trainable(network, phase.trainable)
        cached = phase.trainable == "head" and schedule.views > 0
        feed = FeatureDataModule(data, network, schedule.views, seed) if cached else data
        classifier = _classifier(network, phase, schedule, loss, optimizer)
        extra = callbacks(phase) if callbacks is not None else []
        first_epoch = history.begin(phase.name)
        checkpoints = [_checkpoint(folder, phase, "best", schedule), _checkpoint(folder, phase, "last")]
        fit = _trainer(trainer, phase, folder, [history, *_stopping(phase, schedule), *checkpoints, *extra])
        classifier.train()  # Lightning doesn't: it keeps the mode in which it finds a network
        fit.fit(classifier, datamodule=feed)
        best = history.best(first_epoch, schedule.monitor, schedule.mode)
        results.append(
            PhaseResult(
                name=phase.name,
                trainable=describe(phase.trainable),
                trained_parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
                lr=phase.lr,
                cached=cached,
                first_epoch=first_epoch,
                epochs=len(history.rows) - first_epoch + 1,
                best_epoch=best["epoch"],
                best_score=best[schedule.monitor],
                seconds=time.monotonic() - started,
            )
        )
        results = _keep_best(network, results, schedule, folder)
    return results, history


def _check(
    network: Network, phases: Sequence[Phase], schedule: Schedule, loss: nn.Module, optimizer: OptimizerOfRate
) -> None:
    """Try everything that needs no data: a mistake in the last phase is told before the first one trains."""
    known = val_metric_names(network.config.classes)
    if schedule.monitor not in known or schedule.mode not in ("min", "max"):
        raise CxrnetError(
            f"schedule: '{schedule.monitor}' with mode '{schedule.mode}' can't be monitored; "
            f"use min or max of {', '.join(known)}"
        )
    for phase in phases:
        set_trainable(network, phase.trainable)
        try:
            _classifier(network, phase, schedule, loss, optimizer).configure_optimizers()
        except (TypeError, ValueError) as error:
            raise CxrnetError(
                f"phase '{phase.name}': no optimizer can be made: {error}; mend optimizer or lr"
            ) from error


def _trainer(make: Callable[..., pl.Trainer], phase: Phase, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    try:
        return make(
            max_epochs=phase.epochs,
            logger=False,  # the history hands the metrics on, with epochs that run on
            callbacks=callbacks,
            default_root_dir=folder,
            num_sanity_val_steps=0,  # its metrics would stand among the results
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module shares out the training images itself
        )
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:  # no such device or argument
        reason = str(error).splitlines()[0].rstrip(".!")
        raise CxrnetError(f"trainer: {reason}; use trainer=auto, cpu, gpu or ddp as it fits this machine") from error


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
    kept = min(results, key=lambda result: rank(result.best_score, schedule.mode))  # the earlier one of two equals
    if math.isnan(kept.best_score):
        raise CxrnetError(f"phase '{kept.name}': {schedule.monitor} is not a number in any epoch; lower its lr")
    _load(network, folder / "checkpoints" / kept.name / "best.ckpt")
    return [dataclasses.replace(result, kept=result is kept) for result in results]


def _load(network: Network, checkpoint: Path) -> None:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
