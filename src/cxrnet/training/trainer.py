"""The training of a network: its parts, and the classifier and the trainer that Lightning fits in each phase."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import set_trainable
from cxrnet.models.lightning_module import Classifier, metric_names
from cxrnet.models.network import Network, lone_batch_norms
from cxrnet.training.checkpoints import LogMetrics, PlainFiles
from cxrnet.training.schedule import Phase, Schedule, check_precision

SHARDED = "fsdp"
"""``trainer.strategy`` of :class:`Sharded`."""

PhaseCallbacks = Callable[[Phase], list[Callback]]


@dataclass(frozen=True)
class Training:
    """The plan and the parts of a training.

    Attributes:
        phases: from :func:`cxrnet.training.schedule.enabled_phases`.
        schedule: what the phases share.
        loss: takes logits and labels.
        optimizer: makes an optimizer of parameters and ``lr=``.
        trainer: makes a Lightning Trainer; epochs and callbacks are added. The loggers of a partial are used.
        folder: folder of the run; gets ``checkpoints/<phase>/kept.ckpt`` and ``last.ckpt``.
        seed: the random state of each epoch depends on it, the phase's place and the epoch alone.
        compiled: the steps run on what ``torch.compile`` makes of the network.
        callbacks: makes further callbacks for a phase.
        log_metrics: gets every epoch's metrics and its number, epochs running on over the phases; ``None`` for nobody.
    """

    phases: Sequence[Phase]
    schedule: Schedule
    loss: nn.Module
    optimizer: Callable[..., Optimizer]
    trainer: Callable[..., pl.Trainer]
    folder: Path
    seed: int
    compiled: bool = False
    callbacks: PhaseCallbacks = lambda _: []
    log_metrics: LogMetrics | None = None

    @property
    def sharded(self) -> bool:
        """Weights, gradients and the optimizer's state are divided among the processes."""
        return _given(self.trainer).get("strategy") == SHARDED

    def with_callbacks(self, callbacks: PhaseCallbacks) -> "Training":
        """Return the training with further callbacks, which come first."""
        return replace(self, callbacks=lambda phase: [*callbacks(phase), *self.callbacks(phase)])


def check_training(training: Training, network: Network, batch_size: int) -> None:
    """Try everything that needs no data: a mistake in the last phase is told before the first one trains.

    Raises:
        CxrnetError: a phase, the monitored metric or the optimizer is not usable, or a batch norm would train on one
            number.
    """
    monitor, known = training.schedule.monitor, metric_names(network.config.classes)
    if monitor not in known:
        raise CxrnetError(f"schedule.monitor: '{monitor}' is no logged metric; use one of {', '.join(known)}")
    lone = lone_batch_norms(network) if batch_size == 1 else []
    for phase in training.phases:
        set_trainable(network, phase.trainable)
        if lone and any(network.train().get_submodule(name).training for name in lone):
            raise CxrnetError(
                f"data.batch_size: 1, but phase '{phase.name}' trains a batch norm for which one image is one number, "
                "without variance; give data.batch_size=2 or more"
            )
        try:
            make_classifier(training, network, phase).configure_optimizers()
        except (TypeError, ValueError) as error:
            raise CxrnetError(
                f"phase '{phase.name}': no optimizer can be made: {error}; mend optimizer or lr"
            ) from error


def make_classifier(
    training: Training, network: Network, phase: Phase, rest: Callable[[Tensor], Tensor] | None = None
) -> Classifier:
    """Make what Lightning trains in a phase; ``rest`` as :class:`cxrnet.models.lightning_module.Classifier` has it."""
    schedule, make_schedule = training.schedule, None
    if phase.lr_schedule is not None:
        make_schedule = partial(
            lr_schedule, spec=phase.lr_schedule, epochs=phase.epochs, monitor=schedule.monitor, mode=schedule.mode
        )

    def make_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return training.optimizer(parameters, lr=phase.lr)

    return Classifier(network, training.loss, make_optimizer, make_schedule, rest)


def lr_schedule(optimizer: Optimizer, spec: Mapping[str, Any], epochs: int, monitor: str, mode: str) -> dict[str, Any]:
    """Make Lightning's ``lr_scheduler`` dictionary of a phase's ``lr_schedule``.

    Args:
        optimizer: whose rates are scheduled.
        spec: ``{name: plateau, factor: 0.5, patience: 2}`` or ``{name: cosine, warmup_epochs: 1}``.
        epochs: epochs of the phase.
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
            # Down to zero along a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5), after a linear warm-up.
            decay: LRScheduler = CosineAnnealingLR(optimizer, T_max=epochs - warmup)
            if warmup > 0:
                rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
                decay = SequentialLR(optimizer, [rise, decay], milestones=[warmup])
            return {"scheduler": decay, "interval": "epoch"}
    raise CxrnetError(
        f"phase: lr_schedule: {dict(spec)} is not known; use {{name: plateau, factor: 0.5, patience: 2}} or "
        f"{{name: cosine, warmup_epochs: 1}} with fewer warm-up epochs than the phase has ({epochs})"
    )


def make_trainer(make: Callable[..., pl.Trainer], epochs: int, folder: Path, callbacks: list[Callback]) -> pl.Trainer:
    """Make the trainer of a phase by :attr:`Training.trainer`; cxrnet keeps its history and shows its progress.

    Raises:
        CxrnetError: there is no such device, argument or precision here.
    """
    given = _given(make)
    # On other devices than NCCL's, and where all is one unit, inference mode would forbid weights to be put together.
    sharded: dict[str, Any] = {"strategy": Sharded(), "inference_mode": False}
    try:
        made = make(
            **(sharded if given.get("strategy") == SHARDED else {}),
            max_epochs=epochs,
            logger=given.get("logger") or False,  # the history hands the metrics on, with epochs that run on
            callbacks=callbacks,
            default_root_dir=folder,
            num_sanity_val_steps=0,  # its metrics would stand among the results
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the data module shares out the training images itself
        )
    except RuntimeError as error:  # two callbacks whose states have one name, or the tasks of Slurm
        instead = "give --ntasks-per-node in its place" if "SLURM" in str(error) else "leave one out"
        raise CxrnetError(f"trainer: {_first_line(error).partition('. ')[0]}; {instead}") from error
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:  # no such device or argument
        raise CxrnetError(
            f"trainer: {_first_line(error)}; use trainer=auto, cpu, gpu, ddp or fsdp as it fits this machine"
        ) from error
    # Lightning may have put another precision in the place of what was asked for.
    check_precision(given.get("precision", made.precision), on_cpu=isinstance(made.accelerator, CPUAccelerator))
    made.strategy.checkpoint_io = PlainFiles()
    return made


def _given(make: Callable[..., pl.Trainer]) -> dict[str, Any]:
    """Return the arguments of a trainer's partial."""
    return make.keywords if isinstance(make, partial) else {}


class Sharded(ModelParallelStrategy):
    """FSDP2 over all processes; checkpoints hold the whole weights.

    :meth:`cxrnet.models.lightning_module.Classifier.configure_model` divides the weights.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Let all processes share the data."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


@contextmanager
def refusals_told() -> Iterator[None]:
    """Say in one line what Lightning or torch refuse to do in a fit.

    Raises:
        CxrnetError: ``torch.compile`` or what was added to the trainer won't do, or an operation isn't deterministic.
    """
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
    """Return what an error says, or its name."""
    return next((line.strip().rstrip(".!") for line in str(error).splitlines() if line.strip()), type(error).__name__)
