"""The parts of a run, made of its configuration: data, network, training, bundle."""

from collections.abc import Callable, Iterator
from dataclasses import replace
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
from cxrnet.core.schema import build
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import fit_temperature
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.prior import Mix, fitted_offset
from cxrnet.evaluation.selective_prediction import choose_deferral_threshold
from cxrnet.evaluation.threshold_selection import choose_thresholds
from cxrnet.inference import head_logits, image_features, predict_images, predictions_of
from cxrnet.models.backbones.weights import LoadedWeights, load_weights
from cxrnet.models.bundle import Bundle, device_of, load_bundle, save_bundle
from cxrnet.models.losses import cost_offset, decision_weights, weighed_by, without_offset
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig
from cxrnet.reporting.report_data import PhaseFacts
from cxrnet.reporting.sentences import threshold_sentences, weighing_sentences
from cxrnet.reporting.training_run import Bundled
from cxrnet.training.additions import RunOn, make_callbacks, make_loggers
from cxrnet.training.phases import PhaseResult
from cxrnet.training.schedule import Phase, Schedule, enabled_phases
from cxrnet.training.trainer import Training, make_trainer
from cxrnet.workflows.run_context import RunContext


def make_data(config: Config) -> XrayDataModule:
    """Make the data of a configuration's ``data``, set up."""
    # `root` is there to be overridden in one short place; the source gets it by interpolation.
    data: XrayDataModule = instantiate({name: value for name, value in config.items() if name != "root"})
    data.setup()
    return data


def make_network(model: Config, data: XrayDataModule) -> tuple[Network, LoadedWeights]:
    """Make the network of a configuration's ``model``, for the classes and the size of the data."""
    architecture = {name: value for name, value in model.items() if name != "weights"}
    network = Network(NetworkConfig.from_dict({**architecture, "classes": data.classes, "size": data.size}))
    return network, load_weights(network.backbone, model["backbone"], str(model["weights"]), data.size)


def check_trainer(config: Config, folder: Path) -> None:
    """Refuse a trainer that can't be made on this machine or can't train, before images are read.

    Raises:
        CxrnetError: there is no such device, argument, precision, callback or logger here, or it would clip gradients
            that the optimizer doesn't hand out.
    """
    callbacks = [*make_callbacks(config), Checkpoint()]
    made = make_trainer(_trainer_factory(config["trainer"], make_loggers(config, folder)), 1, folder, callbacks)
    fused = config["optimizer"].get("fused")
    if made.gradient_clip_val and "mixed" in made.precision and fused:  # Lightning refuses it late
        raise CxrnetError(
            f"trainer.gradient_clip_val: {made.gradient_clip_val}, but gradients of a fused optimizer can't be clipped "
            f"in {made.precision}; give optimizer.fused=false"
        )


def make_training(config: Config, data: XrayDataModule, pretrained: bool, folder: Path) -> Training:
    """Make the training of a configuration; ``pretrained``: the network starts from pretrained weights."""
    schedule = build(Schedule, config["schedule"], "schedule")
    phases, loggers = enabled_phases(schedule, pretrained), make_loggers(config, folder)

    def added(phase: Phase) -> list[Callback]:
        earlier = [each.name for each in phases[: phases.index(phase)]]
        return [*make_callbacks(config), *([RunOn(folder, earlier)] if loggers else [])]

    return Training(
        phases,
        schedule,
        loss=instantiate(config["loss"])(classes=data.classes, counts=data.counts("train")),
        optimizer=instantiate(config["optimizer"]),
        trainer=_trainer_factory(config["trainer"], loggers),
        folder=folder,
        seed=config["seed"],
        compiled=config["compile"],
        callbacks=added,
    )


def _trainer_factory(trainer: Config, loggers: list[Logger]) -> Callable[..., pl.Trainer]:
    """Return what makes the trainer of a phase; its callbacks are made for each phase."""
    given = instantiate(trainer)
    # Of a partial within another one the arguments, as the precision that is asked for, couldn't be seen.
    return partial(given.func, *given.args, **given.keywords, logger=loggers)


def phase_facts(phase: PhaseResult, monitor: str) -> PhaseFacts:
    """Return what console and report say of a phase."""
    return PhaseFacts(
        name=phase.name,
        trainable=phase.trainable,
        parameters=phase.trained_parameters,
        epochs=phase.epochs,
        keep=phase.keep,
        kept_epoch=phase.kept_epoch,
        monitor=monitor,
        value=phase.kept_score,
        seconds=phase.seconds,
        cached=phase.cached,
        kept=phase.kept,
        lr=phase.lr,
        decay=phase.decay,
    )


def make_bundle(run: RunContext, network: Network, data: XrayDataModule) -> Bundled:
    """Choose what is chosen on the validation images, and write the bundle.

    The images go through the backbone once. Their predictions are those of the bundle as it lies on disk: its head is
    applied to their features again.

    Raises:
        CxrnetError: the validation images can't meet the policy of ``operating_points`` or ``defer``.
    """
    config, rows, policy = run.config, data.rows("val"), run.config["operating_points"] or {}
    trained = Bundle(
        network=network,
        resize=data.resize,
        temperature=1.0,
        operating_points={},
        manifest_digest=run.data_digest,
        versions=package_versions(),
        training=config,
        prior={name: n / len(data.rows("train")) for name, n in zip(data.classes, data.counts("train"), strict=True)},
    )
    bundle = _with_prior(trained, data, config)
    features = image_features(bundle, data.arrays("val")[0], data.batch_size, device_for(config))
    untempered = make_predictions(rows, data.classes, head_logits(bundle, features))
    temperature = fit_temperature(untempered, bundle.prior)
    if temperature.offset:
        bundle = replace(bundle, network=without_offset(bundle.network, np.array(temperature.offset)))
    bundle = replace(bundle, temperature=temperature.value, temperature_offset=temperature.offset)
    logits = head_logits(bundle, features)
    validation = make_predictions(rows, data.classes, logits)
    bundle = replace(bundle, operating_points=choose_thresholds(validation, policy))
    if (share := config["defer"]) is not None:
        bundle = replace(bundle, defer_below=choose_deferral_threshold(predictions_of(bundle, rows, logits), share))
    save_bundle(bundle, run.folder / "bundle")
    saved, cause = load_bundle(run.folder / "bundle"), weighed_by(data.sampler, config["loss"])
    return Bundled(
        saved,
        predictions_of(saved, rows, head_logits(saved, features)),
        temperature,
        threshold_sentences(validation, policy, saved.operating_points),
        weighing_sentences(cause, Mix(saved.prior), saved.decision_weights, saved.operating_points),
    )


def _with_prior(trained: Bundle, data: XrayDataModule, config: Config) -> Bundle:
    """Return the bundle whose probabilities are of the mix of the training images, and whose decision has the weights.

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


def predict_test(bundle: Bundle, data: XrayDataModule, config: Config) -> Iterator[pd.DataFrame]:
    """Predict the test images, if there are any."""
    if len(rows := data.rows("test")):
        logits = predict_images(bundle, data.arrays("test")[0], data.batch_size, device_for(config))
        yield predictions_of(bundle, rows, logits)


def device_for(config: Config) -> torch.device:
    """Return the device that a run predicts on: the one that it is trained on."""
    return device_of("cpu" if config["trainer"]["accelerator"] == "cpu" else "auto")
