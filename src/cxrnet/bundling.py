"""From a trained network to its bundle: what is chosen by looking at labels is chosen on validation images alone.

The temperature is fitted on their logits, the thresholds are chosen at that temperature, and the cut-off below which a
call is left to a reader of the calls that they make.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrnet.configuration import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.manifest import digest
from cxrnet.evaluation.policies import choose_thresholds, threshold_sentences
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.referral import choose_cutoff
from cxrnet.evaluation.settings import check_share
from cxrnet.evaluation.temperature import Temperature, fit_temperature
from cxrnet.inference import predict_images
from cxrnet.models.bundle import Bundle, device_of, load_bundle, save_bundle
from cxrnet.models.network import Network
from cxrnet.provenance import package_versions


@dataclass(frozen=True)
class Bundled:
    """A bundle and how its numbers were chosen.

    Attributes:
        bundle: as it lies on disk.
        temperature: that it has, or why it has none.
        sentences: what each threshold that a rule chose does on the validation images.
    """

    bundle: Bundle
    temperature: Temperature
    sentences: list[str]


def make_bundle(network: Network, data: XrayDataModule, config: Config, folder: Path) -> Bundled:
    """Choose what is chosen, write the bundle and open it again: what is evaluated is what lies on disk.

    Raises:
        CxrnetError: the validation images can't meet the policy of ``operating_points`` or ``refer``.
    """
    plain = Bundle(
        network=network,
        resize=data.resize,
        temperature=1.0,
        operating_points={},
        manifest_digest=digest(data.manifest),
        versions=package_versions(),
        training=config,
    )
    rows, policy = data.rows("val"), config["operating_points"] or {}
    logits = predict_images(plain, data.arrays("val")[0], data.batch_size, device_for(config))
    temperature = fit_temperature(make_predictions(rows, data.classes, logits))
    scaled = (logits / temperature.value).astype(np.float32)  # as the bundle will have them
    validation = make_predictions(rows, data.classes, scaled)
    points = choose_thresholds(validation, policy)
    share = check_share(config["refer"])
    cutoff = None if share is None else choose_cutoff(make_predictions(rows, data.classes, scaled, points), share)
    bundle = replace(plain, temperature=temperature.value, operating_points=points, refer_below=cutoff)
    save_bundle(bundle, folder)
    return Bundled(load_bundle(folder), temperature, threshold_sentences(validation, policy, points))


def predict_splits(bundle: Bundle, data: XrayDataModule, config: Config) -> pd.DataFrame:
    """Predict the images of val and test, in this order."""
    tables = []
    for split in ("val", "test"):
        if len(rows := data.rows(split)):
            logits = predict_images(bundle, data.arrays(split)[0], data.batch_size, device_for(config))
            tables.append(make_predictions(rows, data.classes, logits, bundle.operating_points, bundle.refer_below))
    return pd.concat(tables, ignore_index=True)


def device_for(config: Config) -> torch.device:
    """Return the device that a run predicts on: the one that it is trained on."""
    return device_of("cpu" if config["trainer"]["accelerator"] == "cpu" else "auto")
