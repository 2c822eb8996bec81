"""Callbacks and loggers that a configuration adds to a training: the groups ``callbacks`` and ``logger``.

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
from lightning.pytorch.loggers import Logger
from torch import Tensor

from cxrnet.core.schema import need
from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import frozen_names
from cxrnet.training.checkpoints import checkpoint, read_checkpoint, read_progress

REFUSED: dict[tuple[type[Callback], ...], str] = {
    (lightning.EarlyStopping,): "the schedule stops phases early; give its phases a patience",
    (lightning.BaseFinetuning,): "the schedule says what is trained, and when; give its phases trainable",
    (lightning.StochasticWeightAveraging, lightning.WeightAveraging): "give callbacks=weight_averaging",
    (lightning.LearningRateFinder,): "the schedule says the learning rate; give its phases lr",
    (lightning.BatchSizeFinder,): "give data.batch_size",
    (lightning.ModelPruning,): "the network that is kept has the layers that model says",
    (lightning.ProgressBar, lightning.ModelSummary): "the console is cxrnet's own",
}
"""Callbacks for what the schedule or cxrnet itself decides, and what to do instead."""

_NEED_LOGGER = (lightning.LearningRateMonitor, lightning.DeviceStatsMonitor, lightning.ThroughputMonitor)


def make_callbacks(config: Mapping[str, Any]) -> list[Callback]:
    """Make the callbacks of a plain configuration, for one phase.

    Raises:
        CxrnetError: one isn't a callback, does what the schedule decides, or needs a logger and there is none.
    """
    made: list[Callback] = _made(config["callbacks"], "callbacks", Callback)
    for callback in made:
        name = type(callback).__name__
        for kinds, instead in REFUSED.items():
            if isinstance(callback, kinds):
                raise CxrnetError(f"callbacks: no {name}: {instead}")
        if isinstance(callback, _NEED_LOGGER) and not config["logger"]:
            raise CxrnetError(f"callbacks: {name} needs a logger; give logger=csv beside it")
    return made


def make_loggers(config: Mapping[str, Any], folder: Path) -> list[Logger]:
    """Make the loggers of a plain configuration, for one run; ``folder`` is the ``save_dir`` of ``_partial_`` ones.

    Raises:
        CxrnetError: one isn't a logger, or can't be made.
    """
    return _made(config["logger"], "logger", Logger, save_dir=folder)


def _made(asked: Mapping[str, Any], group: str, kind: type[Any], **missing: object) -> list[Any]:
    """Make what a group asks for by name; null leaves one out."""
    made = []
    for name, part in asked.items():
        if part is None:
            continue
        if not isinstance(part, Mapping) or "_target_" not in part:
            raise CxrnetError(f"{group}.{name}: {part} names no class; give {{_target_: <class>}}")
        try:
            each = instantiate(part, _convert_="all")
            made.append(each(**missing) if isinstance(each, partial) else each)
        except (InstantiationException, ImportError, TypeError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise CxrnetError(f"{group}.{name}: {part['_target_']} can't be made: {reason}") from error
        if not isinstance(made[-1], kind):
            raise CxrnetError(f"{group}.{name}: {part['_target_']} is no {kind.__name__.lower()}; give another class")
    return made


class RunOn(Callback):
    """Lets the steps and epochs of a phase's loggers go on where those of the phases before it ended.

    Lightning counts both from zero in every ``fit``.

    Args:
        folder: folder of the run.
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


class MovingAverage(Callback):
    """Validates and keeps an exponential moving average of the weights in place of the weights themselves.

    After step t of a phase the average is ``d`` x itself + (1 - ``d``) x the weights, with ``d`` the smaller one of
    ``decay`` and (1 + t) / (10 + t), so that few steps don't depend on the weights that they began with (as
    ``tf.train.ExponentialMovingAverage``). What is averaged is what the phase trains, running statistics of batch norms
    included; frozen layers stay bitwise what they are. A checkpoint has the average as its ``state_dict``, so it is
    what is kept, bundled and evaluated, and where the next phase begins.

    Lightning's own averages frozen layers too, to within rounding, and its validation loss has the penalty of the
    weights that are not averaged.

    Args:
        decay: between 0 and 1.
    """

    CURRENT = "weights_before_averaging"  # in a checkpoint

    def __init__(self, decay: float) -> None:
        need(0 < decay < 1, "callbacks.weight_averaging.decay", decay, "a number between 0 and 1")
        self.decay = decay
        self._weights: dict[str, Tensor] = {}
        self._averages: dict[str, Tensor] = {}
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the weights as they are, or with the averages of a checkpoint."""
        self._step = trainer.global_step
        frozen = frozen_names(pl_module.network)  # type: ignore[arg-type]
        state = pl_module.network.state_dict()  # type: ignore[union-attr]
        self._weights = {name: value for name, value in state.items() if name not in frozen}
        begun = self._averages or self._weights
        self._averages = {name: begun[name].to(value.device, copy=True) for name, value in self._weights.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Move the averages, if the optimizer made a step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        share = 1 - min(self.decay, (1 + self._step) / (10 + self._step))
        for name, value in self._weights.items():
            if value.is_floating_point():
                self._averages[name].lerp_(value, share)
            else:
                self._averages[name].copy_(value)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the averages in the place of the weights."""
        self._swap()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the weights back."""
        self._swap()

    def _swap(self) -> None:
        for name, value in self._weights.items():
            held = value.clone()
            value.copy_(self._averages[name])
            self._averages[name].copy_(held)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the averages as the weights, and the weights beside them."""
        state = checkpoint["state_dict"]
        checkpoint[self.CURRENT] = {f"network.{name}": state[f"network.{name}"] for name in self._averages}
        checkpoint["state_dict"] = state | {f"network.{name}": value for name, value in self._averages.items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with both."""
        current = checkpoint[self.CURRENT]
        self._averages = {name.removeprefix("network."): checkpoint["state_dict"][name] for name in current}
        pl_module.load_state_dict(current, strict=False)
