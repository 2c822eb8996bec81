"""The checkpoints of a phase and the history of its epochs: what a resumed run goes on from.

``checkpoints/<phase>/last.ckpt`` holds weights, optimizer, early stopping and, in the same file so that they can't
disagree, the history of all epochs so far. ``kept.ckpt`` is that of the epoch whose weights are kept. Both hold the
weights that the phase trains; when the phase is over, ``kept.ckpt`` gets the frozen ones too. ``running.ckpt`` is of
an epoch that has not ended: ``last.ckpt`` with what only the middle of an epoch has, its batches so far, metrics and
random numbers.
"""

import dataclasses
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import pandas as pd
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import nn

from cxrnet.core.atomic import whole_file
from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.weights import UNREADABLE
from cxrnet.training.schedule import Phase, Schedule

PLAIN: dict[str, Any] = {"map_location": "cpu", "weights_only": True, "mmap": True}  # read as far as it is needed
PROGRESS = "EpochKeeper"
"""Key of :class:`Progress` in a checkpoint: the name of the callback whose state it is, for Lightning."""

_PREFIX = "network."  # of the network's weights in the state of a classifier

Row = dict[str, Any]
LogMetrics = Callable[[dict[str, float], int], None]


class History:
    """The metrics of every epoch.

    Lightning counts epochs from zero in every ``fit``; here they run on over the phases, so that a curve over two
    phases is one curve.

    Args:
        rows: rows of the epochs before, when a run is resumed.

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
        """Return the epochs of a phase."""
        return [row for row in self.rows if row["phase"] == phase]

    def kept(self, phase: str, schedule: Schedule, last: bool) -> Row:
        """Return the epoch whose weights are kept: the last, or the best; the earlier one of two equals."""
        rows = self.of(phase)
        return rows[-1] if last else min(rows, key=lambda row: rank(row[schedule.monitor], schedule.mode))

    def table(self) -> pd.DataFrame:
        """Return all epochs, one row each."""
        return pd.DataFrame(self.rows)


def metrics_of(row: Row) -> dict[str, float]:
    """Return the metrics of an epoch without its phase and number."""
    return {name: value for name, value in row.items() if name not in ("phase", "epoch")}


def rank(score: float, mode: str) -> float:
    """Return the sort key of a monitored metric: the best comes first, what is not a number last."""
    if math.isnan(score):
        return math.inf
    return score if mode == "min" else -score


@dataclass(frozen=True)
class Progress:
    """The progress of a phase.

    Attributes:
        plan: what must not change while a phase is trained, see :func:`plan_of`.
        cached: it trains on features that were computed once, and goes on so.
        rows: the history up to here, the phases before included.
        seconds: seconds of training so far.
        stopped: the phase was stopped early, or fitted at once, and gets no further epoch.
        head: how its head was trained: ``fitted``, ``l2`` and ``losses``, or ``by_epochs``, of
            :class:`cxrnet.training.schedule.PhaseResult`; empty where its solver is ``gradient``.
        batches: batches of the epoch after ``rows`` that were trained on; 0 between epochs.
        processes: processes that share these batches.
    """

    plan: dict[str, Any]
    cached: bool
    rows: list[Row]
    seconds: float
    stopped: bool
    head: dict[str, Any] = dataclasses.field(default_factory=dict)
    batches: int = 0
    processes: int = 1

    @property
    def name(self) -> str:
        """Name of the phase."""
        return str(self.plan["name"])

    def is_over(self, phase: Phase) -> bool:
        """Tell whether the phase, as it is planned now, has nothing left to do."""
        return self.stopped or len(History(self.rows).of(phase.name)) >= phase.epochs


def plan_of(phase: Phase) -> dict[str, Any]:
    """Return what must not change while a phase is trained: all but the number of its epochs."""
    plan = dataclasses.asdict(phase)
    del plan["epochs"], plan["enabled"]
    if phase.lr_schedule is not None:  # a cap on epochs shortens the warm-up too
        plan["lr_schedule"] = {name: value for name, value in phase.lr_schedule.items() if name != "warmup_epochs"}
    return plan


def checkpoint(folder: Path, phase: str, name: Literal["kept", "last", "running"]) -> Path:
    """Return the file of a checkpoint in a run's folder."""
    return folder / "checkpoints" / phase / f"{name}.ckpt"


class PlainFiles(TorchCheckpointIO):
    """Writes a checkpoint straight to the disk, in a third of the time that Lightning takes by way of memory."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint; Lightning calls it in the first process only, the others go on when it is done."""
        with whole_file(Path(path)) as partial:
            torch.save(checkpoint, partial)


@rank_zero_only
def keep_epoch(folder: Path, history: History, phase: str, schedule: Schedule, last: bool) -> None:
    """Copy ``last.ckpt`` to ``kept.ckpt`` if the last epoch is the one that the phase keeps."""
    if history.of(phase) and history.kept(phase, schedule, last) is history.rows[-1]:
        with whole_file(checkpoint(folder, phase, "kept")) as partial:
            shutil.copyfile(checkpoint(folder, phase, "last"), partial)


@rank_zero_only
def complete_kept(network: nn.Module, folder: Path, phase: str) -> None:
    """Add the weights that were frozen in a phase to its ``kept.ckpt``, when it is over."""
    kept = checkpoint(folder, phase, "kept")
    content = read_checkpoint(kept)
    whole = {f"{_PREFIX}{name}": value for name, value in _whole(network, content).items()}
    if not whole.keys() <= content["state_dict"].keys():
        with whole_file(kept) as partial:
            torch.save({**content, "state_dict": content["state_dict"] | whole}, partial)


def load_kept(network: nn.Module, folder: Path, phase: str) -> None:
    """Load the weights that a phase keeps; frozen ones that its checkpoint lacks stay those of the network.

    Raises:
        CxrnetError: the checkpoint is missing, damaged or of another network.
    """
    kept = checkpoint(folder, phase, "kept")
    try:
        network.load_state_dict(_whole(network, read_checkpoint(kept)))
    except (RuntimeError, TypeError) as error:
        raise CxrnetError(f"resume: '{kept}' is of another network; bring that back, or start a new run") from error


def _whole(network: nn.Module, content: dict[str, Any]) -> dict[str, torch.Tensor]:
    saved = content["state_dict"].items()
    return network.state_dict() | {k.removeprefix(_PREFIX): v for k, v in saved if k.startswith(_PREFIX)}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running code.

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


def read_progress(path: Path) -> Progress:
    """Read how far a phase had come when a checkpoint was saved.

    Raises:
        CxrnetError: the file can't be read, or was not written by a run.
    """
    try:
        return Progress(**read_checkpoint(path)["callbacks"][PROGRESS])
    except (KeyError, TypeError) as error:
        raise CxrnetError(f"resume: '{path}' is no checkpoint of a run; start a new run") from error


def trained_so_far(folder: Path) -> list[Progress]:
    """Read the progress of the phases that a run has trained, in order: the last one may be in its first epoch."""
    found: dict[Path, Progress] = {}
    for name in ("last", "running"):
        for path in (folder / "checkpoints").glob(f"*/{name}.ckpt"):
            progress, before = read_progress(path), found.get(path.parent)
            if before is None or len(progress.rows) >= len(before.rows):  # else its epoch has ended since
                found[path.parent] = progress
    return sorted(found.values(), key=lambda progress: (len(progress.rows), progress.batches))


def check_goes_on(trained: Sequence[Progress], phases: Sequence[Phase]) -> None:
    """Check that a schedule begins with what was trained; only epochs may be added, and phases after it.

    Raises:
        CxrnetError: it doesn't.
    """
    before, now = [progress.name for progress in trained], [phase.name for phase in phases]
    if before != now[: len(before)]:
        raise CxrnetError(
            f"resume: the run was trained in the phases {', '.join(before)}, and now they would be {', '.join(now)}; "
            "give the schedule and the weights that it began with"
        )
    for progress, phase in zip(trained, phases, strict=False):
        for name, value in plan_of(phase).items():
            was = progress.plan.get(name, getattr(Phase, name, None))  # a version before may not have known it
            if value != was:
                raise CxrnetError(
                    f"resume: phase '{phase.name}' was trained with {name} {was}, which is {value} now; take it back"
                )
