"""Cross-validate a logistic regression on frozen features: the table under "Patients on both sides" in docs.

python scripts/logistic_regression_folds.py data=covid_chestxray model.weights=<file>

The words are those of ``python -m cxrnet.train``. Printed is the mean over five folds of the ROC-AUC of the last of two
classes: with images of one patient on both sides and without, trained on three and on four of the five parts.
"""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrnet.cli.app import compose_config
from cxrnet.core.config import plain_config
from cxrnet.data.splits import FoldsBy, fold_manifest
from cxrnet.models.freezing import set_trainable
from cxrnet.models.trunk import cut
from cxrnet.training.feature_tables import Views, features_of
from cxrnet.workflows.build import make_data, make_network
from cxrnet.workflows.settings import Train

FOLDS, SEEDS = 5, range(10)
STRENGTH = 0.01  # C of scikit-learn


def features(words: list[str]) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Features (N, F), manifest and labels (N,), 1 for the last class, of a command line of training."""
    config = plain_config(compose_config(Train, words))
    data = make_data(config["data"])
    network, _ = make_network(config["model"], data)
    set_trainable(network, "head")
    front = cut(network)
    assert front is not None
    views = Views(data.images, data.manifest["sha256"].tolist(), data.resize, None, 1, 0)
    table = features_of(front.front, views, front.shape(data.size), torch.device("cpu"), data.batch_size, data.cache)
    return table[0], data.manifest, (data.manifest["label"] == data.classes[-1]).to_numpy(int)


def areas(table: np.ndarray, manifest: pd.DataFrame, labels: np.ndarray, by: FoldsBy, parts: int) -> Iterator[float]:
    """The mean over folds, for each seed."""
    for seed in SEEDS:
        found = []
        for fold in range(FOLDS):
            split = fold_manifest(manifest, FOLDS, fold, by, seed)["split"].to_numpy(object)
            train, test = (split == "train") | ((split == "val") & (parts == FOLDS - 1)), split == "test"
            linear = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000)
            model = make_pipeline(StandardScaler(), linear).fit(table[train], labels[train])
            found.append(roc_auc_score(labels[test], model.decision_function(table[test])))
        yield float(np.mean(found))


def main() -> None:
    """Print a line for each way to divide and each number of parts to train on."""
    table, manifest, labels = features(sys.argv[1:])
    ways: tuple[FoldsBy, ...] = ("image", "patient")
    for by in ways:
        for parts in (FOLDS - 2, FOLDS - 1):
            found = np.array(list(areas(table, manifest, labels, by, parts)))
            seeds = ", ".join(f"{area:.3f}" for area in found)
            print(f"folds of {by}s, {parts} parts: {seeds}; mean {found.mean():.3f}, sd {found.std(ddof=1):.3f}")


if __name__ == "__main__":
    main()
