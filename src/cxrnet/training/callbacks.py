"""The callbacks of a phase: seeds, weight decay, checkpoints and history of every epoch, a progress bar."""

import time
import warnings
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from torch.optim import Optimizer

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.training.checkpoints import History, Progress, Row, checkpoint, keep_epoch, metrics_of, plan_of
from cxrnet.training.random_state import RandomState, of_all_processes, random_state, set_random_state
from cxrnet.training.trainer import Training


class EpochSeed(Callback):
    """Seeds every training epoch by itself: a resumed run draws what the run would have drawn.

    A checkpoint holds what each process would draw next, for an epoch that is resumed in its middle.

    Args:
        seed: seed of the run.
        place: place of the phase in the schedule.
        data: whose stream, of several processes, is seeded in all of them as one process would be.
    """

    def __init__(self, seed: int, place: int, data: XrayDataModule) -> None:
        self.seed = seed
        self.place = place
        self.data = data
        self._states: list[RandomState] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the random states of all processes."""
        return {"states": of_all_processes(random_state(self.data.stream))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the random states of a checkpoint."""
        self._states = state_dict["states"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on in the middle of an epoch, which Lightning doesn't start again."""
        if trainer.fit_loop.restarted_mid_epoch:
            set_random_state(self._states[trainer.global_rank], self.data.stream)
        self._states = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed torch, numpy and Python; each process of a distributed training otherwise."""
        of_epoch = (self.seed, self.place, trainer.current_epoch)
        if self.data.stream is not None:
            self.data.stream.manual_seed(_mixed(*of_epoch))
        rank = (trainer.global_rank,) if trainer.global_rank else ()
        pl.seed_everything(_mixed(*of_epoch, *rank), workers=True, verbose=False)


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


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


class EpochKeeper(Checkpoint):
    """Ends every epoch: writes it into the history, saves the checkpoints, hands the metrics on.

    Within an epoch it saves a checkpoint after every ``schedule.checkpoint_every`` batches.

    Lightning calls it after early stopping, so a checkpoint holds what that has decided.

    Args:
        training: training that the phase is a part of.
        place: place of the phase in it.
        last: the last epoch is kept, not the best.
        history: gets a row an epoch: the logged metrics and ``train/lr``, the rate that it was trained at.
        before: how far the phase had come before the run was resumed; ``None`` where it begins.
    """

    def __init__(self, training: Training, place: int, last: bool, history: History, before: Progress | None) -> None:
        self.training = training
        self.place = place
        self.phase = training.phases[place]
        self.last = last
        self.history = history
        self.before = before
        self.cached = before is not None and before.cached
        self.head = before.head if before is not None else {}
        self._started: float | None = None
        self._lr = self.phase.lr
        self._stopped = False
        self._within: tuple[int, int] = (0, 1)
        self._due = False

    @property
    def seconds(self) -> float:
        """Wall time of the phase so far, that before it was resumed included."""
        so_far = self.before.seconds if self.before is not None else 0.0
        return so_far if self._started is None else so_far + time.monotonic() - self._started

    def start(self, cached: bool) -> None:
        """Begin to count the time of the phase; ``cached``: it trains on features that are computed once."""
        self.cached = cached
        self._started = time.monotonic()

    def end_with(self, head: dict[str, Any]) -> None:
        """Note that the next epoch is the only one, for the head was fitted at once; ``head``: of :class:`Progress`."""
        self.head, self._stopped = head, True

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning stores in a checkpoint; :func:`read_progress` reads it."""
        rows, seconds = self.history.rows, self.seconds
        return vars(Progress(plan_of(self.phase), self.cached, rows, seconds, self._stopped, self.head, *self._within))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave out a schedule that is planned anew: one epoch has no warm-up, more epochs make it another class."""
        if self.phase.lr_schedule is not None and self.phase.lr_schedule["name"] != "plateau":
            checkpoint["lr_schedulers"] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the learning rate of a resumed phase up to date."""
        if rows := self.history.of(self.phase.name):
            self._restore_rate(trainer, pl_module, rows)
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]  # of an epoch that is resumed in its middle

    def _restore_rate(self, trainer: pl.Trainer, pl_module: pl.LightningModule, rows: list[Row]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch: a schedule stepped before the optimizer
            for config in trainer.lr_scheduler_configs:
                if config.reduce_on_plateau:
                    if not trainer.fit_loop.restarted_mid_epoch:  # Lightning does it after an epoch was saved
                        config.scheduler.step(rows[-1][self.training.schedule.monitor])
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

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Save a checkpoint within the epoch, where one is due and no gradients wait for the optimizer."""
        every, progress = self.training.schedule.checkpoint_every, trainer.fit_loop.epoch_loop.batch_progress
        if every is None or self._stopped:
            return
        done = progress.current.ready
        self._due = (self._due or done % every == 0) and not progress.is_last_batch
        if self._due and done % trainer.accumulate_grad_batches == 0:
            self._due, self._within = False, (done, trainer.world_size)
            trainer.save_checkpoint(checkpoint(self.training.folder, self.phase.name, "running"), weights_only=False)
            self._within = (0, 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch; validation has run by now."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics["train/lr"] = self._lr
        row = self.history.add(self.phase.name, trainer.strategy.broadcast(metrics))
        self._stopped = self._stopped or trainer.should_stop
        trainer.save_checkpoint(checkpoint(self.training.folder, self.phase.name, "last"), weights_only=False)
        if trainer.is_global_zero:
            checkpoint(self.training.folder, self.phase.name, "running").unlink(missing_ok=True)
            if not self.last:
                keep_epoch(self.training.folder, self.history, self.phase.name, self.training.schedule, self.last)
            if self.training.log_metrics is not None:
                self.training.log_metrics(metrics_of(row), row["epoch"])
        trainer.strategy.barrier()  # no other process looks for kept.ckpt before it is there

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the last epoch, where that is the one that is kept."""
        if self.last and self.history.of(self.phase.name):
            keep_epoch(self.training.folder, self.history, self.phase.name, self.training.schedule, self.last)
            trainer.strategy.barrier()


class PhaseProgress(Callback):
    """Shows epoch, losses and validation accuracy while a phase trains: a bar, or lines where there is no terminal.

    Args:
        phase: name of the phase.
        epochs: at most.
    """

    def __init__(self, phase: str, epochs: int) -> None:
        self.phase = phase
        self.epochs = epochs
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero or not get_console().is_terminal:
            return
        name, metrics = TextColumn("  {task.description:<12}"), TextColumn("{task.fields[metrics]}")
        columns = (name, BarColumn(bar_width=24), MofNCompleteColumn(), metrics, TimeElapsedColumn())
        self._bar = Bar(*columns, transient=True)
        self._bar.start()
        batches = int(trainer.num_training_batches)
        done = trainer.current_epoch * batches  # of a phase that is resumed
        if trainer.fit_loop.restarted_mid_epoch:
            done += trainer.fit_loop.batch_idx + 1
        self._task = self._bar.add_task(self.phase, total=self.epochs * batches, completed=done, metrics="")

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Move one batch further."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's metrics."""
        if not trainer.is_global_zero:
            return
        epoch, metrics = trainer.current_epoch + 1, trainer.callback_metrics
        text = (
            f"train loss {metrics['train/loss']:.3f}  val loss {metrics['val/loss']:.3f}  "
            f"val accuracy {metrics['val/accuracy']:.3f}"
        )
        if self._bar is not None:
            self._bar.update(self._task, metrics=text)
        # A line stays: about ten a phase are enough, its first and last epoch among them.
        elif epoch in (1, self.epochs) or epoch % max(1, round(self.epochs / 10)) == 0:
            get_console().print(f"  {self.phase:<12} {f'{epoch}/{self.epochs}':>6}  {text}", highlight=False)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    on_exception = on_train_end
