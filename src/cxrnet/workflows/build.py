"""The parts of a run, made of its configuration: data, network, training, bundle."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger
from torch import nn

from cxrnet.core.config import Config
from cxrnet.core.grouping import link
from cxrnet.core.launch import launched
from cxrnet.core.machine import package_versions
from cxrnet.core.schema import build
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.images.reader import resize_all
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import fit_temperature, left_alone
from cxrnet.evaluation.decision import Mix, fitted_offset
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.selective_prediction import choose_deferral_threshold
from cxrnet.evaluation.threshold_selection import check_policy, choose_thresholds
from cxrnet.inference import head_logits, image_features, judge, predict_images, predictions_of
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.backbones.weights import LoadedWeights, load_weights
from cxrnet.models.bundle import Bundle, device_of, load_bundle, save_bundle
from cxrnet.models.freezing import set_trainable
from cxrnet.models.gate import LIMIT, THUMBNAIL, Gate, fit_gate
from cxrnet.models.lightning_module import metric_names
from cxrnet.models.losses import cost_offset, decision_weights, weighed_by, without_offset
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig
from cxrnet.reporting.training_run import Bundled
from cxrnet.reporting.wording import threshold_sentences, weighing_sentences
from cxrnet.training.additions import MovingAverage, RunOn, make_callbacks, make_loggers
from cxrnet.training.regression import not_linear
from cxrnet.training.schedule import Phase, PhaseResult, Schedule, check_words, enabled_phases
from cxrnet.training.trainer import SHARDED, Training, lr_schedule, make_trainer
from cxrnet.workflows.run_context import RunContext

CALIBRATED = "the L2 of the head was chosen by the log loss of held-out training images, which calibrates it"


def make_data(config: Config) -> XrayDataModule:
    """Make the data of a configuration's ``data``, set up."""
    data = unset_data(config)
    data.setup()
    return data


def unset_data(config: Config) -> XrayDataModule:
    """Make the data of a configuration's ``data``, of which nothing is read yet."""
    # `root` is there to be overridden in one short place; the source gets it by interpolation.
    data: XrayDataModule = instantiate({name: value for name, value in config.items() if name != "root"})
    return data


def make_network(model: Config, data: XrayDataModule) -> tuple[Network, LoadedWeights]:
    """Make the network of a configuration's ``model``, for the classes and the size of the data."""
    network = Network(_architecture(model, data.classes, data.size))
    return network, load_weights(network.backbone, model["backbone"], str(model["weights"]), data.size)


def _architecture(model: Config, classes: Sequence[str], size: Sequence[int]) -> NetworkConfig:
    own = {name: value for name, value in model.items() if name != "weights"}
    return NetworkConfig.from_dict({**own, "classes": tuple(classes), "size": tuple(size)})


def check_parts(config: Config, folder: Path, words: Sequence[str] = ()) -> int:
    """Refuse what can't be made or trained, before images are read; return the number of processes that train.

    Where ``data.classes`` is null, the classes that the configuration names, and two more, stand for those of the data.

    Args:
        config: config of the run, plain.
        folder: folder of the run.
        words: words of its command line; what would have no effect in a head that is fitted at once, or on random
            weights, is refused.

    Raises:
        CxrnetError: a value of trainer, callbacks, loggers, model, loss, schedule, optimizer or operating points won't
            do, there is no such device or precision here, or a word has no effect.
    """
    processes = check_trainer(config, folder)
    policy, own, loss = config["operating_points"] or {}, config["data"]["classes"], config["loss"]
    costs = loss["costs"] if isinstance(loss.get("costs"), dict) else {}
    mappings = [policy, loss.get("class_weights"), costs, *costs.values()]
    classes = tuple(
        own
        or dict.fromkeys([*(name for each in mappings if isinstance(each, dict) for name in each), "COVID", "Normal"])
    )
    check_policy(policy, classes)
    made_loss = make_loss(loss, classes, [1] * len(classes))

    weights = str(config["model"]["weights"])
    if weights not in ("auto", "imagenet", "none") and not Path(weights).is_file():
        raise CxrnetError(f"model.weights: '{weights}' is not a file; use auto, imagenet, none or an existing file")
    architecture = _architecture(config["model"], classes, config["data"]["size"])
    published = backbone_spec(architecture.backbone).published
    if weights == "imagenet" and published is None:
        raise CxrnetError(f"model.weights: there are no ImageNet weights for {architecture.backbone}; use auto or none")
    try:
        with torch.device("meta"):  # shapes alone
            network = Network(architecture)
    except (RuntimeError, NotImplementedError):  # a network of timm that computes while it is made
        network = Network(architecture)

    schedule = build(Schedule, config["schedule"], "schedule")
    check_monitor(schedule.monitor, own)
    optimizer = instantiate(config["optimizer"])
    phases = enabled_phases(schedule, _is_pretrained(config["model"]))
    check_idle(config["model"], words)
    if schedule.stores and not not_linear(network, made_loss):
        check_words(words, phases, schedule)
    for phase in phases:
        warmup, where = (phase.lr_schedule or {}).get("warmup_epochs"), f"schedule: phase '{phase.name}'"
        if isinstance(warmup, int) and warmup >= phase.epochs:
            raise CxrnetError(
                f"{where}: its warm-up takes {warmup} of {phase.epochs} epochs; give it more epochs, or fewer "
                "warmup_epochs in its lr_schedule"
            )
        try:
            set_trainable(network, phase.trainable)
            made = optimizer([nn.Parameter(torch.zeros(1))], lr=phase.lr)
            if phase.lr_schedule is not None:
                lr_schedule(made, phase.lr_schedule, phase.epochs, schedule.monitor, schedule.mode)
        except CxrnetError as error:
            raise CxrnetError(str(error).replace("phase:", f"{where}:", 1)) from error
        except (TypeError, ValueError) as error:
            raise CxrnetError(
                f"{where}: no optimizer can be made: {error}; mend optimizer, lr or lr_schedule"
            ) from error
    return processes


def _is_pretrained(model: Mapping[str, Any]) -> bool:
    weights = str(model["weights"])
    return weights != "none" and (weights != "auto" or backbone_spec(model["backbone"]).published is not None)


def check_idle(model: Mapping[str, Any], words: Sequence[str]) -> None:
    """Refuse words of the head where the weights are random: another phase trains all of them.

    Raises:
        CxrnetError: there is one.
    """
    keys = [word.lstrip("+").partition("=")[0] for word in words]
    if (idle := [key for key in keys if key.startswith("schedule.head.")]) and not _is_pretrained(model):
        raise CxrnetError(
            f"{idle[0]}: has no effect, as the weights are random, and schedule.scratch trains them; leave it out, or "
            "give model.weights"
        )


def check_monitor(monitor: str, classes: Sequence[str] | None) -> None:
    """Refuse to monitor what is not logged; ``classes``: of the data, ``None`` where only they know.

    Raises:
        CxrnetError: it isn't.
    """
    known = metric_names(classes or ("<class>",))
    of_class = classes is None and re.fullmatch(r"val/(sensitivity|specificity)/.+", monitor)
    if monitor not in known and not of_class:
        raise CxrnetError(f"schedule.monitor: '{monitor}' is no logged metric; use one of {', '.join(known)}")


def check_trainer(config: Config, folder: Path) -> int:
    """Refuse a trainer that can't be made on this machine or can't train; return the number of its processes.

    Raises:
        CxrnetError: there is no such device, argument, precision, callback or logger here, it would clip gradients that
            the optimizer doesn't hand out, or others than its processes were started.
    """
    callbacks = [*make_callbacks(config), Checkpoint()]
    made = make_trainer(_trainer_factory(config["trainer"], make_loggers(config, folder)), 1, folder, callbacks)
    fused = config["optimizer"].get("fused")
    if made.gradient_clip_val and "mixed" in made.precision and fused:  # Lightning refuses it late
        raise CxrnetError(
            f"trainer.gradient_clip_val: {made.gradient_clip_val}, but gradients of a fused optimizer can't be clipped "
            f"in {made.precision}; give optimizer.fused=false"
        )
    if config["trainer"]["strategy"] == SHARDED:
        if isinstance(made.accelerator, CPUAccelerator):
            raise CxrnetError("trainer: fsdp is for GPUs, as a training on a CPU ended in NaN once; give trainer=ddp")
        if fused and config["optimizer"]["_target_"].endswith(".SGD"):
            raise CxrnetError("optimizer.fused: SGD's fused kernel can't train divided weights; give it false")
        if any(isinstance(callback, MovingAverage) for callback in callbacks):
            raise CxrnetError("callbacks: MovingAverage can't average divided weights; give trainer=ddp")
    launch, devices = launched(), made.num_devices * made.num_nodes
    if launch is not None and {made.world_size, devices} != {launch.processes}:
        raise CxrnetError(
            f"trainer: {launch.name} started {launch.processes} processes, and {devices} would train; give trainer=ddp "
            "or fsdp, and no other trainer.devices and trainer.num_nodes than were started"
        )
    if launch is None and made.num_nodes > 1:
        raise CxrnetError(
            f"trainer.num_nodes: {made.num_nodes}, but nothing started processes on other machines; start the command "
            "with torchrun or srun, see docs/scale.md"
        )
    return made.world_size


def make_loss(loss: Config, classes: Sequence[str], counts: Sequence[int]) -> nn.Module:
    """Make the loss of a configuration's ``loss``, for classes and their numbers of training images.

    Raises:
        CxrnetError: it has an argument that its function doesn't take, or a value won't do.
    """
    try:
        made: nn.Module = instantiate(loss)(classes=classes, counts=counts)
    except TypeError as error:
        raise CxrnetError(f"loss: {error}; leave it out or mend it, as loss=<option> has it") from error
    return made


def make_training(config: Config, data: XrayDataModule, pretrained: bool, folder: Path) -> Training:
    """Make the training of a configuration; ``pretrained``: the network starts from pretrained weights."""
    schedule = build(Schedule, config["schedule"], "schedule")
    phases, loggers = enabled_phases(schedule, pretrained), make_loggers(config, folder)

    def added(phase: Phase) -> list[Callback]:
        names = [each.name for each in phases]
        earlier = names[: names.index(phase.name)]
        return [*make_callbacks(config), *([RunOn(folder, earlier)] if loggers else [])]

    return Training(
        phases,
        schedule,
        loss=make_loss(config["loss"], data.classes, data.counts("train")),
        optimizer=instantiate(config["optimizer"]),
        trainer=_trainer_factory(config["trainer"], loggers),
        folder=folder,
        seed=config["seed"],
        compiled=config["compile"],
        callbacks=added,
    )


def _trainer_factory(trainer: Config, loggers: list[Logger]) -> Callable[..., pl.Trainer]:
    """Return what makes the trainer of a phase; its callbacks are made for each phase."""
    if trainer["devices"] == "auto" and (launch := launched()) is not None:
        trainer = {**trainer, "devices": launch.on_machine}
    given = instantiate(trainer)
    # Of a partial within another one the arguments, as the precision that is asked for, couldn't be seen.
    return partial(given.func, *given.args, **given.keywords, logger=loggers)


def make_bundle(run: RunContext, network: Network, data: XrayDataModule, phases: Sequence[PhaseResult] = ()) -> Bundled:
    """Choose what is chosen on the validation images, and write the bundle.

    The images go through the backbone once. Their predictions are those of the bundle as it lies on disk: its head is
    applied to their features again.

    A head whose L2 was chosen by the log loss of held-out training images is calibrated by that. A temperature and
    offsets from the validation images, which are fewer, would add noise: docs/recipes.md, "Training a head".

    Args:
        run: whose folder gets the bundle.
        network: the trained network.
        data: set up.
        phases: phases of the training.

    Raises:
        CxrnetError: the validation images can't meet the policy of ``operating_points`` or ``defer``.
    """
    config, rows, policy = run.config, data.rows("val"), run.config["operating_points"] or {}
    fitted = {phase.name: phase.fitted for phase in phases if phase.fitted}
    calibrated = any(phase.kept and phase.losses for phase in phases)
    trained = Bundle(
        network=network,
        resize=data.resize,
        temperature=1.0,
        operating_points={},
        manifest_digest=run.data_digest,
        versions=package_versions(),
        training=config | ({"fitted": fitted} if fitted else {}) | ({"temperature": CALIBRATED} if calibrated else {}),
        prior={name: n / len(data.rows("train")) for name, n in zip(data.classes, data.counts("train"), strict=True)},
    )
    bundle = _with_prior(trained, data, config)
    features = image_features(bundle, data.arrays("val")[0], data.batch_size, device_for(config))
    if run.search is None or config["test"]:  # not for each trial: the best one is made anew to be tested
        bundle = replace(bundle, gate=_gate_of(bundle, data, config, features))
    untempered = make_predictions(rows, data.classes, head_logits(bundle, features))
    temperature = left_alone(untempered, CALIBRATED) if calibrated else fit_temperature(untempered, bundle.prior)
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
    loss = make_loss(config["loss"], data.classes, counts)

    def fitted(start: np.ndarray) -> np.ndarray:
        logits = predict_images(trained, data.arrays("train")[0], data.batch_size, device_for(config))
        return fitted_offset(logits, np.array(counts) / sum(counts), start)

    offset = cost_offset(loss, data.sampler == "balanced", counts, fitted)
    if offset is None:
        return trained
    weights = decision_weights(loss, data.sampler == "balanced", counts, offset)
    named = None if weights is None else dict(zip(data.classes, weights.tolist(), strict=True))
    return replace(trained, network=without_offset(trained.network, offset), decision_weights=named)


def _gate_of(bundle: Bundle, data: XrayDataModule, config: Config, validation: list[torch.Tensor]) -> Gate | None:
    """Fit the gate on training and validation images, drawn at random where there are many.

    ``validation`` are the features of all validation images.
    """
    parts = {split: data.rows(split) for split in ("train", "val")}
    rows, trained = pd.concat(parts.values(), ignore_index=True), len(parts["train"])
    kept = np.sort(np.random.default_rng(0).permutation(len(rows))[:LIMIT])
    chosen = {"train": kept[kept < trained], "val": kept[kept >= trained] - trained}
    images = [data.arrays(split)[0].take(places) for split, places in chosen.items()]
    trained_on = image_features(bundle, images[0], data.batch_size, device_for(config))
    features = torch.cat([*trained_on, torch.cat(validation)[torch.from_numpy(chosen["val"])]])
    labels = np.array([data.classes.index(label) for label in rows["label"].iloc[kept]], np.int16)
    small = None
    if config["keep_examples"]:
        small = np.concatenate([resize_all(part[:], THUMBNAIL, "stretch") for part in images])
    return fit_gate(features.float().cpu().numpy(), link(rows, ("patient_id", "group_id"))[kept], labels, small)


def predict_test(bundle: Bundle, data: XrayDataModule, config: Config) -> tuple[list[pd.DataFrame], int]:
    """Predict the test images, if there are any and they aren't to be left alone; and count what the gate turns away.

    All of them have a class: the gate is not asked here, its count is stated.
    """
    if not config["test"] or not len(rows := data.rows("test")):
        return [], 0
    judged = judge(bundle, data.batch_size, device_for(config))(data.arrays("test")[0])
    return [predictions_of(bundle, rows, judged.logits)], int(judged.turned_away.sum())


def device_for(config: Config) -> torch.device:
    """Return the device that a run predicts on: the one that it is trained on."""
    return device_of("cpu" if config["trainer"]["accelerator"] == "cpu" else "auto")
