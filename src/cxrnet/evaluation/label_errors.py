"""Suspected label errors, by confident learning.

A model that hasn't seen an image says another class than its label does, and as surely as it says that class of images
that bear it (Northcutt, Jiang & Chuang 2021, doi:10.1613/jair.1.12125). A suspicion is a reason to look, no finding:
difficult images are suspected too.
"""

import numpy as np
import pandas as pd

from cxrnet.evaluation.predictions import classes_of, label_codes, probabilities_of


def suspected_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Find the images whose label is doubted.

    The threshold of a class is the mean probability that images with its label have of it. An image counts as the most
    probable of the classes whose thresholds it reaches; it is suspected where that is not its label, and its label is
    not the most probable class.

    Args:
        predictions: out of fold (:func:`cxrnet.evaluation.probes.probe`), every label known.

    Returns:
        One row a suspected image, the surest first: ``image_id``, ``label``, ``suggested``, ``probability`` (of the
        suggested class, 0..1), ``own`` (of the label, 0..1).
    """
    classes, labels, probabilities = classes_of(predictions), label_codes(predictions), probabilities_of(predictions)
    rows = np.arange(len(labels))
    thresholds = np.full(len(classes), np.inf)  # a class without an image is nobody's
    for place in np.unique(labels):
        thresholds[place] = probabilities[labels == place, place].mean()
    reached = np.where(probabilities >= thresholds, probabilities, -np.inf)
    counted = reached.argmax(axis=1)
    doubted = np.isfinite(reached[rows, counted]) & (counted != labels) & (probabilities.argmax(axis=1) != labels)
    table = pd.DataFrame(
        {
            "image_id": predictions["image_id"],
            "label": predictions["label"],
            "suggested": pd.array(np.array(classes, object)[counted], "string"),
            "probability": probabilities[rows, counted],
            "own": probabilities[rows, labels],
        }
    )[doubted]
    order = (table["own"] - table["probability"]).sort_values(kind="stable").index
    return table.loc[order].reset_index(drop=True)
