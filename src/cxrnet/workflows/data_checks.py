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
from cxrnet.evaluation.probes import STRENGTH, ProbeError, probe
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
    with get_console().status("probing how the images were made"):
        acquisition = _acquisition(measured, data)
    return Checks(
        pairs=pairs,
        headers=headers,
        decoys=decoys,
        source=source,
        acquisition=acquisition,
        labels=_labels(data, weights),
        left_out=data.left_out,
        limit=data.limit,
        unusable=unusable,
    )


def _acquisition(measured: pd.DataFrame, data: XrayDataModule) -> AcquisitionProbe:
    varies = [name for name in measured if measured[name].nunique() > 1]
    medians = measured.groupby(data.manifest["label"]).median().reindex(list(data.classes))
    if not varies:
        return AcquisitionProbe(medians=medians, gap="all images were made alike")
    try:
        auc = _auc(measured[varies], data)
    except ProbeError as error:
        return AcquisitionProbe(medians=medians, gap=str(error).removeprefix("probe: "))
    parts = {name: _auc(measured[[name]], data) for name in varies}
    gap = "" if auc["value"] is not None else auc["reason"]
    return AcquisitionProbe(auc, parts, medians, gap)


def _auc(features: pd.DataFrame, data: XrayDataModule) -> Metric:
    table = probe(features.to_numpy(np.float64), data.manifest, data.classes)
    metric: Metric = evaluate(table, _RESAMPLES)["roc_auc_macro"]
    return metric


def _labels(data: XrayDataModule, weights: str | None) -> LabelProbe:
    if len(data.classes) < 2:
        return LabelProbe(gap="there is one class only")
    features: npt.NDArray[np.floating]
    if weights is None:
        size = " × ".join(map(str, _THUMBNAIL))
        words, strength = f"{size} thumbnails (no weights of {BACKBONE} are at hand)", STRENGTH
        features = Resized(data.small, _THUMBNAIL)[np.arange(len(data.small))].reshape(len(data.small), -1) / 255.0
    else:
        words, strength = f"frozen features of {BACKBONE} at {SIZE[0]} × {SIZE[1]} pixels", _FROZEN_STRENGTH
        features = frozen_features(data, weights)
    try:
        with get_console().status("looking for label errors"):
            table = probe(features, data.manifest, data.classes, strength)
            auc: Metric = evaluate(table, _RESAMPLES)["roc_auc_macro"]
    except ProbeError as error:
        return LabelProbe(features=words, gap=str(error).removeprefix("probe: "))
    if not finds_signal(auc):
        return LabelProbe(
            features=words, auc=auc, gap=f"a linear model on {words} is not shown to tell the classes at all"
        )
    return LabelProbe(suspected_errors(table), auc, words)
