"""Trivial baselines: what a result is worth can only be seen beside them.

A network that doesn't beat a linear model on 8 x 8 thumbnails has learned brightness, not radiology.
"""

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.evaluation.predictions import make_predictions

THUMBNAIL = 8  # pixels a side


def baseline_predictions(data: XrayDataModule, split: str) -> dict[str, pd.DataFrame]:
    """Predictions of the baselines on one split, trained on the training split.

    Returns:
        ``majority``: every image gets the class frequencies of the training split; ``thumbnail``: logistic
        regression (L2, C = 1, class weights as the frequencies are) on standardised 8 x 8 grey thumbnails.
    """
    rows = data.rows(split)
    images, _ = data.arrays(split)
    train_images, train_labels = data.arrays("train")
    frequencies = np.log(np.array(data.counts("train")) / len(train_labels))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(thumbnails(train_images), train_labels.numpy())
    logits = {
        "majority": np.tile(frequencies, (len(rows), 1)),
        "thumbnail": model.predict_log_proba(thumbnails(images)),
    }
    return {name: make_predictions(rows, data.classes, values) for name, values in logits.items()}


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W) uint8 -> (N, 64) float64, the means of 8 x 8 boxes."""
    side = (THUMBNAIL, THUMBNAIL)
    small = [np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BOX)) for image in images]
    return np.stack(small).reshape(len(images), -1).astype(np.float64)
