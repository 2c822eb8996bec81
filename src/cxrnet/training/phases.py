"""Training in phases: each phase is one ``Trainer.fit`` with a fresh optimizer.

A phase starts from the best weights of the phases before it, so early stopping can't end a run before its
fine-tuning begins, and no stale parameter group is carried along. What is kept in the end is the best phase on
validation: a fine-tuning that made things worse is not what the user gets.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.optim import Optimizer

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.errors import CxrnetError
from cxrnet.models.classifier import Classifier, metric_names
from cxrnet.models.freezing import describe, set_trainable
from cxrnet.models.network import Network, count_parameters
from cxrnet.training.checkpoints import (
    EpochKeeper,
    EpochSeed,
    LogMetrics,
    Progress,
    check_goes_on,
    keep_best,
)
from cxrnet.training.features import make_feed
from cxrnet.training.files import PlainFiles, checkpoint, complete_best, load_best
from cxrnet.training.history import History, rank
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
        cached: what is frozen was computed once.
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
    trained: Sequence[Progress] = (),
    compiled: bool = False,
) -> tuple[list[PhaseResult], History]:
    """Train a network in place; it ends with the best weights of the best phase.

    Args:
        network: with its starting weights, also when training is resumed.
        data: set up.
        phases: from :func:`cxrnet.training.schedule.enabled_phases`.
        schedule: what the phases share.
        loss: takes logits and labels.
        optimizer: makes an optimizer of parameters and ``lr=``.
        trainer: makes a Lightning Trainer; this function adds epochs, callbacks and logger.
        folder: gets ``checkpoints/<phase>/best.ckpt`` and ``last.ckpt``.
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
    _check(network, phases, schedule, loss, optimizer)
    check_goes_on(trained, phases)
    history = History(trained[-1].rows if trained else ())
    if trained:
        keep_best(folder, history, trained[-1].name, schedule)  # the run may have been stopped just before this
    results: list[PhaseResult] = []
    for place, phase in enumerate(phases):
        set_trainable(network, phase.trainable)
        feed = make_feed(network, data, phase, schedule, seed)
        before = trained[place] if place < len(trained) else None
        seconds = before.seconds if before else 0.0
        if before is None or (before is trained[-1] and not before.is_over(phase)):
            keeper = EpochKeeper(folder, phase, schedule, history, seconds, log_metrics)
            extra = callbacks(phase) if callbacks is not None else []
            fit = _trainer(
                trainer, phase, folder, [EpochSeed(seed, place), keeper, *_stopping(phase, schedule), *extra]
            )
            classifier = _classifier(network, phase, schedule, loss, optimizer, feed.rest)
            classifier.train()  # Lightning doesn't: it keeps the mode in which it finds a network
            if compiled:
                classifier.compile()
            last = checkpoint(folder, phase.name, "last") if before else None
            with _compiler_told():
                fit.fit(classifier, datamodule=feed.data, ckpt_path=last, weights_only=True)
            seconds = keeper.seconds
        results.append(_result(network, phase, feed.cached, history, schedule, seconds))
        load_best(network, folder, phase.name)
        complete_best(network, folder, phase.name)
        results = _keep_best(network, results, schedule, folder)
    return results, history


def _result(
    network: Network, phase: Phase, cached: bool, history: History, schedule: Schedule, seconds: float
) -> PhaseResult:
    rows, best = history.of(phase.name), history.best(phase.name, schedule.monitor, schedule.mode)
    return PhaseResult(
        name=phase.name,
        trainable=describe(phase.trainable),
        trained_parameters=count_parameters(network).trainable,
        lr=phase.lr,
        cached=cached,
        first_epoch=rows[0]["epoch"],
        epochs=len(rows),
        best_epoch=best["epoch"],
        best_score=best[schedule.monitor],
        seconds=seconds,
    )


def _check(
    network: Network, phases: Sequence[Phase], schedule: Schedule, loss: nn.Module, optimizer: OptimizerOfRate
) -> None:
    """Try everything that needs no data: a mistake in the last phase is told before the first one trains."""
    known = metric_names(network.config.classes)
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
        made = make(
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
    made.strategy.checkpoint_io = PlainFiles()
    return made


@contextmanager
def _compiler_told() -> Iterator[None]:
    """Say in one line what ``torch.compile`` lacks, as a C++ compiler."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CxrnetError(f"compile: torch.compile failed ({reason}); give compile=false") from error


def _classifier(
    network: Network,
    phase: Phase,
    schedule: Schedule,
    loss: nn.Module,
    optimizer: OptimizerOfRate,
    rest: Callable[[Tensor], Tensor] | None = None,
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

    return Classifier(network, loss, make_optimizer, make_schedule, rest)


def _stopping(phase: Phase, schedule: Schedule) -> list[Callback]:
    if phase.patience is None:
        return []
    # At the end of the epoch the metrics of both splits are there.
    stopping = EarlyStopping(
        schedule.monitor, patience=phase.patience, mode=schedule.mode, check_on_train_epoch_end=True
    )
    return [stopping]


def _keep_best(network: Network, results: list[PhaseResult], schedule: Schedule, folder: Path) -> list[PhaseResult]:
    kept = min(results, key=lambda result: rank(result.best_score, schedule.mode))  # the earlier one of two equals
    if math.isnan(kept.best_score):
        raise CxrnetError(f"phase '{kept.name}': {schedule.monitor} is not a number in any epoch; lower its lr")
    load_best(network, folder, kept.name)
    return [dataclasses.replace(result, kept=result is kept) for result in results]
