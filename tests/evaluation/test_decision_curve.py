import numpy as np
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision_curve import at_prevalence, decision_curve

STEPS = np.array([0.0, 0.1, 0.3, 0.5, 0.9])


@pytest.fixture
def model() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = rng.uniform(size=200) < 0.25
    return (0.3 * positive + 0.7 * rng.uniform(size=200)).round(2), positive


def test_net_benefit_is_the_formula_of_the_paper(model) -> None:
    probability, positive = model
    curve = decision_curve(probability, positive, STEPS)
    for row in curve.itertuples():
        called, weight = probability >= row.threshold, row.threshold / (1 - row.threshold)
        by_hand = (called & positive).sum() / 200 - (called & ~positive).sum() / 200 * weight
        assert row.model == pytest.approx(by_hand, abs=1e-12)
        assert row.treat_all == pytest.approx(positive.mean() - (1 - positive.mean()) * weight, abs=1e-12)
        assert row.treat_none == 0
    assert (curve["prevalence"] == positive.mean()).all()


def test_perfect_model_has_the_prevalence_as_its_benefit(model) -> None:
    _, positive = model
    assert decision_curve(positive.astype(float), positive, STEPS[1:])["model"].to_numpy() == pytest.approx(
        positive.mean()
    )


def test_another_prevalence_is_that_of_images_drawn_to_it(model) -> None:
    probability, positive = model
    times = np.where(positive, 1, 6)  # six of each image without the disease
    drawn = np.repeat(positive, times)
    share = drawn.mean()
    carried = at_prevalence(probability, positive.mean(), share)
    expected = decision_curve(np.repeat(carried, times), drawn, STEPS)
    np.testing.assert_allclose(decision_curve(carried, positive, STEPS, share), expected, atol=1e-12)


def test_probability_at_another_prevalence_is_bayes() -> None:
    # An image that says nothing has the prevalence as its probability; certainty stays.
    assert at_prevalence(np.array([0.25, 0.0, 1.0]), 0.25, 0.01) == pytest.approx([0.01, 0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": [0.5, 1.0]}, "decision_curve.thresholds: give probabilities from 0 on, below 1"),
        ({"thresholds": [float("nan")]}, "decision_curve.thresholds"),
        ({"prevalence": 0}, "decision_curve.prevalence: 0 is no prevalence"),
        ({"positive": np.zeros(200, bool)}, "no image is of the class"),
        ({"positive": np.ones(200, bool)}, "every image is of the class"),
    ],
)
def test_what_makes_no_curve_is_refused(model, change, message) -> None:
    good = {"probability": model[0], "positive": model[1], "thresholds": STEPS}
    with pytest.raises(CxrnetError, match=message):
        decision_curve(**{**good, **change})
