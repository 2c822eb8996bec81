"""A progress bar for each phase; a line an epoch where there is no terminal."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class EpochSeed(Callback):
    """Seeds every training epoch by itself: a resumed run draws what the run would have drawn.

    Args:
        seed: of the run.
        place: of the phase in the schedule.
    """

    def __init__(self, seed: int, place: int) -> None:
        self.seed = seed
        self.place = place

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed torch, numpy and Python; each process of a distributed training otherwise."""
        rank = (trainer.global_rank,) if trainer.global_rank else ()
        (mixed,) = np.random.SeedSequence((self.seed, self.place, trainer.current_epoch, *rank)).generate_state(1)
        pl.seed_everything(int(mixed), workers=True, verbose=False)


class PhaseProgress(Callback):
    """Shows epoch, losses and validation accuracy while a phase trains.

    Args:
        phase: name of the phase.
        epochs: at most.
    """

    def __init__(self, phase: str, epochs: int) -> None:
        self.phase = phase
        self.epochs = epochs
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero or not get_console().is_terminal:
            return
        self._progress = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            transient=True,
        )
        self._progress.start()
        batches = self.epochs * int(trainer.num_training_batches)
        done = trainer.current_epoch * int(trainer.num_training_batches)  # of a phase that is resumed
        self._task = self._progress.add_task(self.phase, total=batches, completed=done, metrics="")

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """One batch further."""
        if self._progress is not None:
            self._progress.advance(self._task)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's metrics."""
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        text = (
            f"train loss {metrics['train/loss']:.3f}  val loss {metrics['val/loss']:.3f}  "
            f"val accuracy {metrics['val/accuracy']:.3f}"
        )
        if self._progress is not None:
            self._progress.update(self._task, metrics=text)
        elif self._is_told(trainer.current_epoch + 1):
            place = f"{trainer.current_epoch + 1}/{self.epochs}"
            get_console().print(f"  {self.phase:<12} {place:>6}  {text}", highlight=False)

    def _is_told(self, epoch: int) -> bool:
        # Without a terminal a line stays: about ten a phase are enough, its first and last epoch among them.
        return epoch in (1, self.epochs) or epoch % max(1, round(self.epochs / 10)) == 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar when training breaks off."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
