"""Cross-validate a logistic regression on frozen features: the table under "Patients on both sides" in docs.

python scripts/logistic_regression_folds.py data=covid_chestxray model.weights=<file>

The words are those of ``python -m cxrnet.train``. It prints the mean over five folds of the ROC-AUC of the last of two
classes: with images of one patient on both sides and without, trained on three and on four of the five parts.
"""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from frozen_features import configuration, features, logistic_regression
from sklearn.metrics import roc_auc_score

from cxrnet.data.splits import FoldsBy, fold_manifest
from cxrnet.workflows.build import make_data

FOLDS, SEEDS = 5, range(10)
STRENGTH = 0.01  # C of scikit-learn


def areas(table: np.ndarray, manifest: pd.DataFrame, labels: np.ndarray, by: FoldsBy, parts: int) -> Iterator[float]:
    """Compute the mean ROC-AUC over folds, for each seed."""
    for seed in SEEDS:
        found = []
        for fold in range(FOLDS):
            split = fold_manifest(manifest, FOLDS, fold, by, seed)["split"].to_numpy(object)
            train, test = (split == "train") | ((split == "val") & (parts == FOLDS - 1)), split == "test"
            model = logistic_regression(STRENGTH, class_weight="balanced", max_iter=2000)
            model.fit(table[train], labels[train])
            found.append(roc_auc_score(labels[test], model.decision_function(table[test])))
        yield float(np.mean(found))


def main() -> None:
    """Print a line for each way to divide and each number of parts to train on."""
    if not sys.argv[1:] or {"--help", "-h"} & set(sys.argv):
        print(__doc__)
        return
    config = configuration(sys.argv[1:])
    data = make_data(config["data"])
    table, labels = features(data, config), (data.manifest["label"] == data.classes[-1]).to_numpy(int)
    ways: tuple[FoldsBy, ...] = ("image", "patient")
    for by in ways:
        for parts in (FOLDS - 2, FOLDS - 1):
            found = np.array(list(areas(table, data.manifest, labels, by, parts)))
            seeds = ", ".join(f"{area:.3f}" for area in found)
            print(f"folds of {by}s, {parts} parts: {seeds}; mean {found.mean():.3f}, sd {found.std(ddof=1):.3f}")


if __name__ == "__main__":
    main()
