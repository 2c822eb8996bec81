"""Training in phases: each phase is one ``Trainer.fit`` with a fresh optimizer.

A phase starts from the kept weights of the phases before it, so early stopping can't end a run before its
fine-tuning begins, and no stale parameter group is carried along. What is kept in the end is the best phase on
validation: a fine-tuning that made things worse is not what the user gets.
"""

import dataclasses
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import nn

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import describe, set_trainable
from cxrnet.models.network import Network, count_parameters
from cxrnet.training.callbacks import EpochSeed
from cxrnet.training.checkpoints import (
    EpochKeeper,
    LogMetrics,
    Progress,
    check_goes_on,
    checkpoint,
    complete_kept,
    keep_epoch,
    load_kept,
)
from cxrnet.training.features import make_feed
from cxrnet.training.history import History, rank
from cxrnet.training.schedule import Phase, Schedule
from cxrnet.training.trainer import (
    OptimizerOfRate,
    WeightDecay,
    check_phases,
    early_stopping,
    fit,
    make_classifier,
    make_trainer,
)


@dataclass(frozen=True)
class PhaseResult:
    """What came of a phase.

    Attributes:
        name: of the phase.
        trainable: in words.
        trained_parameters: numbers that the optimizer changed.
        lr: learning rate at the start.
        decay: weight decay over the whole phase.
        cached: what is frozen was computed once.
        first_epoch: counted over all phases, from 1.
        epochs: that were trained.
        keep: whether the ``last`` epoch was kept, or the ``best``.
        kept_epoch: whose weights were kept, counted over all phases, from 1.
        kept_score: the monitored metric of that epoch.
        seconds: wall time, features included.
        kept: the run's final weights come from this phase.
    """

    name: str
    trainable: str
    trained_parameters: int
    lr: float
    decay: float
    cached: bool
    first_epoch: int
    epochs: int
    keep: Literal["last", "best"]
    kept_epoch: int
    kept_score: float
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
    trained: Sequence[Progress] = (),
    compiled: bool = False,
) -> tuple[list[PhaseResult], History]:
    """Train a network in place; it ends with the kept weights of the best phase.

    Args:
        network: with its starting weights, also when training is resumed.
        data: set up.
        phases: from :func:`cxrnet.training.schedule.enabled_phases`.
        schedule: what the phases share.
        loss: takes logits and labels.
        optimizer: makes an optimizer of parameters and ``lr=``.
        trainer: makes a Lightning Trainer; this function adds epochs and callbacks.
        folder: gets ``checkpoints/<phase>/kept.ckpt`` and ``last.ckpt``.
        seed: the random state of each epoch depends on it, the phase's place and the epoch alone.
        log_metrics: gets every epoch's metrics and its number, epochs running on over the phases.
        callbacks: makes further callbacks for a phase (progress).
        trained: what :func:`cxrnet.training.checkpoints.trained_so_far` found in the folder of a run that is resumed.
            None of it is trained or handed on again; its last phase goes on if it was not finished, or has more
            epochs now.
        compiled: the steps run on what ``torch.compile`` makes of the network.

    Raises:
        CxrnetError: a phase, the monitored metric, the optimizer or the trainer is not usable, or training diverged;
            or the run that is resumed was trained in other phases.
    """
    check_phases(network, phases, schedule, loss, optimizer, data.batch_size)
    check_goes_on(trained, phases)
    history = History(trained[-1].rows if trained else ())
    validation = len(data.rows("val"))
    if trained:  # the run may have been stopped just before this
        going_on = phases[len(trained) - 1]
        keep_epoch(folder, history, going_on.name, schedule, schedule.keeps_last(going_on, validation))
    results: list[PhaseResult] = []
    for place, phase in enumerate(phases):
        set_trainable(network, phase.trainable)
        last = schedule.keeps_last(phase, validation)
        before = trained[place] if place < len(trained) else None
        if before is not None and (before is not trained[-1] or before.is_over(phase)):
            cached, seconds = before.cached, before.seconds
        else:
            decay = [WeightDecay(phase.decay, phase.lr)] if phase.decay else []
            feed = make_feed(network, data, phase, schedule, seed, before.cached if before else None, compiled)
            so_far = before.seconds if before else 0.0
            keeper = EpochKeeper(folder, phase, schedule, feed.cached, last, history, so_far, log_metrics)
            extra = callbacks(phase) if callbacks is not None else []
            fit(
                make_trainer(
                    trainer,
                    phase.epochs,
                    folder,
                    [EpochSeed(seed, place), keeper, *decay, *early_stopping(phase, schedule), *extra],
                ),
                make_classifier(network, phase, schedule, loss, optimizer, feed.rest),
                feed.data,
                resumed=checkpoint(folder, phase.name, "last") if before else None,
                compiled=compiled,
            )
            cached, seconds = feed.cached, keeper.seconds
            # Tables and optimizer are gone before the next phase makes its own: Lightning's objects hold each other,
            # and callbacks were given methods of the classifier.
            del feed, keeper, extra
            gc.collect()
        results.append(_result(network, phase, cached, history, schedule, last, seconds))
        load_kept(network, folder, phase.name)
        complete_kept(network, folder, phase.name)
        results = _keep_best(network, results, schedule, folder)
    return results, history


def _result(
    network: Network, phase: Phase, cached: bool, history: History, schedule: Schedule, last: bool, seconds: float
) -> PhaseResult:
    rows, kept = history.of(phase.name), history.kept(phase.name, schedule.monitor, schedule.mode, last)
    return PhaseResult(
        name=phase.name,
        trainable=describe(phase.trainable),
        trained_parameters=count_parameters(network).trainable,
        lr=phase.lr,
        decay=phase.decay,
        cached=cached,
        first_epoch=rows[0]["epoch"],
        epochs=len(rows),
        keep="last" if last else "best",
        kept_epoch=kept["epoch"],
        kept_score=kept[schedule.monitor],
        seconds=seconds,
    )


def _keep_best(network: Network, results: list[PhaseResult], schedule: Schedule, folder: Path) -> list[PhaseResult]:
    kept = min(results, key=lambda result: rank(result.kept_score, schedule.mode))  # the earlier one of two equals
    if math.isnan(kept.kept_score):
        which = "its last" if kept.keep == "last" else "any"
        raise CxrnetError(f"phase '{kept.name}': {schedule.monitor} is not a number in {which} epoch; lower its lr")
    load_kept(network, folder, kept.name)
    return [dataclasses.replace(result, kept=result is kept) for result in results]
