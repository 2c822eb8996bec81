"""The checks of a data set before anything is trained: duplicates, source, acquisition, labels."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich import get_console

from cxrnet.data.acquisition import measure_acquisition, read_headers
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.images.reader import Resized
from cxrnet.data.images.store import look_binary
from cxrnet.evaluation.association import associate
from cxrnet.evaluation.label_errors import suspected_errors
from cxrnet.evaluation.metrics import Metric, evaluate
from cxrnet.evaluation.probes import STRENGTH, ProbeError, fold_numbers, probe
from cxrnet.reporting.data_verdict import AcquisitionProbe, Checks, LabelProbe, finds_signal
from cxrnet.training.frozen import BACKBONE, SIZE, frozen_features

_RESAMPLES = 300  # of each interval: there are a dozen, of up to tens of thousands of images
_THUMBNAIL = (8, 8)
_FROZEN_STRENGTH = 0.01  # of the L2 of a logistic regression on features of a network


def check_data(data: XrayDataModule, pairs: pd.DataFrame, weights: str | None, unusable: str = "") -> Checks:
    """Look for what is wrong with data that are read.

    Args:
        data: read, and split where it can be.
        pairs: from :func:`cxrnet.workflows.prepare.marked_duplicates`.
        weights: file with weights for the search for label errors; ``None`` takes thumbnails.
        unusable: why the data can't be trained on.

    Raises:
        CxrnetError: the weights won't do.
    """
    with get_console().status("measuring"):
        headers = read_headers(data.manifest)
        measured = measure_acquisition(data.small, data.manifest, headers)
        decoys = data.manifest["image_id"][look_binary(data.small)].tolist()
        source = associate(data.manifest, "label", "source")
    folds = _folds(data)
    with get_console().status("probing how the images were made"):
        acquisition = _acquisition(measured, data, folds)
    return Checks(
        pairs=pairs,
        headers=headers,
        decoys=decoys,
        source=source,
        acquisition=acquisition,
        labels=_labels(data, weights, folds),
        left_out=data.left_out,
        limit=data.limit,
        unusable=unusable,
    )


Folds = npt.NDArray[np.int64] | str
"""The fold of each image (N,), or why there are none."""


def _folds(data: XrayDataModule) -> Folds:
    try:
        return fold_numbers(data.manifest, data.classes)
    except ProbeError as error:
        return str(error).removeprefix("probe: ")


def _acquisition(measured: pd.DataFrame, data: XrayDataModule, folds: Folds) -> AcquisitionProbe:
    varies = [name for name in measured if measured[name].nunique() > 1]
    medians = measured.groupby(data.manifest["label"]).median().reindex(list(data.classes))
    if isinstance(folds, str):
        return AcquisitionProbe(medians=medians, gap=folds)
    if not varies:
        return AcquisitionProbe(medians=medians, gap="all images were made alike")
    auc = _auc(measured[varies].to_numpy(), data, folds)
    parts = {name: _auc(measured[[name]].to_numpy(), data, folds) for name in varies}
    gap = "" if auc["value"] is not None else auc["reason"]
    return AcquisitionProbe(auc, parts, medians, gap)


def _auc(features: npt.NDArray[np.float64], data: XrayDataModule, folds: npt.NDArray[np.int64]) -> Metric:
    metric: Metric = evaluate(probe(features, data.manifest, data.classes, folds=folds), _RESAMPLES)["roc_auc_macro"]
    return metric


def _labels(data: XrayDataModule, weights: str | None, folds: Folds) -> LabelProbe:
    if isinstance(folds, str):
        return LabelProbe(gap=folds)
    features: npt.NDArray[np.floating]
    if weights is None:
        size = " × ".join(map(str, _THUMBNAIL))
        words, strength = f"{size} thumbnails (no weights of {BACKBONE} are at hand)", STRENGTH
        features = Resized(data.small, _THUMBNAIL)[np.arange(len(data.small))].reshape(len(data.small), -1) / 255.0
    else:
        words, strength = f"frozen features of {BACKBONE} at {SIZE[0]} × {SIZE[1]} pixels", _FROZEN_STRENGTH
        features = frozen_features(data, weights)
    with get_console().status("looking for label errors"):
        table = probe(features, data.manifest, data.classes, strength, folds)
        auc: Metric = evaluate(table, _RESAMPLES)["roc_auc_macro"]
    if not finds_signal(auc):
        return LabelProbe(
            features=words, auc=auc, gap=f"a linear model on {words} is not shown to tell the classes at all"
        )
    return LabelProbe(suspected_errors(table), auc, words)
