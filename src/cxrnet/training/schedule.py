"""A schedule: phases, each with its trainable part, epochs and learning rate."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from cxrnet.core.schema import need
from cxrnet.errors import CxrnetError
from cxrnet.models.settings import Trainable

_OF_EPOCHS = tuple(f"schedule.head.{key}." for key in ("epochs", "lr", "lr_schedule", "patience", "decay", "keep"))
_OF_GRADIENTS = (
    "optimizer.",
    "trainer.gradient_clip_val.",
    "trainer.gradient_clip_algorithm.",
    "trainer.accumulate_grad_batches.",
)


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
        decay: weight decay over the whole phase, from 0 on, see :class:`cxrnet.training.callbacks.WeightDecay`.
        keep: the epoch whose weights are kept: ``last``, or ``best`` by the schedule's monitored metric.
        enabled: a phase that is not enabled is left out.
        solver: gradient trains by epochs; regression fits a head of one dense layer on stored features at once, as a
            logistic regression whose L2 is chosen by cross-validation. Where the head or the loss is another, or no
            features are stored, it trains by epochs too.
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
    solver: Literal["gradient", "regression"] = "gradient"

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
        features_gb: most gigabytes that the stored output of frozen layers may take in a phase, divided among the jobs
            that joblib runs at once. Where a part of the backbone is trained, it is stored only for more epochs than
            views. 0 never stores it.
        best_from: number of validation images from which on a phase with ``keep: best`` chooses its epoch. With fewer
            the choice would be noise, and the last epoch is kept.
        max_epochs: caps every phase; null for no cap.
        checkpoint_every: batches after which a checkpoint is saved within an epoch too, from which a resumed run goes
            on; null saves at the end of an epoch alone.
        head: phase that comes first, on a frozen backbone; null for none.
    """

    phases: tuple[Phase, ...] = ()
    scratch: Phase | None = None
    monitor: str = "val/loss"
    views: int = 1
    features_gb: float = 4
    best_from: int = 100
    max_epochs: int | None = None
    checkpoint_every: int | None = None
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
        need(
            self.checkpoint_every is None or self.checkpoint_every > 0,
            "schedule.checkpoint_every",
            self.checkpoint_every,
            "a number of batches from 1 on, or null",
        )

    @property
    def planned(self) -> tuple[Phase, ...]:
        """All phases in order, ``head`` included."""
        return self.phases if self.head is None else (self.head, *self.phases)

    @property
    def stores(self) -> bool:
        """Whether the output of frozen layers may be stored."""
        return self.views > 0 and self.features_gb > 0

    @property
    def mode(self) -> Literal["min", "max"]:
        """``min`` where the monitored metric is better when it is small, as a loss is."""
        return "min" if self.monitor in ("train/loss", "val/loss") else "max"

    def keeps_last(self, phase: Phase, validation: int) -> bool:
        """Tell whether the last epoch of a phase is kept, where there are so many validation images."""
        return phase.keep == "last" or validation < self.best_from


@dataclass(frozen=True)
class PhaseResult:
    """The result of a phase.

    Attributes:
        name: name of the phase.
        trainable: in words.
        trained_parameters: numbers that the optimizer changed.
        lr: learning rate at the start; 0 where the head was fitted at once.
        decay: weight decay over the whole phase.
        cached: whether the output of the frozen layers was computed once.
        first_epoch: counted over all phases, from 1.
        epochs: epochs that were trained; 1 where the head was fitted at once, whose metrics it has.
        keep: whether the ``last`` epoch was kept, or the ``best``.
        kept_epoch: whose weights were kept, counted over all phases, from 1.
        monitor: the metric by which phases, and epochs, are compared.
        kept_score: its value in that epoch, on the validation images.
        seconds: wall time, features included.
        kept: the run's final weights come from this phase.
        fitted: how its head was fitted at once, in words; empty where it was trained by epochs.
        l2: the strength that it was fitted with; 0 where it was trained by epochs.
        losses: each L2 that was tried for that, and its cross-validated log loss; empty where none was chosen so.
        by_epochs: why its head was trained by epochs though its solver is ``regression``; empty where it was not.
    """

    name: str
    trainable: str
    trained_parameters: int
    lr: float
    decay: float
    cached: bool
    first_epoch: int
    epochs: int
    keep: Literal["last", "best"]
    kept_epoch: int
    monitor: str
    kept_score: float
    seconds: float
    kept: bool = False
    fitted: str = ""
    l2: float = 0.0
    losses: tuple[tuple[float, float], ...] = ()
    by_epochs: str = ""


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
        later = [phase for phase in phases if phase.trainable != "head"]
        first = [schedule.scratch] if schedule.scratch is not None and len(later) < len(phases) else []
        whole = [phase for phase in later if phase.trainable == "all" or phase is later[-1]]
        phases = [*first, *(replace(phase, trainable="all") for phase in whole)]
    names = [phase.name for phase in phases]
    if not phases:
        raise CxrnetError("schedule.phases: no phase is enabled; enable one (finetune=true) or take another schedule")
    if len(set(names)) < len(names):
        raise CxrnetError(f"schedule.phases: two phases have one name ({', '.join(names)}); give each its own")
    if (most := schedule.max_epochs) is not None:
        for place, phase in enumerate(phases):
            spec = phase.lr_schedule
            if phase.epochs > most and spec is not None and "warmup_epochs" in spec:  # one epoch is at the full rate
                spec = {**spec, "warmup_epochs": min(spec["warmup_epochs"], most - 1)}
            phases[place] = replace(phase, epochs=min(phase.epochs, most), lr_schedule=spec)
    return tuple(phases)


def check_words(words: Iterable[str], phases: Sequence[Phase], schedule: Schedule) -> None:
    """Refuse words of a command line that have no effect where the head is fitted at once.

    Args:
        words: ``key=value``, as ``schedule.head.lr=0.01``.
        phases: phases that will run; those whose solver is ``regression`` can be fitted at once.
        schedule: schedule of which they are.

    Raises:
        CxrnetError: a word says how the head is trained by epochs or, where nothing else is trained, by which steps.
    """
    fitted = [phase for phase in phases if phase.solver == "regression"]
    way_out = "; leave it out, or give schedule.head.solver=gradient to train the head by epochs"
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        of_head = schedule.head in fitted and f"{key}.".startswith(_OF_EPOCHS)
        of_all = 0 < len(fitted) == len(phases) and (f"{key}.".startswith(_OF_GRADIENTS) or "weight_averaging" in word)
        if of_head or of_all:
            raise CxrnetError(f"{key}: has no effect, as the head is fitted at once, by a logistic regression{way_out}")


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


def check_precision(precision: object, on_cpu: bool) -> None:
    """Refuse ``trainer.precision`` where it is of the weights, or one that the device hasn't got.

    Args:
        precision: as Lightning takes it.
        on_cpu: training runs on a CPU. Of ``16-mixed`` Lightning makes ``bf16-mixed`` there, and only warns.

    Raises:
        CxrnetError: it isn't known, or it is ``16-mixed`` on a CPU.
    """
    short = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # Lightning's
    known = short.get(str(precision), str(precision))
    if known not in short.values():
        raise CxrnetError(
            f"trainer.precision: {precision} is not for the weights, which predict in float32; "
            "give 32-true, 16-mixed or bf16-mixed"
        )
    if known == "16-mixed" and on_cpu:
        raise CxrnetError(
            f"trainer.precision: {precision} needs a GPU, and training would run on the CPU; "
            "give trainer.precision=bf16-mixed"
        )
