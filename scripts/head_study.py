"""How a head on a frozen backbone is best trained: the table under "Training a head" in docs/recipes.md.

    python scripts/head_study.py data=<folder of the three sets> weights=<mobilenet_v2 file>

Further words: ``seeds=3``, ``sets=covid19_image,...``, and ``rows=default,former`` for the rows that begin so.

Five folds that part no patient and no duplicates, on the images that are not for testing, a sixth of each training part
for validation. No test image is looked at. Each row is a command line of ``cxrnet.train``, trained by cxrnet's own
phases; beside them stands scikit-learn's logistic regression on the same features and folds. It prints means over seeds
of accuracy, ROC-AUC (macro, one against the rest) and log loss on the pooled folds, as trained and as a bundle has
them (at the temperature and offsets that the validation images give; at 1 where the L2 was chosen by cross-validation),
the standard deviation of the accuracy, and seconds a fit.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from frozen_features import configuration, features, logistic_regression
from hydra.utils import instantiate
from scipy.special import softmax
from sklearn.metrics import log_loss, roc_auc_score

from cxrnet.core.config import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.splits import carve_validation, fold_manifest
from cxrnet.evaluation.calibration import fit_temperature
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.training.phases import run_phases
from cxrnet.workflows.build import make_data, make_network, make_training

FOLDS = 5
SETS = {
    "covid19_image": [],
    "covid_chestxray": [],
    "covid19_radiography": ["data.manifest.classes=[COVID,Normal]", "data.manifest.partial=true"],
}
FORMER = [
    "schedule.views=2", "schedule.best_from=0", "loss.class_weights=balanced", "schedule.head=null",
    "schedule.phases=[{name: head, trainable: head, epochs: 60, lr: 3.0e-3, patience: 10, "
    "lr_schedule: {name: plateau, factor: 0.5, patience: 3}, keep: best}]",
]  # fmt: skip


def cosine(epochs: int, lr: float, views: int = 1, decay: float = 0.0) -> list[str]:
    """Make a row of cosine decay that keeps the last epoch."""
    phase = f"epochs: {epochs}, lr: {lr}, lr_schedule: {{name: cosine, warmup_epochs: 0}}, decay: {decay}, keep: last"
    named = "name: head, trainable: head"
    return [f"schedule.views={views}", "schedule.head=null", f"schedule.phases=[{{{named}, {phase}}}]"]


ROWS: dict[str, list[str]] = {
    "default": [],
    "30 epochs, rate 1e-2, decay 2": cosine(30, 1e-2, decay=2.0),
    "the image + 1 augmented view": cosine(30, 1e-2, 2, 2.0),
    "the image + 3 augmented views": cosine(30, 1e-2, 4, 2.0),
    "decay 0": cosine(30, 1e-2),
    "decay 4": cosine(30, 1e-2, decay=4.0),
    "rate 3e-3": cosine(30, 3e-3, decay=2.0),
    "60 epochs": cosine(60, 1e-2, decay=2.0),
    "no decay, rate 3e-3, 60 epochs": cosine(60, 3e-3),
    "former: 2 views, class weights, plateau, best epoch": FORMER,
}
Predict = Callable[[np.ndarray], np.ndarray]  # features (n, F) -> logits (n, K)


def config_of(name: str, root: Path, weights: str, words: list[str]) -> Config:
    """Compose the configuration of a row on a data set."""
    given = [f"data={name}", f"data.root='{root / name}'", f"model.weights='{weights}'", "schedule=head", "trainer=cpu"]
    return configuration([*given, *SETS[name], *words])


def images_for_training(config: Config) -> XrayDataModule:
    """Set up the images of a data set that are not for testing."""
    whole = make_data(config["data"])
    manifest = whole.manifest[whole.manifest["split"] != "test"]
    own = ("_target_", "root", "manifest", "split", "augment")
    settings = {name: value for name, value in config["data"].items() if name not in own}
    first = partial(fold_of, fold=0, seed=0)
    data = XrayDataModule(manifest=manifest, split=first, augment=instantiate(config["augment"]), **settings)
    data.setup()
    return data


def fold_of(manifest: pd.DataFrame, fold: int, seed: int) -> pd.DataFrame:
    """Assign splits: a fold is for testing, a sixth of the others for validation."""
    parts = fold_manifest(manifest, FOLDS, fold, "patient", seed)
    return carve_validation(parts.assign(split=parts["split"].replace("val", "train")), 1 / 6, seed)


def trained_head(data: XrayDataModule, config: Config, seed: int) -> tuple[Predict, bool]:
    """Train a head with cxrnet; say, too, whether it is calibrated as trained."""
    torch.manual_seed(seed)
    network, weights = make_network(config["model"], data)
    with tempfile.TemporaryDirectory() as folder:
        training = make_training({**config, "seed": seed}, data, weights.pretrained, Path(folder))
        (phase,), _ = run_phases(network, data, training)
    head = network.head.eval()

    def predict(table: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = head(torch.from_numpy(table)).numpy()
        return logits

    return predict, bool(phase.losses)


def regression(table: np.ndarray, labels: np.ndarray, strength: float) -> Predict:
    """Fit scikit-learn's logistic regression."""
    model = logistic_regression(strength, max_iter=5000).fit(table, labels)
    return lambda others: np.log(model.predict_proba(others).clip(1e-30)).astype(np.float32)  # none is infinite


def tested(data: XrayDataModule, config: Config, row: str, seed: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield labels, logits and calibrated logits of the test part of each fold, and seconds of the fit."""
    table = features(data, config)
    for fold in range(FOLDS):
        part = data.resplit(partial(fold_of, fold=fold, seed=seed), seed, shared=True)
        rows, labels = ({split: part.rows(split).index.to_numpy() for split in ("train", "val", "test")}, {})
        for split in rows:
            labels[split] = part.arrays(split)[1].numpy()
        start, calibrated = time.perf_counter(), False
        if row.startswith("scikit-learn"):
            predict = regression(table[rows["train"]], labels["train"], float(row.rpartition("=")[2]))
        else:
            predict, calibrated = trained_head(part, config, seed)
        seconds = time.perf_counter() - start
        val, logits = predict(table[rows["val"]]), predict(table[rows["test"]])
        shares = np.bincount(labels["train"], minlength=len(part.classes)) / len(labels["train"])
        if config["loss"]["class_weights"] == "balanced":
            val, logits = (each + np.log(shares).astype(np.float32) for each in (val, logits))
        prior = dict(zip(part.classes, shares, strict=True))
        found = fit_temperature(make_predictions(part.rows("val"), part.classes, val), prior)
        bundled = logits if calibrated else (logits - np.array(found.offset or 0.0)) / found.value
        yield labels["test"], logits, bundled, np.array([seconds])


def scores(labels: np.ndarray, logits: np.ndarray) -> tuple[float, float, float]:
    """Compute accuracy, ROC-AUC and log loss."""
    p = softmax(logits.astype(np.float64), axis=1)
    auc = roc_auc_score(labels, p[:, 1]) if p.shape[1] == 2 else roc_auc_score(labels, p, multi_class="ovr")
    return float((p.argmax(axis=1) == labels).mean()), float(auc), float(log_loss(labels, p))


def study(name: str, root: Path, weights: str, seeds: int, begins: tuple[str, ...]) -> None:
    """Print the table of a data set, but for rows that begin otherwise."""
    data = images_for_training(config_of(name, root, weights, []))
    print(f"\n{name}: {len(data.manifest)} images\n")
    names = ("", *("accuracy", "ROC-AUC", "log loss") * 2, "sd of accuracy", "seconds")
    print(f"| {' | '.join(names)} |")
    print("|" + "---|" * len(names))
    for row in (*ROWS, "scikit-learn C=0.01", "scikit-learn C=0.1"):
        if not row.startswith(begins):
            continue
        config = config_of(name, root, weights, ROWS.get(row, []))
        found = []
        for seed in range(seeds):
            labels, logits, calibrated, seconds = map(
                np.concatenate, zip(*tested(data, config, row, seed), strict=True)
            )
            found.append((*scores(labels, logits), *scores(labels, calibrated), seconds.mean()))
        *mean, seconds = np.mean(found, axis=0)
        cells = [*(f"{value:.3f}" for value in (*mean, np.std(found, axis=0, ddof=1)[3])), f"{seconds:.1f}"]
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print a table for each data set."""
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    if not {"data", "weights"} <= words.keys():  # --help too
        print(__doc__)
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    root, weights = Path(words["data"]).resolve(), str(Path(words["weights"]).resolve())
    for name in words.get("sets", ",".join(SETS)).split(","):
        study(name, root, weights, int(words.get("seeds", 3)), tuple(words.get("rows", "").split(",")))


if __name__ == "__main__":
    main()
