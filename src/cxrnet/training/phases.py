"""Training in phases: each phase is one ``Trainer.fit`` with a fresh optimizer.

A phase starts from the kept weights of the phases before it, so early stopping can't end a run before its
fine-tuning begins, and no stale parameter group is carried along. What is kept in the end is the best phase on
validation: a fine-tuning that made things worse is not what the user gets.
"""

import copy
import gc
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch.optim import SGD

from cxrnet.core.process import is_main_process
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import describe, set_trainable
from cxrnet.models.network import Network, count_parameters
from cxrnet.models.processes import synced_batch_norms
from cxrnet.training.callbacks import EpochKeeper, EpochSeed, WeightDecay
from cxrnet.training.checkpoints import (
    History,
    Progress,
    check_goes_on,
    checkpoint,
    complete_kept,
    keep_epoch,
    load_kept,
    rank,
)
from cxrnet.training.features import make_feed
from cxrnet.training.regression import HeadFit, not_linear, not_stored
from cxrnet.training.schedule import Phase, PhaseResult
from cxrnet.training.trainer import Training, check_training, make_classifier, make_trainer, refusals_told

logger = logging.getLogger("cxrnet")


def run_phases(
    network: Network, data: XrayDataModule, training: Training, trained: Sequence[Progress] = ()
) -> tuple[list[PhaseResult], History]:
    """Train a network in place; it ends with the kept weights of the best phase.

    Args:
        network: with its starting weights, also when training is resumed.
        data: set up.
        training: phases, loss, optimizer and trainer.
        trained: from :func:`cxrnet.training.checkpoints.trained_so_far`, of a run that is resumed. None of it is
            trained or handed on again; its last phase goes on if it was not finished, or has more epochs now.

    Raises:
        CxrnetError: a phase, the monitored metric, the optimizer or the trainer is not usable, or training diverged;
            or the run that is resumed was trained in other phases.
    """
    phases, schedule, folder = training.phases, training.schedule, training.folder
    check_training(training, network, data.batch_size)
    check_goes_on(trained, phases)
    history = History(trained[-1].rows if trained else ())
    keeps_last = [schedule.keeps_last(phase, len(data.rows("val"))) for phase in phases]
    if trained:  # the run may have been stopped just before this
        keep_epoch(folder, history, trained[-1].name, schedule, keeps_last[len(trained) - 1])
    results: list[PhaseResult] = []
    for place, (phase, last) in enumerate(zip(phases, keeps_last, strict=True)):
        set_trainable(network, phase.trainable)
        keeper = EpochKeeper(training, place, last, history, trained[place] if place < len(trained) else None)
        if keeper.before is None or (place == len(trained) - 1 and not keeper.before.is_over(phase)):
            _train_phase(network, data, keeper)
        result = _result(network, phase, keeper, history, last)
        # Tables and optimizer are gone before the next phase makes its own: Lightning's objects hold each other, and
        # callbacks were given methods of the classifier.
        del keeper
        gc.collect()
        load_kept(network, folder, phase.name)
        complete_kept(network, folder, phase.name)
        results.append(result)
        best = min(results, key=lambda each: rank(each.kept_score, schedule.mode))  # the earlier one of two equals
        if math.isnan(best.kept_score):
            which = "its last" if best.keep == "last" else "any"
            raise CxrnetError(f"phase '{best.name}': {schedule.monitor} is not a number in {which} epoch; lower its lr")
        load_kept(network, folder, best.name)
    return [replace(result, kept=result is best) for result in results], history


def _result(network: Network, phase: Phase, keeper: EpochKeeper, history: History, last: bool) -> PhaseResult:
    """Put together how a phase ended; ``last``: it keeps its last epoch."""
    schedule = keeper.training.schedule
    rows, kept = history.of(phase.name), history.kept(phase.name, schedule, last)
    return PhaseResult(
        name=phase.name,
        trainable=describe(phase.trainable),
        trained_parameters=count_parameters(network).trainable,
        lr=0.0 if "fitted" in keeper.head else phase.lr,
        decay=0.0 if "fitted" in keeper.head else phase.decay,
        cached=keeper.cached,
        first_epoch=rows[0]["epoch"],
        epochs=len(rows),
        keep="last" if last else "best",
        kept_epoch=kept["epoch"],
        monitor=schedule.monitor,
        kept_score=kept[schedule.monitor],
        seconds=keeper.seconds,
        **keeper.head,
    )


def _train_phase(network: Network, data: XrayDataModule, keeper: EpochKeeper) -> None:
    """Train one phase, or go on with it; afterwards nothing that outlives it holds what it needed."""
    training, phase, schedule = keeper.training, keeper.phase, keeper.training.schedule
    if training.sharded:  # whose weights are divided for good; what was trained comes back from the checkpoint
        network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    feed = make_feed(network, data, training, phase, keeper.before.cached if keeper.before else None)
    keeper.start(feed.cached)
    at_once = phase.solver == "regression" and keeper.before is None
    if at_once and (reason := not_linear(network, training.loss) or not_stored(feed)):
        at_once, keeper.head = False, {"by_epochs": reason}
    if at_once:  # one epoch of the fitted head, which changes nothing, makes its metrics and checkpoints
        phase = replace(phase, epochs=1, lr=0.0, decay=0.0, patience=None, lr_schedule=None)
        training = replace(training, optimizer=SGD)  # another one may move weights at a rate of 0 too
    callbacks: list[Callback] = [EpochSeed(training.seed, keeper.place, data), keeper]
    if phase.decay:
        callbacks.append(WeightDecay(phase.decay, phase.lr))
    if phase.patience is not None:  # at the end of the epoch the metrics of both splits are there
        callbacks.append(
            EarlyStopping(schedule.monitor, patience=phase.patience, mode=schedule.mode, check_on_train_epoch_end=True)
        )
    if at_once:
        callbacks.append(HeadFit(keeper.end_with))
    callbacks += training.callbacks(phase)
    trainer = make_trainer(training.trainer, phase.epochs, training.folder, callbacks)
    classifier = make_classifier(training, network, phase, feed.trainable_part)
    data.stream = torch.Generator() if trainer.world_size > 1 else None
    classifier.train(not at_once)  # Lightning doesn't: it keeps the mode in which it finds a network
    if training.compiled and not at_once:
        classifier.compile()
    resumed = _goes_on_from(keeper, trainer.world_size)
    with refusals_told(), synced_batch_norms(network, trainer.world_size):
        trainer.fit(classifier, datamodule=feed.data, ckpt_path=resumed, weights_only=True)
    if trainer.current_epoch == 0:
        raise CxrnetError("callbacks: training was stopped before its first epoch; mend or leave out what did so")
    feed.data.trainer = None
    network.zero_grad()


def _goes_on_from(keeper: EpochKeeper, processes: int) -> Path | None:
    """Return the checkpoint that a phase goes on from; ``None`` where it begins."""
    folder, phase, before = keeper.training.folder, keeper.phase.name, keeper.before
    if before is None:
        return None
    if before.batches and before.processes == processes:
        return checkpoint(folder, phase, "running")
    if before.batches and is_main_process():
        logger.warning(
            f"resume: {before.processes} processes shared the batches of the epoch that was stopped and {processes} do "
            "now, so it begins again"
        )
    last = checkpoint(folder, phase, "last")
    return last if last.exists() else None
