"""Features of a frozen backbone and a logistic regression on them: what the two studies of this folder share."""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrnet.cli.app import compose_config
from cxrnet.core.config import Config, plain_config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.models.freezing import set_trainable, split_network
from cxrnet.training.feature_tables import Views, features_of
from cxrnet.workflows.build import make_network
from cxrnet.workflows.settings import Train


def configuration(words: list[str]) -> Config:
    """Compose the configuration of a command line of ``cxrnet.train``."""
    return plain_config(compose_config(Train, words))


def features(data: XrayDataModule, config: Config) -> np.ndarray:
    """Compute features (N, F) of all images, without augmentation."""
    network, _ = make_network(config["model"], data)
    set_trainable(network, "head")
    parts = split_network(network)
    assert parts is not None
    views = Views(data.images, data.manifest["sha256"].tolist(), data.resize, None, 1, 0)
    table = features_of(parts.trunk, views, parts.shape(data.size), torch.device("cpu"), data.batch_size, data.cache)
    return np.asarray(table[0])


def logistic_regression(strength: float, **options: Any) -> Pipeline:  # noqa: ANN401 (scikit-learn's own)
    """Make scikit-learn's logistic regression (``C=strength``) on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, **options))
