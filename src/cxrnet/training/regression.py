"""A head of one dense layer on frozen features, fitted at once: a logistic regression with a chosen L2.

The decay of a head that is trained by epochs has one strength for all data; what suits classes that are easily told
apart overfits those that aren't. Here each training chooses its own, on its own training images, and the fit is the
minimum of a convex function, so there is neither rate nor chance in it. The L2 takes the place of dropout too, which
for a linear model is an L2 of each feature (Wager, Wang and Liang 2013, arXiv:1307.1493).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from cxrnet.core.grouping import link
from cxrnet.data.splits import TOGETHER, allocate
from cxrnet.models.network import Network
from cxrnet.training.features import FeatureDataModule, Feed

STRENGTHS = (10.0, 1.0, 0.1, 0.03)
FOLDS = 5
_NOT_CHOSEN = 1.0  # where there is too little to choose by
_NEAR = 0.5  # standard errors of the difference in loss: of L2 that are about as good the strongest is taken
_MOST_ITERATIONS = 1000
_MOST_NUMBERS = 1e8  # of features: 0.8 GB of float64, and a fold's part of it again

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Regression:
    """A fitted logistic regression.

    Attributes:
        weight: (K, F), of features as they are.
        bias: (K,).
        strength: strength of the L2 penalty: ``strength`` / 2 x the sum of squares of the weights of standardised
            features is added to the mean cross-entropy.
        losses: each strength that was tried and its cross-validated log loss, in order; empty where there were too few
            images or clusters of a class to choose by.
        folds: folds of the cross-validation; 0 where there was none.
    """

    weight: FloatArray
    bias: FloatArray
    strength: float
    losses: tuple[tuple[float, float], ...]
    folds: int


def fit_regression(
    features: npt.NDArray[np.float32], labels: IntArray, clusters: IntArray, costs: FloatArray, seed: int
) -> Regression:
    """Fit a logistic regression with the strongest L2 whose cross-validated loss is about the least.

    They are tried from the strongest on, until the loss gets worse.

    Args:
        features: (V, N, F), V views of N images.
        labels: places of the classes, (N,); each of the K classes has some.
        clusters: (N,); images of one never part (patients, duplicates).
        costs: weights of the classes, (K,).
        seed: seed of the folds.
    """
    n_views, n_classes = len(features), len(costs)
    weights = costs[labels] * len(labels) / costs[labels].sum()  # of the images, with a mean of 1
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    scaler = StandardScaler().fit(flat)
    scaled = scaler.transform(flat, copy=False).reshape(features.shape)

    def fitted(images: IntArray, strength: float) -> tuple[FloatArray, FloatArray]:
        rows, weighed = scaled[:, images].reshape(-1, scaled.shape[-1]), np.tile(weights[images], n_views)
        model = LogisticRegression(C=1 / (strength * weighed.sum()), max_iter=_MOST_ITERATIONS)
        model.fit(rows, np.tile(labels[images], n_views), sample_weight=weighed)
        weight, bias = model.coef_, model.intercept_
        if n_classes == 2:  # scikit-learn has one logit for the two
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight, bias

    def held_out(strength: float) -> FloatArray:
        """Compute the weighted log loss of each image, by the fit of the folds without it, (N,)."""
        losses = np.zeros(len(labels))
        for number in range(folds):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            weight, bias = fitted(train, strength)
            log_p = log_softmax(scaled[:, test] @ weight.T + bias, axis=2)
            losses[test] = -weights[test] * log_p[:, range(len(test)), labels[test]].mean(axis=0)
        return losses

    folds, fold = _folds(labels, clusters, n_classes, seed)
    strength, tried = _strongest(held_out) if folds else (_NOT_CHOSEN, [])
    weight, bias = fitted(np.arange(len(labels)), strength)
    weight = weight / scaler.scale_
    losses = zip(STRENGTHS, (float(each.mean()) for each in tried), strict=False)
    return Regression(weight, bias - weight @ scaler.mean_, strength, tuple(losses), folds)


def _strongest(held_out: Callable[[float], FloatArray]) -> tuple[float, list[FloatArray]]:
    """Choose the strongest L2 whose loss is about the least; with the losses of the images at each that was tried."""
    tried: list[FloatArray] = []
    for strength in STRENGTHS:
        tried.append(held_out(strength))
        if tried[-1].mean() > min(map(np.mean, tried)):
            break
    least = min(tried, key=np.mean)
    worse = [each - least for each in tried]
    near = [each.mean() <= _NEAR * each.std() / len(each) ** 0.5 for each in worse]
    return STRENGTHS[near.index(True)], tried


def _folds(labels: IntArray, clusters: IntArray, n_classes: int, seed: int) -> tuple[int, IntArray]:
    """Give each image a fold (N,), and return their number; 0 where a class can't be in every fold."""
    contents = np.zeros((clusters.max() + 1, n_classes))
    np.add.at(contents, (clusters, labels), 1)
    folds = min(FOLDS, int((contents > 0).sum(axis=0).min()))
    if folds < 2:
        return 0, np.zeros_like(labels)
    fold = allocate(contents, np.full(folds, 1 / folds), seed)[clusters]
    counts = np.zeros((folds, n_classes))
    np.add.at(counts, (fold, labels), 1)
    return (folds if counts.all() else 0), fold


def not_linear(network: Network, loss: nn.Module) -> str:
    """Say why training the head of a network is no logistic regression; empty where it is one."""
    if network.config.hidden or network.config.batch_norm:
        return "the head is more than one dense layer"
    if not isinstance(loss, nn.CrossEntropyLoss) or loss.label_smoothing > 0:
        return "the loss is no plain cross-entropy"
    return ""


def not_stored(feed: Feed) -> str:
    """Say why there are no features for a regression; empty where there are."""
    if not isinstance(feed.data, FeatureDataModule) or not feed.data.parts.whole_backbone:
        return "the features are not stored (schedule.views, schedule.features_gb)"
    if feed.data.n_bytes / 4 > _MOST_NUMBERS:
        return f"the features are more than {_MOST_NUMBERS:,.0f} numbers"
    return ""


class HeadFit(Callback):
    """Fits the head before the phase trains: in the first process, for all of them.

    Args:
        end_with: gets what :func:`fit_head` returns.
    """

    def __init__(self, end_with: Callable[[dict[str, Any]], None]) -> None:
        self.end_with = end_with

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Fit it; the features are there, and the weights still where they can be set."""
        data, network, loss, told = trainer.datamodule, pl_module.network, pl_module.loss, {}  # type: ignore[attr-defined]
        assert isinstance(data, FeatureDataModule)
        assert isinstance(network, Network)
        assert isinstance(loss, nn.CrossEntropyLoss)
        if trainer.is_global_zero:
            told = fit_head(network, data, loss)
        told, head = trainer.strategy.broadcast((told, network.head.state_dict()))
        network.head.load_state_dict(head)
        self.end_with(told)


def fit_head(network: Network, data: FeatureDataModule, loss: nn.CrossEntropyLoss) -> dict[str, Any]:
    """Fit the head of a network in place; return ``fitted``, ``l2`` and ``losses`` of a phase's result.

    Class weights of the loss and a balanced sampler weigh the images, as they do in training by epochs.
    """
    images, table = data.data, data.tables["train"]
    counts, labels = np.array(images.counts("train")), table.labels.numpy()
    costs = np.ones(len(counts)) if loss.weight is None else loss.weight.double().cpu().numpy()
    if images.sampler == "balanced":
        costs = costs / counts
    clusters = link(images.rows("train").reset_index(drop=True), TOGETHER)
    features = np.asarray(table.table[:, table.rows.numpy()])
    found = fit_regression(features, labels, clusters, costs, images.seed)
    weight, bias = found.weight, found.bias
    if network.config.output == "sigmoid":  # of the logits 0 and z
        weight, bias = np.diff(weight, axis=0), np.diff(bias)
    (last,) = (layer for layer in network.head if isinstance(layer, nn.Linear))
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))
    told = _told(found, len(labels), len(features), np.any(network.config.dropout))
    return {"fitted": told, "l2": found.strength, "losses": found.losses}


def _told(found: Regression, images: int, views: int, dropout: np.bool_) -> str:
    text = f"logistic regression with an L2 of {found.strength:g}{' in place of dropout' if dropout else ''}"
    if not found.losses:
        return f"{text}, as a class has too few images or patients to choose it by"
    tried = ", ".join(f"{strength:g}: {loss:.3f}" for strength, loss in found.losses)
    seen = f"{images:,} training images" + (f", {views} views of each" if views > 1 else "")
    return f"{text}, chosen by {found.folds}-fold cross-validation on {seen} (log loss at {tried})"
