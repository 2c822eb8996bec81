"""What a schedule is: phases, each with what is trainable, for how long and at what rate."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import Trainable


@dataclass(frozen=True)
class Phase:
    """What is trainable, for how long, at what rate.

    Attributes:
        name: shown everywhere; unique in a schedule.
        trainable: see :mod:`cxrnet.models.freezing`.
        epochs: at most.
        lr: learning rate at the start.
        patience: epochs without improvement before the phase stops; ``None`` never stops early.
        lr_schedule: see :mod:`cxrnet.training.lr_schedules`; ``None`` keeps the rate.
        enabled: a phase that is not enabled is left out.
    """

    name: str
    trainable: Trainable
    epochs: int
    lr: float
    patience: int | None = None
    lr_schedule: dict[str, Any] | None = None
    enabled: bool | None = True


@dataclass(frozen=True)
class Schedule:
    """The phases of a run and what they share.

    Attributes:
        phases: in order.
        monitor: the validation metric that decides which epoch is best.
        mode: ``min`` or ``max`` of the monitored metric.
        scratch: takes the place of the phases that train the head alone when the weights are random.
        views: augmented views of each training image while the backbone is frozen; 0 trains the head the long way,
            on images.
        max_epochs: caps every phase; ``None`` for no cap.
    """

    phases: tuple[Phase, ...]
    scratch: Phase
    monitor: str
    mode: Literal["min", "max"]
    views: int
    max_epochs: int | None = None


def enabled_phases(schedule: Schedule, pretrained: bool) -> tuple[Phase, ...]:
    """The phases that will run.

    Random weights are never frozen: without pretrained weights ``schedule.scratch`` takes the place of the phases
    that train the head alone, and every later phase trains everything.

    Raises:
        CxrnetError: none is enabled, or two have one name.
    """
    phases = [phase for phase in schedule.phases if phase.enabled]
    if not pretrained:
        later = [phase for phase in phases if phase.trainable != "head"]
        phases = [schedule.scratch, *(dataclasses.replace(phase, trainable="all") for phase in later)]
    names = [phase.name for phase in phases]
    if not phases:
        raise CxrnetError("schedule.phases: no phase is enabled; enable one (finetune=true) or take another schedule")
    if len(set(names)) < len(names):
        raise CxrnetError(f"schedule.phases: two phases have one name ({', '.join(names)}); give each its own")
    if schedule.max_epochs is not None:
        phases = [_capped(phase, schedule.max_epochs) for phase in phases]
    return tuple(phases)


def _capped(phase: Phase, epochs: int) -> Phase:
    """The phase with at most so many epochs; a warm-up leaves one of them at the full rate."""
    if phase.epochs <= epochs:
        return phase
    spec = phase.lr_schedule
    if spec is not None and "warmup_epochs" in spec:
        spec = {**spec, "warmup_epochs": min(spec["warmup_epochs"], epochs - 1)}
    return dataclasses.replace(phase, epochs=epochs, lr_schedule=spec)
