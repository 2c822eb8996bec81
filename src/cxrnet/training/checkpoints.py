"""What a phase leaves in its folder after every epoch, and how a resumed run finds it.

``checkpoints/<phase>/last.ckpt`` holds all it takes to go on: weights, optimizer, early stopping and, in the same file
so that they can't disagree, the history of all epochs so far. ``kept.ckpt`` is that of the epoch whose weights are
kept, so far. The weights are those that the phase trains. When it is over, ``kept.ckpt`` gets the frozen ones too.
"""

import dataclasses
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from cxrnet.core.atomic import whole_file
from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.weights import UNREADABLE
from cxrnet.training.history import History, Row, metrics_of
from cxrnet.training.schedule import Phase, Schedule

PLAIN: dict[str, Any] = {"map_location": "cpu", "weights_only": True, "mmap": True}  # read as far as it is needed

_PREFIX = "network."  # of the network's weights in the state of a classifier


def checkpoint(folder: Path, phase: str, name: Literal["kept", "last"]) -> Path:
    """The file of a checkpoint in a run's folder."""
    return folder / "checkpoints" / phase / f"{name}.ckpt"


class PlainFiles(TorchCheckpointIO):
    """Writes a checkpoint straight to the disk, in a third of the time that Lightning takes by way of memory."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Lightning calls it in the first process only, and lets the others go on when it is done."""
        with whole_file(Path(path)) as partial:
            torch.save(checkpoint, partial)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Reading it runs no code.

    Raises:
        CxrnetError: the file is missing or damaged, or no checkpoint of a run.
    """
    try:
        content = torch.load(path, **PLAIN)
    except UnpicklingError as error:
        raise CxrnetError(
            f"resume: '{path}' holds something else than plain values and is not loaded, for it could run code; start "
            "a new run"
        ) from error
    except UNREADABLE as error:
        missing = "can't be read" if path.exists() else "is missing"
        raise CxrnetError(f"resume: '{path}' {missing}; bring it back, or start a new run") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CxrnetError(f"resume: '{path}' is no checkpoint of a run; bring that back, or start a new run")
    return content


def load_kept(network: nn.Module, folder: Path, phase: str) -> None:
    """Load the weights that a phase keeps; frozen ones that its checkpoint lacks are those that the network has.

    Raises:
        CxrnetError: the checkpoint is missing, damaged or of another network.
    """
    kept = checkpoint(folder, phase, "kept")
    try:
        network.load_state_dict(_whole(network, read_checkpoint(kept)))
    except (RuntimeError, TypeError) as error:
        raise CxrnetError(f"resume: '{kept}' is of another network; bring that back, or start a new run") from error


@rank_zero_only
def complete_kept(network: nn.Module, folder: Path, phase: str) -> None:
    """Add the weights that were frozen in a phase to its ``kept.ckpt``, when it is over.

    Args:
        network: with these weights.
        folder: of the run.
        phase: its name.
    """
    kept = checkpoint(folder, phase, "kept")
    content = read_checkpoint(kept)
    whole = {f"{_PREFIX}{name}": value for name, value in _whole(network, content).items()}
    if not whole.keys() <= content["state_dict"].keys():
        with whole_file(kept) as partial:
            torch.save({**content, "state_dict": content["state_dict"] | whole}, partial)


def _whole(network: nn.Module, content: dict[str, Any]) -> dict[str, torch.Tensor]:
    saved = content["state_dict"].items()
    return network.state_dict() | {k.removeprefix(_PREFIX): v for k, v in saved if k.startswith(_PREFIX)}


LogMetrics = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class Progress:
    """How far a phase has come.

    Attributes:
        plan: what must not change while a phase is trained, see :func:`plan_of`.
        cached: it trains on features that were computed once, and goes on so.
        rows: the history up to here, the phases before included.
        seconds: of training so far.
        stopped: the phase was stopped early, and gets no further epoch.
    """

    plan: dict[str, Any]
    cached: bool
    rows: list[Row]
    seconds: float
    stopped: bool

    @property
    def name(self) -> str:
        """Of the phase."""
        return str(self.plan["name"])

    def is_over(self, phase: Phase) -> bool:
        """Whether the phase, as it is planned now, has nothing left to do."""
        return self.stopped or len(History(self.rows).of(phase.name)) >= phase.epochs


class EpochKeeper(Checkpoint):
    """Ends every epoch: writes it into the history, saves the checkpoints, hands the metrics on.

    Lightning calls it after early stopping, so a checkpoint holds what that has decided.

    Args:
        folder: of the run.
        phase: that is trained.
        schedule: what the phases share.
        cached: what is frozen is computed once.
        last: the last epoch is kept, not the best.
        history: gets a row an epoch: the logged metrics and ``lr``, the rate that it was trained at.
        seconds: that the phase was trained before it was resumed.
        log_metrics: gets the metrics of each epoch and its number, when all is saved; ``None`` for nobody.
    """

    def __init__(
        self,
        folder: Path,
        phase: Phase,
        schedule: Schedule,
        cached: bool,
        last: bool,
        history: History,
        seconds: float,
        log_metrics: LogMetrics | None,
    ) -> None:
        self.folder = folder
        self.phase = phase
        self.schedule = schedule
        self.cached = cached
        self.last = last
        self.history = history
        self.log_metrics = log_metrics
        self._started = time.monotonic() - seconds
        self._lr = phase.lr
        self._stopped = False

    @property
    def seconds(self) -> float:
        """Wall time of the phase so far."""
        return time.monotonic() - self._started

    def state_dict(self) -> dict[str, Any]:
        """What Lightning stores in a checkpoint; :func:`read_progress` reads it."""
        progress = Progress(plan_of(self.phase), self.cached, self.history.rows, self.seconds, self._stopped)
        return {field.name: getattr(progress, field.name) for field in dataclasses.fields(progress)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave out a schedule that is planned anew: one epoch has no warm-up, more epochs make it another class."""
        if self.phase.lr_schedule is not None and self.phase.lr_schedule["name"] != "plateau":
            checkpoint["lr_schedulers"] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the learning rate of a resumed phase up to date."""
        rows = self.history.of(self.phase.name)
        if not rows:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch: a schedule stepped before the optimizer
            for config in trainer.lr_scheduler_configs:
                if config.reduce_on_plateau:  # which Lightning does after the checkpoint of an epoch was saved
                    config.scheduler.step(rows[-1][self.schedule.monitor])
                    continue
                # Rates that follow from the epoch are planned anew: the phase may have got more epochs.
                optimizer = config.scheduler.optimizer
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"]
                config.scheduler = pl_module.lr_schedule(optimizer)["scheduler"]  # type: ignore[operator]
                for _ in rows:
                    config.scheduler.step()  # type: ignore[call-arg]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the rate: at the end of the epoch it may be that of the next one."""
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch; validation has run by now."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics["train/lr"] = self._lr
        row = self.history.add(self.phase.name, trainer.strategy.broadcast(metrics))
        self._stopped = trainer.should_stop
        trainer.save_checkpoint(checkpoint(self.folder, self.phase.name, "last"), weights_only=False)
        if trainer.is_global_zero:
            if not self.last:
                self._keep()
            if self.log_metrics is not None:
                self.log_metrics(metrics_of(row), row["epoch"])
        trainer.strategy.barrier()  # no other process looks for kept.ckpt before it is there

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the last epoch, where that is the one that is kept."""
        if self.last and self.history.of(self.phase.name):
            self._keep()
            trainer.strategy.barrier()

    def _keep(self) -> None:
        keep_epoch(self.folder, self.history, self.phase.name, self.schedule, self.last)


@rank_zero_only
def keep_epoch(folder: Path, history: History, phase: str, schedule: Schedule, last: bool) -> None:
    """Copy ``last.ckpt`` to ``kept.ckpt`` if the last epoch is the best one of the phase, or the last is kept."""
    if history.kept(phase, schedule.monitor, schedule.mode, last) is history.rows[-1]:
        with whole_file(checkpoint(folder, phase, "kept")) as partial:
            shutil.copyfile(checkpoint(folder, phase, "last"), partial)


def read_progress(path: Path) -> Progress:
    """How far a phase had come when a checkpoint was saved.

    Raises:
        CxrnetError: the file can't be read, or was not written by :class:`EpochKeeper`.
    """
    try:
        return Progress(**read_checkpoint(path)["callbacks"][EpochKeeper.__qualname__])
    except (KeyError, TypeError) as error:
        raise CxrnetError(f"resume: '{path}' is no checkpoint of a run; start a new run") from error


def trained_so_far(folder: Path) -> list[Progress]:
    """The phases that a run has trained at least one epoch of, in order.

    Args:
        folder: of the run.
    """
    found = [read_progress(path) for path in (folder / "checkpoints").glob("*/last.ckpt")]
    return sorted(found, key=lambda progress: len(progress.rows))


def check_goes_on(trained: Sequence[Progress], phases: Sequence[Phase]) -> None:
    """Check that a schedule begins with what was trained; only epochs may be added, and phases after it.

    Raises:
        CxrnetError: it doesn't.
    """
    before, now = [progress.plan["name"] for progress in trained], [phase.name for phase in phases]
    if before != now[: len(before)]:
        raise CxrnetError(
            f"resume: the run was trained in the phases {', '.join(before)}, and now they would be {', '.join(now)}; "
            "give the schedule and the weights that it began with"
        )
    for progress, phase in zip(trained, phases, strict=False):
        for name, value in plan_of(phase).items():
            if value != (was := progress.plan.get(name)):
                raise CxrnetError(
                    f"resume: phase '{phase.name}' was trained with {name} {was}, which is {value} now; take it back"
                )


def plan_of(phase: Phase) -> dict[str, Any]:
    """What must not change while a phase is trained: all but the number of its epochs."""
    plan = dataclasses.asdict(phase)
    del plan["epochs"], plan["enabled"]
    if phase.lr_schedule is not None:  # a cap on epochs shortens the warm-up too
        plan["lr_schedule"] = {name: value for name, value in phase.lr_schedule.items() if name != "warmup_epochs"}
    return plan
