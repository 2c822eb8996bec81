"""The metrics of every epoch, epochs running on over the phases."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

Row = dict[str, Any]


class History:
    """What was logged at the end of each epoch.

    Lightning counts epochs from zero in every ``fit``; here they run on, so that a curve over two phases is one curve.

    Args:
        rows: of the epochs before, when a run is resumed.

    Attributes:
        rows: one dictionary an epoch: ``phase``, ``epoch`` (from 1) and every metric.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = list(rows)

    def add(self, phase: str, metrics: dict[str, float]) -> Row:
        """Add the next epoch; return its row."""
        row = {"phase": phase, "epoch": len(self.rows) + 1, **metrics}
        self.rows.append(row)
        return row

    def of(self, phase: str) -> list[Row]:
        """The epochs of a phase."""
        return [row for row in self.rows if row["phase"] == phase]

    def best(self, phase: str, monitor: str, mode: str) -> Row:
        """The epoch of a phase with the best monitored metric; the earlier one of two equals."""
        return min(self.of(phase), key=lambda row: rank(row[monitor], mode))

    def kept(self, phase: str, monitor: str, mode: str, last: bool) -> Row:
        """The epoch of a phase whose weights are kept: its last one, or the best."""
        return self.of(phase)[-1] if last else self.best(phase, monitor, mode)

    def table(self) -> pd.DataFrame:
        """All epochs, one row each."""
        return pd.DataFrame(self.rows)


def metrics_of(row: Row) -> dict[str, float]:
    """The metrics of an epoch without its phase and number."""
    return {name: value for name, value in row.items() if name not in ("phase", "epoch")}


def rank(score: float, mode: str) -> float:
    """Sort key of a monitored metric: the best comes first, what is not a number last."""
    if math.isnan(score):
        return math.inf
    return score if mode == "min" else -score
