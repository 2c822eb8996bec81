"""Probes: how well a linear model tells the classes from a few numbers of each image, cross-validated by patient.

A class that can be told from the size of the files, the border or an 8 x 8 thumbnail may be told so by a network too
(Zech et al. 2018, doi:10.1371/journal.pmed.1002683; DeGrave et al. 2021, doi:10.1038/s42256-021-00338-7). A probe has
no image of a patient, or a duplicate of it, on both sides.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrnet.core.grouping import link
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import make_predictions

FOLDS = 5
STRENGTH = 1.0  # C of the logistic regression, for features fewer than images; 0.01 suits the features of a network

TIES = ("patient_id", "group_id", "sha256")
_LEAST = 1e-6  # probability of a class that no training image of a fold has


class ProbeError(CxrnetError):
    """A probe that can't be made of these images, and why."""


def fold_numbers(
    rows: pd.DataFrame, classes: Sequence[str], folds: int = FOLDS, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Number the fold of each image, ``(N,)``; images that share a patient, a duplicate group or a file are in one.

    Args:
        rows: N rows of a manifest, every label one of ``classes``.
        classes: K >= 2 names.
        folds: number of folds, fewer where a class has fewer clusters.
        seed: seed of the folds.

    Raises:
        ProbeError: fewer than two classes have images, or a class has images of one cluster only.
    """
    places = _places(rows, classes)
    clusters = link(rows, tuple(name for name in TIES if name in rows))
    each = {name: len(np.unique(clusters[places == place])) for place, name in enumerate(classes)}
    there = {name: count for name, count in each.items() if count}
    if len(there) < 2:
        raise ProbeError(f"probe: only '{next(iter(there), '')}' has images; two classes are needed")
    if min(there.values()) < 2:
        rarest = min(there, key=lambda name: there[name])
        raise ProbeError(f"probe: all images of '{rarest}' are of one patient or are duplicates; two are needed")
    splitter = StratifiedGroupKFold(min(folds, *there.values()), shuffle=True, random_state=seed)
    numbers = np.empty(len(rows), np.int64)
    for number, (_, test) in enumerate(splitter.split(np.zeros(len(rows)), places, clusters)):
        numbers[test] = number
    return numbers


def probe(
    features: npt.NDArray[np.floating],
    rows: pd.DataFrame,
    classes: Sequence[str],
    strength: float = STRENGTH,
    folds: int | npt.NDArray[np.int64] = FOLDS,
    seed: int = 0,
) -> pd.DataFrame:
    """Predict each image by a logistic regression on features of the others.

    Args:
        features: of N images, ``(N, D)``, finite; columns are standardised on the training images of each fold.
        rows: N rows of a manifest, every label one of ``classes``. Images that share a patient, a duplicate group or a
            file are in one fold.
        classes: K >= 2 names.
        strength: C of scikit-learn's ``LogisticRegression``: the larger, the less L2.
        folds: number of folds, fewer where a class has fewer clusters; or the fold of each image from
            :func:`fold_numbers`, for several probes of the same images.
        seed: seed of the folds.

    Returns:
        Table of predictions (:func:`cxrnet.evaluation.predictions.make_predictions`), out of fold, in the order of
        ``rows``; its metrics and intervals are those of :func:`cxrnet.evaluation.metrics.evaluate`.

    Raises:
        ProbeError: fewer than two classes have images, or a class has images of one cluster only.
    """
    places = _places(rows, classes)
    numbers = fold_numbers(rows, classes, folds, seed) if isinstance(folds, int) else folds
    probabilities = np.full((len(rows), len(classes)), _LEAST)
    for number in np.unique(numbers):
        train, test = np.flatnonzero(numbers != number), np.flatnonzero(numbers == number)
        known = np.unique(places[train])
        if len(known) == 1:  # groups of a class may all be in one fold
            probabilities[test, known[0]] = 1.0
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        model.fit(features[train], places[train])
        probabilities[np.ix_(test, known)] = np.maximum(model.predict_proba(features[test]), _LEAST)
    return make_predictions(rows, list(classes), np.log(probabilities).astype(np.float32))


def _places(rows: pd.DataFrame, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    labels = pd.Categorical(rows["label"].astype(object), categories=list(classes))
    places: npt.NDArray[np.int64] = labels.codes.astype(np.int64)
    return places
