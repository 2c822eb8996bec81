"""What a configuration asks for: the data, the network with its starting weights, and its training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger

from cxrnet.core.config import Config
from cxrnet.core.provenance import package_versions
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.manifest import digest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.prior import Mix, fitted_offset, weighing_sentences
from cxrnet.evaluation.selective_prediction import choose_cutoff
from cxrnet.evaluation.temperature import Temperature, fit_temperature
from cxrnet.evaluation.threshold_selection import choose_thresholds, threshold_sentences
from cxrnet.inference import predict_images, predictions_of
from cxrnet.models.backbones.weights import LoadedWeights, load_weights
from cxrnet.models.bundle import Bundle, device_of, load_bundle, save_bundle
from cxrnet.models.costs import cost_offset, decision_weights, without_offset
from cxrnet.models.losses import weighed_by
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig
from cxrnet.training.additions import RunOn, make_callbacks, make_loggers
from cxrnet.training.checkpoints import LogMetrics, Progress
from cxrnet.training.history import History
from cxrnet.training.phases import PhaseResult, run_phases
from cxrnet.training.schedule import Phase, Schedule
from cxrnet.training.trainer import make_trainer


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


def check_trainer(config: Config, folder: Path) -> None:
    """Refuse a trainer that can't be made on this machine or can't train, before images are read.

    Args:
        config: plain, of a training.
        folder: of the run.

    Raises:
        CxrnetError: there is no such device, argument, precision, callback or logger here, or it would clip gradients
            that the optimizer doesn't hand out.
    """
    callbacks = [*make_callbacks(config), Checkpoint()]
    made = make_trainer(_trainer_factory(config["trainer"], make_loggers(config, folder)), 1, folder, callbacks)
    if (
        made.gradient_clip_val and "mixed" in made.precision and config["optimizer"].get("fused")
    ):  # Lightning refuses it late
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
    loggers = make_loggers(config, folder)

    def with_added(phase: Phase) -> list[Callback]:
        earlier = [each.name for each in phases[: list(phases).index(phase)]]
        run_on = [RunOn(folder, earlier)] if loggers else []
        return [*callbacks(phase), *make_callbacks(config), *run_on]

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
    given = instantiate(trainer)
    # Of a partial within another one the arguments, as the precision that is asked for, couldn't be seen.
    return partial(given.func, *given.args, **given.keywords, logger=loggers)


@dataclass(frozen=True)
class Bundled:
    """A bundle and how its numbers were chosen.

    Attributes:
        bundle: as it lies on disk.
        temperature: that it has, or why it has none.
        sentences: what each threshold that a rule chose does on the validation images.
        weighing: what class weights, a balanced sampler or costs did to the training and do to the decision; empty
            where there were none.
    """

    bundle: Bundle
    temperature: Temperature
    sentences: list[str]
    weighing: list[str]


def make_bundle(network: Network, data: XrayDataModule, config: Config, folder: Path) -> Bundled:
    """Choose what is chosen, write the bundle and open it again: what is evaluated is what lies on disk.

    Raises:
        CxrnetError: the validation images can't meet the policy of ``operating_points`` or ``refer``.
    """
    trained = Bundle(
        network=network,
        resize=data.resize,
        temperature=1.0,
        operating_points={},
        manifest_digest=digest(data.manifest),
        versions=package_versions(),
        training=config,
        prior={name: n / len(data.rows("train")) for name, n in zip(data.classes, data.counts("train"), strict=True)},
    )
    plain = _with_prior(trained, data, config)
    rows, policy = data.rows("val"), config["operating_points"] or {}
    logits = predict_images(plain, data.arrays("val")[0], data.batch_size, device_for(config))
    temperature = fit_temperature(make_predictions(rows, data.classes, logits), plain.prior)
    if temperature.offset:
        plain = replace(plain, network=without_offset(plain.network, np.array(temperature.offset)))
        logits = logits - np.array(temperature.offset)
    scaled = (logits / temperature.value).astype(np.float32)  # as the bundle will have them
    validation = make_predictions(rows, data.classes, scaled)
    points = choose_thresholds(validation, policy)
    share = config["refer"]
    bundle = replace(
        plain, temperature=temperature.value, temperature_offset=temperature.offset, operating_points=points
    )
    if share is not None:
        bundle = replace(bundle, refer_below=choose_cutoff(predictions_of(bundle, rows, scaled), share))
    save_bundle(bundle, folder)
    cause, weights = weighed_by(data.sampler, config["loss"]), bundle.decision_weights
    weighing = weighing_sentences(cause, Mix(bundle.prior), weights, bundle.operating_points)
    return Bundled(load_bundle(folder), temperature, threshold_sentences(validation, policy, points), weighing)


def _with_prior(trained: Bundle, data: XrayDataModule, config: Config) -> Bundle:
    """The bundle whose probabilities are of the mix of the training images, and whose decision has the weights.

    At a temperature of 1 it predicts what the network did as trained, where the loss is the cross-entropy.
    """
    counts = data.counts("train")
    loss = instantiate(config["loss"])(classes=data.classes, counts=counts)

    def fitted(start: np.ndarray) -> np.ndarray:
        logits = predict_images(trained, data.arrays("train")[0], data.batch_size, device_for(config))
        return fitted_offset(logits, np.array(counts) / sum(counts), start)

    offset = cost_offset(loss, data.sampler == "balanced", counts, fitted)
    if offset is None:
        return trained
    weights = decision_weights(loss, data.sampler == "balanced", counts, offset)
    named = None if weights is None else dict(zip(data.classes, weights.tolist(), strict=True))
    return replace(trained, network=without_offset(trained.network, offset), decision_weights=named)


def predict_splits(bundle: Bundle, data: XrayDataModule, config: Config) -> pd.DataFrame:
    """Predict the images of val and test, in this order."""
    tables = []
    for split in ("val", "test"):
        if len(rows := data.rows(split)):
            logits = predict_images(bundle, data.arrays(split)[0], data.batch_size, device_for(config))
            tables.append(predictions_of(bundle, rows, logits))
    return pd.concat(tables, ignore_index=True)


def device_for(config: Config) -> torch.device:
    """Return the device that a run predicts on: the one that it is trained on."""
    return device_of("cpu" if config["trainer"]["accelerator"] == "cpu" else "auto")
