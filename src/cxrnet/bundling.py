"""From a trained network to its bundle: what is chosen by looking at labels is chosen on validation images alone.

First the prior goes back into the logits, so that what was weighed in training is weighed by the decision instead. Then
the temperature is fitted on the logits of the validation images, the thresholds are chosen at that temperature, and the
cut-off below which a call is left to a reader of the calls that they make.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate

from cxrnet.configuration import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.manifest import digest
from cxrnet.evaluation.policies import choose_thresholds, threshold_sentences
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.prior import Mix, fitted_offset, weighing_sentences
from cxrnet.evaluation.referral import choose_cutoff
from cxrnet.evaluation.settings import check_share
from cxrnet.evaluation.temperature import Temperature, fit_temperature
from cxrnet.inference import predict_images, predictions_of
from cxrnet.models.bundle import Bundle, device_of, load_bundle, save_bundle
from cxrnet.models.costs import cost_offset, decision_weights, without_offset
from cxrnet.models.losses import weighed_by
from cxrnet.models.network import Network
from cxrnet.provenance import package_versions


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
    share = check_share(config["refer"])
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
