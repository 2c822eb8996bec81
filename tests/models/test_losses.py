import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from cxrnet.errors import CxrnetError
from cxrnet.models.losses import cross_entropy, weights_of

COUNTS = [70, 20, 10]


def test_balanced_is_scikit_learns_rule():
    labels = np.repeat([0, 1, 2], COUNTS)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    np.testing.assert_allclose(weights_of("balanced", COUNTS).numpy(), expected, rtol=1e-6)


def test_max_is_the_largest_count_over_each():
    assert weights_of("max", COUNTS).tolist() == pytest.approx([1.0, 3.5, 7.0])


def test_none_and_a_list():
    assert weights_of("none", COUNTS) is None
    assert weights_of([1, 2.5, 4], COUNTS).tolist() == [1.0, 2.5, 4.0]


def test_the_loss_uses_weights_and_smoothing():
    logits, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0, 1, 2, 2])
    ours = cross_entropy(COUNTS, [1.0, 2.0, 3.0], 0.1)(logits, labels)
    weight = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, labels, weight, label_smoothing=0.1))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("ballanced", "loss.class_weights: 'ballanced' is not known; use none, balanced, max or a list"),
        ([1.0, 2.0], r"loss.class_weights: \[1.0, 2.0\] doesn't fit 3 classes; give one positive number a class"),
        ([1.0, 2.0, 0.0], "one positive number a class"),
        ([1.0, 2.0, -1.0], "one positive number a class"),
        ([], "one positive number a class"),
        (None, "loss.class_weights: None is not known"),
        (["a", "b", "c"], "one positive number a class"),
    ],
)
def test_bad_class_weights(rule, message):
    with pytest.raises(CxrnetError, match=message):
        weights_of(rule, COUNTS)


@pytest.mark.parametrize("smoothing", [-0.1, 1.5])
def test_bad_label_smoothing(smoothing):
    with pytest.raises(CxrnetError, match=f"loss.label_smoothing: {smoothing} is no share; give a number from 0 to 1"):
        cross_entropy(COUNTS, "none", smoothing)
