"""Callbacks and loggers that a configuration adds to a training: ``trainer.callbacks`` and ``trainer.logger``.

Callbacks are made anew for each phase, which is a ``Trainer.fit`` of its own: what they remember is of one phase, and
a resumed phase finds it in its checkpoint. Loggers are made once for a run; their steps and epochs run on over phases.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import callbacks as lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger

from cxrnet.errors import CxrnetError
from cxrnet.training.checkpoints import checkpoint, read_checkpoint, read_progress

REFUSED: dict[tuple[type[Callback], ...], str] = {
    (lightning.EarlyStopping,): "the schedule stops phases early; give its phases a patience",
    (lightning.BaseFinetuning,): "the schedule says what is trained, and when; give its phases trainable",
    (lightning.StochasticWeightAveraging, lightning.WeightAveraging): "the weights that are kept are those of an epoch",
    (lightning.LearningRateFinder,): "the schedule says the learning rate; give its phases lr",
    (lightning.BatchSizeFinder,): "give data.batch_size",
    (lightning.ModelPruning,): "the network that is kept has the layers that model says",
    (lightning.ProgressBar, lightning.ModelSummary): "the console is cxrnet's own",
}
"""What the schedule or cxrnet itself decides, and what to do instead."""

_NEED_LOGGER = (lightning.LearningRateMonitor, lightning.DeviceStatsMonitor, lightning.ThroughputMonitor)


def make_callbacks(trainer: Mapping[str, Any]) -> list[Callback]:
    """The callbacks of a configuration's ``trainer``, for one phase.

    Raises:
        CxrnetError: one isn't a callback, does what the schedule decides, or needs a logger and there is none.
    """
    made: list[Callback] = _made(trainer.get("callbacks"), "callbacks", Callback)
    for callback in made:
        name = type(callback).__name__
        for kinds, instead in REFUSED.items():
            if isinstance(callback, kinds):
                raise CxrnetError(f"trainer.callbacks: no {name}: {instead}")
        if isinstance(callback, _NEED_LOGGER) and not trainer.get("logger"):
            raise CxrnetError(f"trainer.callbacks: {name} needs a logger; give +trainer.logger=true beside it")
    return made


def make_loggers(trainer: Mapping[str, Any], folder: Path) -> list[Logger]:
    """The loggers of a configuration's ``trainer``, for one run.

    Args:
        trainer: plain. ``logger: true`` is a ``CSVLogger``.
        folder: of the run, where that one writes.

    Raises:
        CxrnetError: one isn't a logger.
    """
    asked = trainer.get("logger")
    return [CSVLogger(folder)] if asked is True else _made(asked, "logger", Logger)


def _made(asked: Any, name: str, kind: type[Any]) -> list[Any]:  # noqa: ANN401 (whatever YAML holds)
    """Instances of one ``{_target_: ...}``, of a list of them or of such by name; null and false are none."""
    if asked is None or asked is False:
        return []
    if isinstance(asked, Mapping):
        asked = [asked] if "_target_" in asked else list(asked.values())
    parts = [part for part in (asked if isinstance(asked, list) else [asked]) if part is not None]
    made = [_instance(part, name) for part in parts]
    for each, part in zip(made, parts, strict=True):
        if not isinstance(each, kind):
            what = kind.__name__.lower()
            raise CxrnetError(
                f"trainer.{name}: {part} is no {what}; give {{_target_: lightning.pytorch.{what}s.<Class>}}, or a list"
            )
    return made


def _instance(part: Any, name: str) -> Any:  # noqa: ANN401
    if not isinstance(part, Mapping) or "_target_" not in part:
        return part
    try:
        return instantiate(part, _convert_="all")
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise CxrnetError(f"trainer.{name}: {part['_target_']} can't be made: {reason}") from error


class RunOn(Callback):
    """Lets the steps and epochs of a phase's loggers go on where those of the phases before it ended.

    Lightning counts both from zero in every ``fit``.

    Args:
        folder: of the run.
        earlier: names of the phases before this one, in order.
    """

    def __init__(self, folder: Path, earlier: Sequence[str]) -> None:
        files = [checkpoint(folder, name, "last") for name in earlier]
        self.steps = sum(read_checkpoint(file)["global_step"] for file in files)
        self.epochs = len(read_progress(files[-1]).rows) if files else 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stand between the trainer, or whichever callback logs, and its loggers."""
        for logger in trainer.loggers:
            vars(logger)["log_metrics"] = partial(self._log, logger.log_metrics)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the loggers as they were, for the next phase."""
        for logger in trainer.loggers:
            del vars(logger)["log_metrics"]

    def _log(self, log: Any, metrics: Mapping[str, float], step: int | None = None) -> None:  # noqa: ANN401
        epoch = {"epoch": metrics["epoch"] + self.epochs} if "epoch" in metrics else {}
        log({**metrics, **epoch}, None if step is None else step + self.steps)
