"""What a user types after ``python -m cxrnet.train``, for the jobs of cxrnet itself."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from cxrnet.benchmarking.plan import Plan
from cxrnet.cli.app import compose_config, config_folder, one_line
from cxrnet.cli.hydra_errors import REFUSALS, explain
from cxrnet.core.config import Config, plain_config
from cxrnet.core.schema import build
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Train

# The groups whose jobs get the user's words, and what decides which keys there are in them: augmentation, steps.
_KINDS: dict[str, Sequence[tuple[bool, int | None]]] = {
    "frozen": ((False, None), (True, None)),
    "train": ((True, 1),),
    "data": ((True, 1),),
}
_OWN = ("limit_train_batches", "limit_val_batches")  # arguments of the trainer that a run may not have


def check_overrides(config: Config, groups: Sequence[str]) -> None:
    """Refuse the user's further words where a job would: it may be hours until it comes.

    Args:
        config: plain, of ``conf/benchmark.yaml``, checked by :func:`cxrnet.benchmarking.plan.check_plan`.
        groups: that are asked for.

    Raises:
        CxrnetError: they are no list of words, ``conf/train.yaml`` has no such key or value, or one is of the cache.
    """
    given = config["overrides"]
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise CxrnetError(f"overrides: {given} is no list of words; give \"overrides=['data.num_workers=4']\"")
    if taken := [word for word in given if re.match(r"[+~]*(data\.)?cache\b", word)]:
        # What is in the way is emptied before a job, so it must not be the user's.
        raise CxrnetError(f"overrides: '{taken[0]}' can't be given; each job has a cache of its own")
    if not given:
        return
    plan = Plan(config, config["device"], Path("drawn"), Path("scratch"), "none")
    phase = {"trainable": "head", "epochs": 1, "lr": 1e-3}
    GlobalHydra.instance().clear()  # of the benchmark's own configuration, which is composed
    for augment, steps in dict.fromkeys(kind for group in groups for kind in _KINDS.get(group, ())):
        words = train_overrides(
            plan, Path("images"), plan.backbone, "none", phase, 1, augment, False, Path("cache"), steps
        )
        try:
            composed = compose_config(Train, words)
        except REFUSALS as error:
            raise CxrnetError(f"overrides: {explain(error, config_folder(), 'train', words)}") from error
        try:
            plain = plain_config(composed)
            build(Train, plain | {"trainer": {key: it for key, it in plain["trainer"].items() if key not in _OWN}})
        except (CxrnetError, InstantiationException, OmegaConfBaseException) as error:
            raise CxrnetError(f"overrides: {one_line(error)}") from error


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
        "schedule.head=null",
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
    return f"{{name: benchmark, trainable: {named}, epochs: {phase['epochs']}, lr: {phase['lr']}}}"
