import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from cxrnet.errors import CxrnetError
from cxrnet.models.losses import corrected_twice, cost_matrix, cost_sensitive, cross_entropy, focal, weights_of

CLASSES = ("COVID", "Normal", "Viral Pneumonia")
COUNTS = [70, 20, 10]
LOGITS = 2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 0, 1, 2, 2])
WEIGHTS = {"COVID": 1.0, "Normal": 2.0, "Viral Pneumonia": 3.0}


# --- class weights


def test_balanced_is_scikit_learns_rule():
    labels = np.repeat([0, 1, 2], COUNTS)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    np.testing.assert_allclose(weights_of("balanced", CLASSES, COUNTS).numpy(), expected, rtol=1e-6)


def test_class_weights():
    assert weights_of("max", CLASSES, COUNTS).tolist() == pytest.approx([1.0, 3.5, 7.0])
    assert weights_of("none", CLASSES, COUNTS) is None
    assert weights_of({"Viral Pneumonia": 4, "COVID": 2.5}, CLASSES, COUNTS).tolist() == [2.5, 1.0, 4.0]


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (focal, ("ballanced", 2.0), "loss.class_weights: 'ballanced' is not known; use none"),
        (focal, ([1.0, 2.0, 3.0], 2.0), r"loss.class_weights: \[1.0, 2.0, 3.0\] is not known"),
        (focal, ({"Covid": 2.0}, 2.0), "loss.class_weights: no class is called 'Covid'; the classes are COVID, "),
        (focal, ({"COVID": 0.0}, 2.0), "loss.class_weights: {'COVID': 0.0}; give positive numbers"),
        (focal, ({"COVID": float("inf")}, 2.0), "give positive numbers"),
        (focal, ("none", -1.0), "loss.gamma: -1.0; give 0"),
        (focal, ("none", float("nan")), "loss.gamma: nan; give 0"),
        (cross_entropy, ("none", 1.5), "loss.label_smoothing: 1.5; give a number from 0 to 1"),
        (cross_entropy, ("none", None), "loss.label_smoothing: None; give"),
        (cost_sensitive, ("none", 0.0, -1, {}), "loss.weight: -1; give 0"),
    ],
)
def test_bad_settings(make, settings, message):
    with pytest.raises(CxrnetError, match=message):
        make(CLASSES, COUNTS, *settings)


@pytest.mark.parametrize(
    ("sampler", "weights", "twice"),
    [
        ("balanced", "balanced", True),
        ("balanced", {"a": 2.0}, True),
        ("balanced", "none", False),
        ("shuffle", "max", False),
    ],
)
def test_correcting_twice_for_rare_classes_is_said(sampler, weights, twice):
    assert bool(corrected_twice(sampler, weights)) == twice


# --- cross-entropy


def test_cross_entropy_uses_weights_and_smoothing():
    ours = cross_entropy(CLASSES, COUNTS, WEIGHTS, 0.1)(LOGITS, LABELS)
    weight = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, LABELS, weight, label_smoothing=0.1))


# --- focal


def test_focal_by_its_formula():
    p = LOGITS.softmax(dim=1)[range(6), LABELS]
    w = torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    expected = (-w * (1 - p) ** 2 * p.log()).sum() / w.sum()
    torch.testing.assert_close(focal(CLASSES, COUNTS, WEIGHTS, 2.0)(LOGITS, LABELS), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_an_image_that_is_beyond_doubt_has_a_finite_slope(gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0], [12.0, 0.0, 0.0]], requires_grad=True)
    loss = focal(CLASSES, COUNTS, "none", gamma)(logits, torch.tensor([0, 0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


# --- cost-sensitive


def test_costs_by_name():
    costs = {"COVID": {"Normal": 4.0}, "Viral Pneumonia": {"Normal": 0.0}}
    assert cost_matrix(costs, CLASSES).tolist() == [[0, 4, 1], [1, 0, 1], [1, 0, 0]]
    assert cost_matrix({}, CLASSES).tolist() == cost_matrix(None, CLASSES).tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]


def test_cost_sensitive_adds_the_expected_cost():
    loss = cost_sensitive(CLASSES, COUNTS, WEIGHTS, 0.1, 0.5, {"COVID": {"Normal": 4.0}})
    p = LOGITS.softmax(dim=1)
    of_covid = 4 * p[:3, 1] + p[:3, 2]
    of_others = 1 - p[range(3, 6), LABELS[3:]]
    expected = (
        cross_entropy(CLASSES, COUNTS, WEIGHTS, 0.1)(LOGITS, LABELS) + 0.5 * torch.cat([of_covid, of_others]).mean()
    )
    torch.testing.assert_close(loss(LOGITS, LABELS), expected)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"Covid": {}}, "loss.costs: no class is called 'Covid'; the classes are COVID, Normal, Viral Pneumonia"),
        ({"COVID": {"normal": 2.0}}, "loss.costs.COVID: no class is called 'normal'"),
        ({"COVID": {"Normal": -1.0}}, "loss.costs.COVID.Normal: -1.0; give another class and a cost of 0 or more"),
        ({"COVID": {"Normal": "dear"}}, "loss.costs.COVID.Normal: dear; give another class and a cost of 0 or more"),
        ({"COVID": {"COVID": 1.0}}, "loss.costs.COVID.COVID: 1.0; give another class"),
        ({"COVID": 4.0}, "loss.costs.COVID: 4.0; write it as {COVID: {Normal: 4.0}}"),
        ([[0, 1], [4, 0]], r"loss.costs: \[\[0, 1\], \[4, 0\]\]; give true class, predicted class and cost"),
    ],
)
def test_bad_costs(costs, message):
    with pytest.raises(CxrnetError, match=message):
        cost_matrix(costs, CLASSES)
