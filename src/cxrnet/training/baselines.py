"""Trivial baselines, beside which a result is to be read.

A network that doesn't beat a linear model on 8 x 8 thumbnails has learned brightness, not radiology.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.images.resize import Images
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
