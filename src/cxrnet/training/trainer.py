"""One fit of a phase: its trainer, classifier, learning rates and weight decay; mistakes in them end in one line."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import set_trainable
from cxrnet.models.lightning_module import Classifier, metric_names
from cxrnet.models.network import Network, lone_batch_norms
from cxrnet.training.checkpoints import PlainFiles
from cxrnet.training.schedule import Phase, Schedule, check_precision


def lr_schedule(optimizer: Optimizer, spec: Mapping[str, Any], epochs: int, monitor: str, mode: str) -> dict[str, Any]:
    """Lightning's ``lr_scheduler`` dictionary of a phase's ``lr_schedule``.

    Args:
        optimizer: whose rates are scheduled.
        spec: ``{name: plateau, factor: 0.5, patience: 2}`` or ``{name: cosine, warmup_epochs: 1}``.
        epochs: of the phase.
        monitor: the metric that a plateau watches.
        mode: ``min`` or ``max``.

    Raises:
        CxrnetError: the specification is none of these.
    """
    match dict(spec):
        case {"name": "plateau", "factor": float(factor), "patience": int(patience), **rest} if not rest:
            plateau = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)  # type: ignore[arg-type]
            return {"scheduler": plateau, "monitor": monitor, "interval": "epoch"}
        case {"name": "cosine", "warmup_epochs": int(warmup), **rest} if not rest and 0 <= warmup < epochs:
            return {"scheduler": _cosine(optimizer, epochs, warmup), "interval": "epoch"}
    raise CxrnetError(
        f"phase: lr_schedule: {dict(spec)} is not known; use {{name: plateau, factor: 0.5, patience: 2}} or "
        f"{{name: cosine, warmup_epochs: 1}} with fewer warm-up epochs than the phase has ({epochs})"
    )


def _cosine(optimizer: Optimizer, epochs: int, warmup: int) -> LRScheduler:
    """Cosine decay to zero (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5) after a linear warm-up."""
    decay = CosineAnnealingLR(optimizer, T_max=epochs - warmup)
    if warmup == 0:
        return decay
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [rise, decay], milestones=[warmup])


class WeightDecay(Callback):
    """Shrinks what is trained before each step by ``decay`` / (steps of the phase) x rate / (first rate).

    So decay does the same with few images and with many, at any number of epochs (Wang & Aitchison 2024,
    arXiv:2405.13698), and whatever the optimizer: it is apart from the gradient, as in AdamW (Loshchilov & Hutter 2019,
    arXiv:1711.05101). At a constant rate weights that get no gradient end at exp(-``decay``) of their size; a cosine
    makes that exp(-``decay`` / 2).

    Args:
        decay: from 0 on.
        lr: the first rate.
    """

    def __init__(self, decay: float, lr: float) -> None:
        self.decay, self.lr = decay, lr

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Shrink the weights that the optimizer is about to change."""
        part = self.decay / trainer.estimated_stepping_batches
        with torch.no_grad():
            for group in optimizer.param_groups:
                torch._foreach_mul_(group["params"], 1 - part * group["lr"] / self.lr)


OptimizerOfRate = Callable[..., Optimizer]


def check_phases(
    network: Network,
    phases: Sequence[Phase],
    schedule: Schedule,
    loss: nn.Module,
    optimizer: OptimizerOfRate,
    batch_size: int,
) -> None:
    """Try everything that needs no data: a mistake in the last phase is told before the first one trains.

    Raises:
        CxrnetError: a phase, the monitored metric or the optimizer is not usable, or a batch norm would train on one
            number.
    """
    lone = lone_batch_norms(network) if batch_size == 1 else []
    known = metric_names(network.config.classes)
    if schedule.monitor not in known:
        raise CxrnetError(f"schedule.monitor: '{schedule.monitor}' is no logged metric; use one of {', '.join(known)}")
    for phase in phases:
        set_trainable(network, phase.trainable)
        if lone and any(network.train().get_submodule(name).training for name in lone):
            raise CxrnetError(
                f"data.batch_size: 1, but phase '{phase.name}' trains a batch norm for which one image is one number, "
                "without variance; give data.batch_size=2 or more"
            )
        try:
            make_classifier(network, phase, schedule, loss, optimizer).configure_optimizers()
        except (TypeError, ValueError) as error:
            raise CxrnetError(
                f"phase '{phase.name}': no optimizer can be made: {error}; mend optimizer or lr"
            ) from error


def make_classifier(
    network: Network,
    phase: Phase,
    schedule: Schedule,
    loss: nn.Module,
    optimizer: OptimizerOfRate,
    rest: Callable[[Tensor], Tensor] | None = None,
) -> Classifier:
    """What a phase trains; ``rest`` as :class:`cxrnet.models.lightning_module.Classifier` has it."""
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


def make_trainer(make: Callable[..., pl.Trainer], epochs: int, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    """A trainer for some epochs, of which cxrnet itself keeps the history and shows the progress.

    Args:
        make: makes a trainer; its further arguments are added. The loggers of a partial are used.
        epochs: at most.
        folder: of the run.
        callbacks: of the training.

    Raises:
        CxrnetError: there is no such device, argument or precision here.
    """
    given = make.keywords if isinstance(make, partial) else {}
    try:
        made = make(
            max_epochs=epochs,
            logger=given.get("logger") or False,  # the history hands the metrics on, with epochs that run on
            callbacks=callbacks,
            default_root_dir=folder,
            num_sanity_val_steps=0,  # its metrics would stand among the results
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module shares out the training images itself
        )
    except RuntimeError as error:  # two callbacks whose states have one name
        raise CxrnetError(f"trainer: {_first_line(error).partition('. ')[0]}; leave one out") from error
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:  # no such device or argument
        raise CxrnetError(
            f"trainer: {_first_line(error)}; use trainer=auto, cpu, gpu or ddp as it fits this machine"
        ) from error
    # Lightning may have put another precision in the place of what was asked for.
    check_precision(given.get("precision", made.precision), on_cpu=isinstance(made.accelerator, CPUAccelerator))
    made.strategy.checkpoint_io = PlainFiles()
    return made


def early_stopping(phase: Phase, schedule: Schedule) -> list[Callback]:
    """The callback that ends a phase without improvement, if it has any patience."""
    if phase.patience is None:
        return []
    # At the end of the epoch the metrics of both splits are there.
    stopping = EarlyStopping(
        schedule.monitor, patience=phase.patience, mode=schedule.mode, check_on_train_epoch_end=True
    )
    return [stopping]


def fit(
    trainer: pl.Trainer, classifier: Classifier, data: pl.LightningDataModule, resumed: Path | None, compiled: bool
) -> None:
    """Train; afterwards nothing that outlives a phase holds what it needed.

    Args:
        trainer: of :func:`make_trainer`.
        classifier: of :func:`make_classifier`.
        data: what it trains on.
        resumed: the checkpoint that it goes on from, if it does.
        compiled: the steps run on what ``torch.compile`` makes of the network.

    Raises:
        CxrnetError: what was added to the trainer won't do, an operation isn't deterministic, or nothing compiles.
    """
    classifier.train()  # Lightning doesn't: it keeps the mode in which it finds a network
    if compiled:
        classifier.compile()
    with _told():
        trainer.fit(classifier, datamodule=data, ckpt_path=resumed, weights_only=True)
    if trainer.current_epoch == 0:
        raise CxrnetError("callbacks: training was stopped before its first epoch; mend or leave out what did so")
    data.trainer = None
    classifier.network.zero_grad()


@contextmanager
def _told() -> Iterator[None]:
    """Say in one line what ``torch.compile`` lacks, as a C++ compiler, and what Lightning or torch refuse to do."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise CxrnetError(f"compile: torch.compile failed ({_first_line(error)}); give compile=false") from error
        if isinstance(error, MisconfigurationException):
            raise CxrnetError(f"trainer: {_first_line(error)}; mend or leave out what was added to it") from error
        if isinstance(error, RuntimeError) and "deterministic" in (line := _first_line(error)):
            raise CxrnetError(f"trainer.deterministic: {line}; give trainer.deterministic=warn") from error
        raise


def _first_line(error: Exception) -> str:
    """What an error says, or its name."""
    return next((line.strip().rstrip(".!") for line in str(error).splitlines() if line.strip()), type(error).__name__)
