"""The metrics of every epoch, epochs running on over the phases."""

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import Callback

LogMetrics = Callable[[dict[str, float], int], None]


class History(Callback):
    """Collects what is logged at the end of each epoch and hands it on.

    Lightning counts epochs from zero in every ``fit``; here they run on, so that a curve over two phases is one curve.

    Args:
        log_metrics: gets the metrics of each epoch and the epoch's number, from 1; ``None`` for nobody.

    Attributes:
        rows: one dictionary an epoch: ``phase``, ``epoch`` (from 1), ``lr`` and every logged metric.
    """

    def __init__(self, log_metrics: LogMetrics | None) -> None:
        self.log_metrics = log_metrics
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
        if self.log_metrics is not None and trainer.is_global_zero:
            self.log_metrics(metrics, epoch)

    def best(self, first: int, monitor: str, mode: str) -> dict[str, Any]:
        """The row with the best monitored metric among the epochs from ``first`` on."""
        return min(self.rows[first - 1 :], key=lambda row: rank(row[monitor], mode))

    def table(self) -> pd.DataFrame:
        """All epochs, one row each."""
        return pd.DataFrame(self.rows)


def rank(score: float, mode: str) -> float:
    """Sort key of a monitored metric: the best comes first, what is not a number last."""
    if math.isnan(score):
        return math.inf
    return score if mode == "min" else -score
