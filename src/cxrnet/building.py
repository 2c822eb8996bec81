"""What a configuration asks for: the data, the network with its starting weights, and its training."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger

from cxrnet.configuration import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.errors import CxrnetError
from cxrnet.models.network import Network, NetworkConfig
from cxrnet.models.weights import LoadedWeights, load_weights
from cxrnet.training.additions import RunOn, make_callbacks, make_loggers
from cxrnet.training.checkpoints import LogMetrics, Progress
from cxrnet.training.fitting import make_trainer
from cxrnet.training.history import History
from cxrnet.training.phases import PhaseResult, run_phases
from cxrnet.training.schedule import Phase, Schedule


def make_data(config: Config) -> XrayDataModule:
    """The data of a configuration's ``data``, set up."""
    # `root` is there to be overridden in one short place; the source gets it by interpolation.
    data: XrayDataModule = instantiate({name: value for name, value in config.items() if name != "root"})
    data.setup()
    return data


def make_network(model: Config, data: XrayDataModule) -> tuple[Network, LoadedWeights]:
    """The network of a configuration's ``model``, for the classes and the size of the data."""
    architecture = {name: value for name, value in model.items() if name != "weights"}
    network = Network(NetworkConfig.from_dict({**architecture, "classes": data.classes, "size": data.size}))
    return network, load_weights(network.backbone, model["backbone"], str(model["weights"]), data.size)


def check_trainer(trainer: Config, optimizer: Config, folder: Path) -> None:
    """Refuse a trainer that can't be made on this machine or can't train, before images are read.

    Args:
        trainer: of a configuration.
        optimizer: of a configuration.
        folder: of the run.

    Raises:
        CxrnetError: there is no such device, argument, precision, callback or logger here, or it would clip gradients
            that the optimizer doesn't hand out.
    """
    callbacks = [*make_callbacks(trainer), Checkpoint()]
    made = make_trainer(_trainer_factory(trainer, make_loggers(trainer, folder)), 1, folder, callbacks)
    if made.gradient_clip_val and "mixed" in made.precision and optimizer.get("fused"):  # Lightning refuses it late
        raise CxrnetError(
            f"trainer.gradient_clip_val: {made.gradient_clip_val}, but gradients of a fused optimizer can't be clipped "
            f"in {made.precision}; give optimizer.fused=false"
        )


def train_network(
    network: Network,
    data: XrayDataModule,
    phases: Sequence[Phase],
    schedule: Schedule,
    config: Config,
    folder: Path,
    callbacks: Callable[[Phase], list[Callback]],
    log_metrics: LogMetrics | None = None,
    trained: Sequence[Progress] = (),
) -> tuple[list[PhaseResult], History]:
    """Train with the loss, optimizer and trainer of a configuration, see :func:`cxrnet.training.phases.run_phases`.

    Args:
        network: with its starting weights.
        data: set up and split.
        phases: of the schedule, those that are trained.
        schedule: what they share.
        config: plain, of ``conf/train.yaml``.
        folder: of the run.
        callbacks: makes callbacks for a phase, beside those of the configuration.
        log_metrics: gets every epoch's metrics.
        trained: progress of a run that is resumed.
    """
    loggers = make_loggers(config["trainer"], folder)

    def with_added(phase: Phase) -> list[Callback]:
        earlier = [each.name for each in phases[: list(phases).index(phase)]]
        run_on = [RunOn(folder, earlier)] if loggers else []
        return [*callbacks(phase), *make_callbacks(config["trainer"]), *run_on]

    return run_phases(
        network,
        data,
        phases,
        schedule,
        loss=instantiate(config["loss"])(classes=data.classes, counts=data.counts("train")),
        optimizer=instantiate(config["optimizer"]),
        trainer=_trainer_factory(config["trainer"], loggers),
        folder=folder,
        seed=config["seed"],
        log_metrics=log_metrics,
        callbacks=with_added,
        trained=trained,
        compiled=config["compile"],
    )


def _trainer_factory(trainer: Config, loggers: list[Logger]) -> Callable[..., pl.Trainer]:
    """What makes a trainer of a phase; its callbacks are made for each phase."""
    arguments = {name: value for name, value in trainer.items() if name not in ("callbacks", "logger")}
    given = instantiate(arguments)
    # Of a partial within another one the arguments, as the precision that is asked for, couldn't be seen.
    return partial(given.func, *given.args, **given.keywords, logger=loggers)
