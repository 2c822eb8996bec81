import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from cxrnet.data.sources.folder import folder
from cxrnet.training.checkpoints import trained_so_far
from cxrnet.training.phases import run_phases
from cxrnet.training.regression import STRENGTHS, fit_regression
from cxrnet.training.schedule import Phase, Schedule

HEAD = Phase("head", "head", epochs=3, lr=1e-2, solver="regression")
TUNE = Phase("finetune", {"from": "block3"}, epochs=1, lr=1e-3)


def drawn(n: int, n_classes: int, signal: float, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Features of every class around a mean of its own, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n)
    means = np.vstack([np.zeros(width), signal * np.eye(n_classes - 1, width)])
    return (3 + 2 * rng.normal(means[labels])).astype(np.float32), labels


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_the_minimum_of_weighted_cross_entropy_and_l2(n_classes):
    features, labels = drawn(90, n_classes, 2.0)
    costs = np.array([1.0, 3.0, 0.5])[:n_classes]
    found = fit_regression(features[None], labels, np.arange(90), costs, seed=0)
    scale = torch.tensor(features.std(axis=0), dtype=torch.float64)
    weight, bias = (torch.tensor(each, requires_grad=True) for each in (found.weight, found.bias))
    logits = torch.tensor(features, dtype=torch.float64) @ weight.T + bias
    loss = nn.functional.cross_entropy(logits, torch.tensor(labels), torch.tensor(costs))
    two = 2 if n_classes == 2 else 1  # scikit-learn has the L2 of the difference of the two
    (loss + two * found.strength / 2 * (weight * scale).square().sum()).backward()
    assert (weight.grad / scale).abs().max() < 1e-3
    assert bias.grad.abs().max() < 1e-3


def test_what_is_hard_gets_a_stronger_l2_than_what_is_easy():
    strengths = {}
    for signal in (0.0, 4.0):
        features, labels = drawn(120, 2, signal)
        found = fit_regression(features[None], labels, np.arange(120), np.ones(2), seed=0)
        strengths[signal] = found.strength
        assert found.folds == 5
        tried = dict(found.losses)
        assert [*tried] == [*STRENGTHS[: len(tried)]]
        assert min(tried.values()) <= tried[found.strength] < min(tried.values()) + 0.05
    assert strengths[0.0] == max(STRENGTHS) > strengths[4.0]


def test_images_of_one_patient_never_part():
    """Each patient has a feature of its own: with its images on both sides the weakest L2 would be best."""
    labels = np.repeat(np.arange(40) % 2, 5)
    features = np.repeat(3 * np.eye(40, dtype=np.float32), 5, axis=0)
    parted = fit_regression(features[None], labels, np.arange(200), np.ones(2), seed=0)
    together = fit_regression(features[None], labels, np.repeat(np.arange(40), 5), np.ones(2), seed=0)
    assert parted.strength < together.strength == max(STRENGTHS)


def test_too_few_patients_leave_nothing_to_choose():
    features, labels = drawn(20, 2, 1.0)
    found = fit_regression(features[None], labels, labels, np.ones(2), seed=0)
    assert (found.strength, found.losses, found.folds) == (1.0, (), 0)


def test_views_of_an_image_never_part_and_count_as_one():
    features, labels = drawn(80, 2, 2.0)
    one = fit_regression(features[None], labels, np.arange(80), np.ones(2), seed=0)
    twice = fit_regression(np.stack([features, features]), labels, np.arange(80), np.ones(2), seed=0)
    assert dict(twice.losses) == pytest.approx(dict(one.losses), rel=1e-3)
    np.testing.assert_allclose(twice.weight, one.weight, atol=1e-3)


@pytest.fixture
def train(make_network, make_data, make_training, tmp_path):
    """Trains in phases; gives the results, the history, the network and its data."""

    def make(*phases, trained=(), data=None, loss=None, **architecture):
        network, data = make_network(**architecture), data or make_data()
        plan = Schedule(phases, HEAD, "val/loss", 1, 1, best_from=0)
        changes = {} if loss is None else {"loss": loss}
        results, history = run_phases(network, data, make_training(plan, tmp_path / "run", **changes), trained)
        return results, history, network.eval(), data

    return make


@pytest.mark.parametrize(
    "changes", [{}, {"classes": ("Covid", "Normal"), "output": "sigmoid"}, {"classes": ("Covid", "Normal")}], ids=str
)
def test_a_head_is_fitted_at_once_and_one_epoch_tells_its_metrics(train, make_data, xrays, changes):
    manifest = folder(xrays)
    if changes:
        manifest = manifest[manifest["label"].isin(changes["classes"])].reset_index(drop=True)
    data = make_data(manifest=manifest)
    results, history, network, _ = train(HEAD, data=data, **changes)
    (result,) = results
    assert (result.epochs, result.lr, result.cached, result.kept) == (1, 0.0, True, True)
    assert result.fitted.startswith("logistic regression with an L2 of ")
    assert (result.l2, result.by_epochs) == (float(result.fitted.split()[6]), "")
    images, labels = data.arrays("train")
    with torch.inference_mode():
        logits = network(torch.from_numpy(images[:]).unsqueeze(1)).double().numpy()
        features = network.features(torch.from_numpy(images[:]).unsqueeze(1)).numpy()
    found = fit_regression(features[None], labels.numpy(), np.arange(len(labels)), np.ones(len(data.classes)), seed=0)
    expected = log_softmax(features @ found.weight.T + found.bias, axis=1)
    np.testing.assert_allclose(log_softmax(logits, axis=1), expected, atol=1e-3)
    loss = -expected[range(len(labels)), labels].mean()
    assert history.rows[0]["train/loss"] == pytest.approx(loss, abs=1e-3)  # without dropout


@pytest.mark.parametrize("by", ["weights", "sampler"])
def test_class_weights_and_a_balanced_sampler_weigh_the_images(train, make_data, xrays, by):
    manifest = folder(xrays)
    manifest = manifest[(manifest["label"] != "Covid") | (np.arange(len(manifest)) % 2 == 0)].reset_index(drop=True)
    data = make_data(manifest=manifest, sampler="balanced" if by == "sampler" else "shuffle")
    weights = 1 / np.array(data.counts("train"))
    loss = nn.CrossEntropyLoss(torch.tensor(weights, dtype=torch.float32)) if by == "weights" else None
    _, _, network, _ = train(HEAD, data=data, loss=loss)
    images, labels = data.arrays("train")
    with torch.inference_mode():
        features = network.features(torch.from_numpy(images[:]).unsqueeze(1)).numpy()
    found = fit_regression(features[None], labels.numpy(), np.arange(len(labels)), weights, seed=0)
    (last,) = (layer for layer in network.head if isinstance(layer, nn.Linear))
    np.testing.assert_allclose(last.weight.detach().numpy(), found.weight, atol=1e-3)


def test_it_goes_on_with_further_phases_and_is_not_fitted_again_when_resumed(train, tmp_path):
    first, _, _, _ = train(HEAD)
    resumed, history, _, _ = train(HEAD, TUNE, trained=trained_so_far(tmp_path / "run"))
    assert [row["phase"] for row in history.rows] == ["head", "finetune"]
    assert dataclasses.replace(resumed[0], kept=True, seconds=0) == dataclasses.replace(first[0], seconds=0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden": (8,)}, "more than one dense layer"),
        ({"loss": nn.CrossEntropyLoss(label_smoothing=0.1)}, "no plain cross-entropy"),
    ],
)
def test_another_head_or_loss_is_trained_by_epochs_and_that_is_said(train, changes, reason):
    (result,), _, _, _ = train(HEAD, **changes)
    assert (result.epochs, result.lr) == (3, 1e-2)
    assert result.fitted == ""
    assert reason in result.by_epochs
