"""Trivial baselines, beside which a result is to be read.

A network that doesn't beat a linear model on 8 x 8 thumbnails has learned brightness, not radiology.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.external import ExternalSet, KnownImages
from cxrnet.data.images.reader import Images
from cxrnet.evaluation.decision import Mix
from cxrnet.evaluation.predictions import make_predictions

THUMBNAIL = 8  # pixels a side


def baseline_predictions(data: XrayDataModule, split: str) -> dict[str, pd.DataFrame]:
    """Train the baselines on the training split and predict another one.

    Returns:
        ``majority``: every image gets the class frequencies of the training split; ``thumbnail``: by
            :func:`thumbnail_model`.
    """
    rows = data.rows(split)
    images, _ = data.arrays(split)
    train_images, train_labels = data.arrays("train")
    logits = {
        "majority": majority_logits(data.counts("train"), len(rows)),
        "thumbnail": thumbnail_model(train_images, train_labels.numpy()).predict_log_proba(thumbnails(images)),
    }
    return {name: make_predictions(rows, data.classes, values) for name, values in logits.items()}


def majority_logits(counts: Sequence[int], images: int) -> npt.NDArray[np.float64]:
    """Return the log class frequencies of training images, by their ``counts``, for each of N images: ``(N, K)``."""
    return np.tile(np.log(np.array(counts) / sum(counts)), (images, 1))


def thumbnail_model(images: Images, labels: npt.NDArray[np.int64]) -> Pipeline:
    """Fit a logistic regression (L2, C = 1, class weights as the frequencies are) on standardised thumbnails.

    Args:
        images: N of them.
        labels: places of their classes, ``(N,)``; some of each class.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return model.fit(thumbnails(images), labels)


def thumbnails(images: Images) -> np.ndarray:
    """Return the means of 8 x 8 boxes of N images, (N, 64) float64."""
    side = (THUMBNAIL, THUMBNAIL)
    small = [np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BOX)) for image in images]
    return np.stack(small).reshape(len(images), -1).astype(np.float64)


@dataclass(frozen=True)
class Baselines:
    """The baselines of a bundle's run, to be applied to external data.

    Attributes:
        counts: number of training images of each class; empty where they aren't known.
        thumbnails: the linear model on their thumbnails; ``None`` where they can't be read.
        gap: which of the two is missing and why; empty where none is.
    """

    counts: Sequence[int]
    thumbnails: Pipeline | None
    gap: str

    def predict(self, each: ExternalSet, mix: Mix) -> dict[str, pd.DataFrame]:
        """Predict one data set at a mix of classes; without the baselines that are missing."""
        logits = {"majority": majority_logits(self.counts, len(each.manifest))} if self.counts else {}
        if self.thumbnails is not None:
            logits["thumbnail"] = self.thumbnails.predict_log_proba(thumbnails(each.small))
        shift = mix.shift(each.classes)
        return {
            name: make_predictions(each.manifest, each.classes, values.astype("float32"), shift=shift)
            for name, values in logits.items()
        }


def fit_baselines(known: KnownImages | None, classes: Sequence[str]) -> Baselines:
    """Fit the baselines on the training images of a bundle's run, read at the size of the search for duplicates.

    Args:
        known: the images of the run; ``None`` where they aren't known.
        classes: classes of the bundle.
    """
    if known is None:
        return Baselines([], None, "the images that the bundle was made with are not known")
    rows = known.manifest[known.manifest["split"] == "train"]
    counts = [int((rows["label"] == name).sum()) for name in classes]
    there = (known.readable["split"] == "train").to_numpy(bool)
    if lost := len(rows) - int(there.sum()):
        gap = f"no thumbnails, as {lost} of {len(rows)} training images can't be read any more"
        return Baselines(counts, None, gap)
    labels = known.readable.loc[there, "label"].map({name: place for place, name in enumerate(classes)})
    return Baselines(counts, thumbnail_model(known.images.take(there), labels.to_numpy("int64")), "")
