"""A schedule: phases, each with its trainable part, epochs and learning rate."""

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from cxrnet.core.schema import need
from cxrnet.errors import CxrnetError
from cxrnet.models.settings import Trainable


@dataclass(frozen=True)
class Phase:
    """A phase: its trainable part, epochs and learning rate.

    Attributes:
        name: name of the phase, unique in a schedule.
        trainable: head, all, {from: layer3}, {stages: 2}, {last: 100} (layers) or {fraction: 0.3}, see
            :mod:`cxrnet.models.freezing`.
        epochs: most epochs that it trains.
        lr: learning rate at the start.
        patience: epochs without improvement before the phase stops; null never stops early.
        lr_schedule: {name: cosine, warmup_epochs: 1} or {name: plateau, factor: 0.5, patience: 2}; null keeps the rate.
        decay: weight decay over the whole phase, from 0 on, see :class:`cxrnet.training.trainer.WeightDecay`.
        keep: the epoch whose weights are kept: ``last``, or ``best`` by the schedule's monitored metric.
        enabled: a phase that is not enabled is left out.
    """

    name: str
    trainable: Trainable
    epochs: int
    lr: float
    patience: int | None = None
    lr_schedule: dict[str, Any] | None = None
    decay: float = 0.0
    keep: Literal["last", "best"] = "best"
    enabled: bool | None = True

    def __post_init__(self) -> None:
        """Refuse what can't be trained.

        Raises:
            CxrnetError: a name that is no folder name, or numbers out of range.
        """
        key = f"schedule: phase '{self.name}'"
        if not re.fullmatch(r"[\w-]+", self.name):
            raise CxrnetError(f"{key}: the name becomes a folder; use letters, digits, _ and -")
        need(self.epochs > 0, f"{key}: epochs", self.epochs, "a whole number from 1 on")
        need(
            self.patience is None or self.patience > 0,
            f"{key}: patience",
            self.patience,
            "a whole number from 1 on, or null",
        )
        need(0 <= self.decay < math.inf, f"{key}: decay", self.decay, "a number from 0 on (0: none)")


@dataclass(frozen=True)
class Schedule:
    """The phases of a run and what they share.

    Attributes:
        phases: phases after ``head``, in order.
        scratch: phase that takes the place of those that train the head alone when the weights are random; null where
            no phase does.
        monitor: metric that decides which epoch is best, see :func:`cxrnet.models.lightning_module.metric_names`.
        views: views of each training image where the output of frozen layers is computed once: the image itself, then
            augmented ones; 0 trains on images.
        features_gb: most gigabytes that the stored output of frozen layers may take in a phase. Where a part of the
            backbone is trained, it is stored only for more epochs than views. 0 never stores it.
        best_from: number of validation images from which on a phase with ``keep: best`` chooses its epoch. With fewer
            the choice would be noise, and the last epoch is kept.
        max_epochs: caps every phase; null for no cap.
        head: phase that comes first, on a frozen backbone; null for none.
    """

    phases: tuple[Phase, ...] = ()
    scratch: Phase | None = None
    monitor: str = "val/loss"
    views: int = 1
    features_gb: float = 4
    best_from: int = 100
    max_epochs: int | None = None
    head: Phase | None = None

    def __post_init__(self) -> None:
        """Refuse what is no schedule.

        Raises:
            CxrnetError: scratch is missing where it is needed, or a number is out of range.
        """
        heads = [phase.name for phase in self.planned if phase.trainable == "head"]
        if heads and self.scratch is None:
            raise CxrnetError(
                f"schedule.scratch: there is none; give the phase that trains random weights instead of '{heads[0]}'"
            )
        if self.scratch is not None and self.scratch.enabled is False:
            raise CxrnetError(
                "schedule.scratch.enabled: false would leave random weights frozen; leave it out, and for pretrained "
                "weights the phase is left out"
            )
        need(self.views >= 0, "schedule.views", self.views, "a whole number from 0 on (0 trains on images)")
        need(self.features_gb >= 0, "schedule.features_gb", self.features_gb, "gigabytes from 0 on (0 stores none)")
        need(self.best_from >= 0, "schedule.best_from", self.best_from, "a whole number from 0 on")
        capped = self.max_epochs is None or self.max_epochs > 0
        need(capped, "schedule.max_epochs", self.max_epochs, "a whole number from 1 on, or null")

    @property
    def planned(self) -> tuple[Phase, ...]:
        """All phases in order, ``head`` included."""
        return self.phases if self.head is None else (self.head, *self.phases)

    @property
    def mode(self) -> Literal["min", "max"]:
        """``min`` where the monitored metric is better when it is small, as a loss is."""
        return "min" if self.monitor in ("train/loss", "val/loss") else "max"

    def keeps_last(self, phase: Phase, validation: int) -> bool:
        """Tell whether the last epoch of a phase is kept, where there are so many validation images."""
        return phase.keep == "last" or validation < self.best_from


def enabled_phases(schedule: Schedule, pretrained: bool) -> tuple[Phase, ...]:
    """List the phases that will run.

    Random weights are never frozen. Without pretrained weights ``schedule.scratch`` takes the place of the phases
    that train the head alone; of the phases after it the last one trains everything, and those on the way there, which
    train a part of the backbone, are left out.

    Raises:
        CxrnetError: none is enabled, or two have one name.
    """
    phases = [phase for phase in schedule.planned if phase.enabled]
    if not pretrained:
        phases = _unfrozen(phases, schedule.scratch)
    names = [phase.name for phase in phases]
    if not phases:
        raise CxrnetError("schedule.phases: no phase is enabled; enable one (finetune=true) or take another schedule")
    if len(set(names)) < len(names):
        raise CxrnetError(f"schedule.phases: two phases have one name ({', '.join(names)}); give each its own")
    if schedule.max_epochs is not None:
        phases = [_capped(phase, schedule.max_epochs) for phase in phases]
    return tuple(phases)


def check_finetune(finetune: bool | None, schedule: DictConfig) -> None:
    """Refuse a ``finetune`` that no phase listens to.

    Args:
        finetune: as the user gave it; ``None`` if not at all.
        schedule: not resolved, so that it still says which phases are ``enabled: ${finetune}``.

    Raises:
        CxrnetError: ``finetune`` is given and would change nothing.
    """
    if finetune is not None and "${finetune}" not in OmegaConf.to_yaml(schedule):
        raise CxrnetError(
            f"finetune={str(finetune).lower()}: no phase of this schedule is 'enabled: ${{finetune}}'; leave finetune "
            "out, or take schedule=transfer"
        )


def _unfrozen(phases: Sequence[Phase], scratch: Phase | None) -> list[Phase]:
    """Return the phases for random weights; see :func:`enabled_phases`."""
    later = [phase for phase in phases if phase.trainable != "head"]
    kept = [phase for phase in later if phase.trainable == "all" or phase is later[-1]]
    first = [scratch] if scratch is not None and len(later) < len(phases) else []
    return [*first, *(dataclasses.replace(phase, trainable="all") for phase in kept)]


def _capped(phase: Phase, epochs: int) -> Phase:
    """Return the phase with at most so many epochs; a warm-up leaves one of them at the full rate."""
    if phase.epochs <= epochs:
        return phase
    spec = phase.lr_schedule
    if spec is not None and "warmup_epochs" in spec:
        spec = {**spec, "warmup_epochs": min(spec["warmup_epochs"], epochs - 1)}
    return dataclasses.replace(phase, epochs=epochs, lr_schedule=spec)


PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

_SHORT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # Lightning's


def check_precision(precision: object, on_cpu: bool) -> None:
    """Refuse ``trainer.precision`` where it is of the weights, or one that the device hasn't got.

    Args:
        precision: as Lightning takes it.
        on_cpu: training runs on a CPU. Of ``16-mixed`` Lightning makes ``bf16-mixed`` there, and only warns.

    Raises:
        CxrnetError: it isn't one of :data:`PRECISIONS`, or it is ``16-mixed`` on a CPU.
    """
    known = _SHORT.get(str(precision), str(precision))
    if known not in PRECISIONS:
        raise CxrnetError(
            f"trainer.precision: {precision} is not for the weights, which predict in float32; "
            f"give {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
        )
    if known == "16-mixed" and on_cpu:
        raise CxrnetError(
            f"trainer.precision: {precision} needs a GPU, and training would run on the CPU; "
            "give trainer.precision=bf16-mixed"
        )
