"""Features of a network with ImageNet weights that nobody trained on the images: what a linear probe works on."""

from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.images.reader import Images, Resized
from cxrnet.data.settings import ResizeRule
from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.backbones.weights import load_weights
from cxrnet.models.freezing import set_trainable, split_network
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig
from cxrnet.training.feature_tables import Views, features_of

BACKBONE = "mobilenet_v2"
SIZE = (112, 112)
"""A quarter of the arithmetic of 224 x 224 pixels: 15,000 images in a minute on two cores."""

_BATCH = 32


def weights_at_hand(weights: str) -> str | None:
    """Return the weights that :func:`frozen_features` takes: a file, or ``None`` where there are none at hand.

    Args:
        weights: ``auto`` (those in the local cache; nothing is downloaded), ``none``, or a file.

    Raises:
        CxrnetError: the file isn't there.
    """
    if weights == "none":
        return None
    if weights != "auto":
        if not Path(weights).is_file():
            raise CxrnetError(f"weights: '{weights}' is not a file; use auto, none or an existing file")
        return weights
    published = backbone_spec(BACKBONE).published
    cached = published.cached() if published is not None else None
    return str(cached) if cached is not None and cached.is_file() else None


def frozen_features(data: XrayDataModule, weights: str) -> npt.NDArray[np.float32]:
    """Compute features of all images of data that are read, (N, F), or take them from the cache.

    Args:
        data: read; its images are stretched to :data:`SIZE`.
        weights: file with weights of :data:`BACKBONE`.

    Raises:
        CxrnetError: the file can't be read or is of another architecture, or the cache can't be written.
    """
    network = Network(NetworkConfig(backbone=BACKBONE, classes=("one", "other"), size=SIZE))
    try:
        load_weights(network.backbone, BACKBONE, weights, SIZE)
    except CxrnetError as error:
        raise CxrnetError(str(error).replace("model.weights", "weights", 1)) from error
    set_trainable(network, "head")
    parts = split_network(network)
    assert parts is not None
    small = Images.all_of(Resized(data.images, SIZE))
    made_from = f"{data.resize} to {data.size[0]} x {data.size[1]}, then stretch"  # names the features in the cache
    views = Views(small, data.manifest["sha256"].tolist(), cast(ResizeRule, made_from), None, 1, 0)
    table = features_of(parts.trunk, views, parts.shape(SIZE), torch.device("cpu"), _BATCH, data.cache)
    return np.asarray(table[0], np.float32).reshape(len(small), -1)
