"""What a user types after ``python -m cxrnet.train``, for the jobs of cxrnet itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrnet.benchmarking.plan import Plan


def override(name: str, value: object) -> str:
    """One word; text is quoted, so that a path may hold anything."""
    if isinstance(value, str | Path):
        text = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"{name}='{text}'"
    return f"{name}={'null' if value is None else value}"


def train_overrides(
    plan: Plan,
    root: Path,
    backbone: str,
    weights: str,
    phase: Mapping[str, Any],
    views: int,
    augment: bool,
    bf16: bool,
    cache: Path,
    steps: int | None = None,
) -> list[str]:
    """The job of the other contenders: a linear head, cross-entropy without weights, Adam, one phase.

    Args:
        plan: of the benchmark.
        root: of the images.
        backbone: name of the backbone, and of its option.
        weights: as ``model.weights`` has it.
        phase: ``trainable``, ``epochs`` and ``lr``.
        views: as ``schedule.views`` has it.
        augment: flips and small affine maps.
        bf16: mixed precision.
        cache: of decoded images and tables.
        steps: of an epoch at most, and one validation batch; ``None`` takes all.
    """
    words = [
        "data=folder",
        override("data.root", root),
        f"data.size={list(plan.size)}",
        f"data.batch_size={plan.batch_size}",
        f"model={backbone}",
        "model.hidden=[]",
        "model.dropout=0.2",
        override("model.weights", weights),
        "loss.class_weights=none",
        "schedule=head",
        f"schedule.views={views}",
        f"schedule.phases=[{_phase(phase)}]",
        f"trainer={plan.trainer}",
        f"trainer.precision={'bf16-mixed' if bf16 else '32-true'}",
        f"seed={plan.seed}",
        override("cache", cache),
        *(["augment=light", "augment.flip=0.5"] if augment else ["augment=none"]),
    ]
    return [*words, *_limits(steps), *plan.config["overrides"]]


def _limits(steps: int | None) -> Sequence[str]:
    return [f"+trainer.limit_train_batches={steps}", "+trainer.limit_val_batches=1"] if steps is not None else []


def _phase(phase: Mapping[str, Any]) -> str:
    trainable = phase["trainable"]
    named = (
        trainable if isinstance(trainable, str) else "{" + ", ".join(f"{k}: {v}" for k, v in trainable.items()) + "}"
    )
    return (
        "{_target_: cxrnet.training.schedule.Phase, name: benchmark, "
        f"trainable: {named}, epochs: {phase['epochs']}, lr: {phase['lr']}}}"
    )
