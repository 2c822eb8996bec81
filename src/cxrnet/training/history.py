"""The metrics of every epoch, epochs running on over the phases."""

from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger


class History(Callback):
    """Collects what is logged at the end of each epoch and hands it to a logger.

    Lightning counts epochs from zero in every ``fit``; here they run on, so that a curve over two phases is one curve.

    Attributes:
        rows: one dictionary an epoch: ``phase``, ``epoch`` (from 1), ``lr`` and every logged metric.
    """

    def __init__(self, logger: Logger | None) -> None:
        self.logger = logger
        self.rows: list[dict[str, Any]] = []
        self._phase = ""

    def begin(self, phase: str) -> int:
        """Start a phase; return the number of its first epoch."""
        self._phase = phase
        return len(self.rows) + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch's metrics; validation has run by now."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        epoch = len(self.rows) + 1
        self.rows.append({"phase": self._phase, "epoch": epoch, **metrics})
        if self.logger is not None and trainer.is_global_zero:
            self.logger.log_metrics(metrics, step=epoch)

    def best(self, first: int, monitor: str, mode: str) -> dict[str, Any]:
        """The row with the best monitored metric among the epochs from ``first`` on."""
        rows = self.rows[first - 1 :]
        choose = min if mode == "min" else max
        return choose(rows, key=lambda row: row[monitor])

    def table(self) -> pd.DataFrame:
        """All epochs, one row each."""
        return pd.DataFrame(self.rows)
