"""The prior goes back into the logits of networks that were trained with weights: what remains is p(class | image)."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from cxrnet.evaluation.decision import fitted_offset
from cxrnet.models.losses import (
    cost_offset,
    cost_sensitive,
    cross_entropy,
    decision_weights,
    focal,
    without_offset,
)

CLASSES = ("a", "b", "c")
COUNTS = [1500, 400, 100]
SHARES = np.array(COUNTS) / sum(COUNTS)
MEANS = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])


def drawn(counts, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian features of each class, (N, 2), and labels: the log odds are linear in them."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return torch.tensor(rng.normal(MEANS[labels]), dtype=torch.float32), torch.tensor(labels)


def trained(loss: nn.Module, features: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Logits of the features by a linear head at the minimum of a loss."""
    torch.manual_seed(0)
    head = nn.Linear(2, int(labels.max()) + 1)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(head(features), labels)
        value.backward()
        return value

    optimizer.step(closure)
    return head(drawn(COUNTS)[0]).detach().numpy()


def bayes(features: torch.Tensor) -> np.ndarray:
    """The true p(class | features), (N, 3)."""
    distance = ((features.numpy()[:, None] - MEANS) ** 2).sum(axis=2)
    return softmax(np.log(SHARES) - distance / 2, axis=1)


def nothing(start: np.ndarray) -> np.ndarray:
    raise AssertionError("no formula was taken")


@pytest.mark.parametrize("rule", ["balanced", "max", {"c": 9.0, "a": 0.5}])
def test_a_head_trained_with_weights_gives_the_probabilities_of_one_without(rule):
    features, labels = drawn(COUNTS)
    plain = softmax(trained(cross_entropy(CLASSES, COUNTS, "none", 0.0), features, labels), axis=1)
    loss = cross_entropy(CLASSES, COUNTS, rule, 0.0)
    logits = trained(loss, features, labels)
    offset = cost_offset(loss, False, COUNTS, nothing)
    restored = softmax(logits - offset, axis=1)
    truth = bayes(features)
    assert np.abs(restored - truth).mean() < 0.02 < np.abs(softmax(logits, axis=1) - truth).mean()
    assert np.abs(restored - plain).mean() < 0.015
    np.testing.assert_allclose(restored.mean(axis=0), SHARES, atol=0.015)
    # Weight x probability decides what the network decided.
    np.testing.assert_array_equal((np.exp(offset) * restored).argmax(axis=1), logits.argmax(axis=1))
    assert offset.min() == 0


def test_a_balanced_sampler_is_a_weight_and_multiplies_with_those_of_the_loss():
    even = [600, 600, 600]
    plain = cross_entropy(CLASSES, COUNTS, "none", 0.0)
    logits = trained(plain, *drawn(even, seed=1))  # as the sampler draws
    restored = softmax(logits - cost_offset(plain, True, COUNTS, nothing), axis=1)
    assert np.abs(restored - bayes(drawn(COUNTS)[0])).mean() < 0.02
    both = cost_offset(cross_entropy(CLASSES, COUNTS, "balanced", 0.0), True, COUNTS, nothing)
    np.testing.assert_allclose(both, 2 * np.log(1500 / np.array(COUNTS)), rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "balanced", "counts"),
    [
        (cross_entropy(CLASSES, COUNTS, "none", 0.1), False, COUNTS),
        (cross_entropy(CLASSES, [7, 7, 7], "balanced", 0.0), True, [7, 7, 7]),
        (cross_entropy(CLASSES, COUNTS, {"a": 3, "b": 3, "c": 3}, 0.0), False, COUNTS),
        (focal(CLASSES, COUNTS, "none", 2.0), False, COUNTS),
        (cost_sensitive(CLASSES, COUNTS, "none", 0.0, 0.0, None), False, COUNTS),
    ],
    ids=["none", "all alike", "equal weights", "focal", "a cost of no weight"],
)
def test_without_weights_there_is_no_offset(loss, balanced, counts):
    assert cost_offset(loss, balanced, counts, nothing) is None


@pytest.mark.parametrize(
    "loss",
    [
        focal(CLASSES, COUNTS, "balanced", 2.0),
        cost_sensitive(CLASSES, COUNTS, "none", 0.0, 1.0, {"c": {"a": 8.0}}),
        cost_sensitive(CLASSES, COUNTS, "balanced", 0.0, 1.0, None),
    ],
    ids=["focal", "costs", "weights and costs"],
)
def test_other_losses_give_the_training_images_their_shares_in_the_mean(loss):
    features, labels = drawn(COUNTS)
    logits = trained(loss, features, labels)
    offset = cost_offset(loss, False, COUNTS, lambda start: fitted_offset(logits, SHARES, start))
    restored = softmax(logits - offset, axis=1)
    np.testing.assert_allclose(restored.mean(axis=0), SHARES, atol=1e-6)
    assert np.abs(softmax(logits, axis=1).mean(axis=0) - SHARES).max() > 0.01
    before, after = (-log_softmax(z, axis=1)[range(len(labels)), labels].mean() for z in (logits, logits - offset))
    assert after < before


@pytest.mark.parametrize(
    ("loss", "balanced", "expected"),
    [
        (cross_entropy(CLASSES, COUNTS, "balanced", 0.0), False, [1, 3.75, 15]),
        (focal(CLASSES, COUNTS, "balanced", 2.0), False, [1, 3.75, 15]),
        (focal(CLASSES, COUNTS, "none", 2.0), True, [1, 3.75, 15]),
        (focal(CLASSES, COUNTS, {"b": 2.0}, 2.0), True, [1, 7.5, 15]),
        (cost_sensitive(CLASSES, COUNTS, "none", 0.0, 0.5, {"c": {"a": 4.0, "b": 4.0}}), False, [1, 1, 4]),
        (cost_sensitive(CLASSES, COUNTS, "none", 0.0, 1.0, {"c": {"a": 4.0}}), False, [1, 1, 2.5]),
        (cost_sensitive(CLASSES, COUNTS, {"b": 2.0}, 0.0, 1.0, {"c": {"a": 4.0}}), False, [1, 2, 2.5]),
        (cost_sensitive(CLASSES, COUNTS, "balanced", 0.0, 1.0, None), False, [1, 3.75, 15]),
        (cost_sensitive(CLASSES, COUNTS, "balanced", 0.0, 0.0, {"c": {"a": 4.0}}), False, [1, 3.75, 15]),
        (cost_sensitive(CLASSES[:2], COUNTS[:2], "none", 0.0, 1.0, {"b": {"a": 4.0}}), False, [1, 4]),
        (cost_sensitive(CLASSES, COUNTS, "none", 0.0, 1.0, None), False, None),
        # Missing b costs nothing, which no weight above 0 says: what the training put on the logits is left.
        (cost_sensitive(CLASSES[:2], COUNTS[:2], "none", 0.0, 1.0, {"b": {"a": 0.0}}), False, [np.e, 1]),
    ],
)
def test_the_decision_weighs_what_was_asked_for_whatever_the_fit_says(loss, balanced, expected, caplog):
    counts = COUNTS if expected is None else COUNTS[: len(expected)]
    offset = np.array([1.0, 0.0, 0.3])[: len(counts)]
    weights = decision_weights(loss, balanced, counts, offset)
    assert weights is None if expected is None else weights == pytest.approx(expected, rel=1e-5)
    assert ("costs nothing" in caplog.text) == (expected is not None and expected[0] == np.e)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": CLASSES},
        {"classes": CLASSES, "hidden": (8,), "batch_norm": True},
        {"classes": CLASSES[:2], "output": "sigmoid"},
        {"classes": CLASSES[:2], "output": "sigmoid", "hidden": (8,)},
    ],
    ids=["softmax", "hidden", "sigmoid", "sigmoid, hidden"],
)
def test_the_last_bias_takes_the_offset(make_network, changes):
    network = make_network(**changes).eval()
    images = torch.randint(0, 256, (5, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    offset = np.array([0.0, 1.3, 2.5])[: len(changes["classes"])]
    with torch.inference_mode():
        before = network(images).double().numpy()
        after = without_offset(network, offset)(images).double().numpy()
        np.testing.assert_array_equal(network(images).double().numpy(), before)  # the network itself stays
    np.testing.assert_allclose(softmax(after, axis=1), softmax(before - offset, axis=1), atol=1e-6)
