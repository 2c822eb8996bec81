"""Pruning: a trial of a search that won't be the best is stopped in the middle."""

from typing import Any, Protocol

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from cxrnet.errors import Pruned


class Trial(Protocol):
    """A trial as Optuna has it."""

    def report(self, value: float, step: int) -> None:
        """Tell the study the metric of an epoch."""

    def should_prune(self) -> bool:
        """Tell whether the study would stop the trial."""


class Pruning(Checkpoint):
    """Reports the monitored metric of every epoch to a study, and ends a trial that the study would stop.

    It saves nothing. Lightning calls what is a ``Checkpoint`` last, in order, and the epoch is to be kept by then.

    Args:
        trial: trial of the study.
        monitor: metric that is reported.
        before: epochs of the phases before this one.
        last: the phase is the last one; its last epoch is reported and never pruned.
    """

    def __init__(self, trial: Trial, monitor: str, before: int, last: bool) -> None:
        self.trial, self.monitor, self.before, self.last = trial, monitor, before, last

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch.

        Raises:
            Pruned: the study would stop the trial.
        """
        epoch, value = self.before + trainer.current_epoch + 1, float(trainer.callback_metrics[self.monitor])
        self.trial.report(value, epoch)
        done = self.last and (trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop)
        if not done and self.trial.should_prune():
            raise Pruned(f"pruned at epoch {epoch}, {self.monitor} {value:.4f}")

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the study remembers."""
        return {}
