import numpy as np
import pytest
import torch

from cxrnet.models.gate import DIRECTIONS, FEWEST, Gate, fit_gate

RNG = np.random.default_rng(0)
PLANE = RNG.normal(size=(8, 60)).astype(np.float32)


def near(count: int, seed: int) -> np.ndarray:
    """Features near a plane, as those of one kind of image are."""
    rng = np.random.default_rng(seed)
    return (5 + rng.normal(size=(count, 8)) @ PLANE + 0.3 * rng.normal(size=(count, 60))).astype(np.float32)


def far(count: int) -> np.ndarray:
    return (5 + 3 * np.random.default_rng(9).normal(size=(count, 60))).astype(np.float32)


@pytest.fixture(scope="module")
def gate() -> Gate:
    return fit_gate(near(400, 1), np.arange(400))


def test_it_lets_in_what_it_was_fitted_for_and_nothing_else(gate):
    assert gate.turns_away(near(500, 2)).mean() <= 0.03
    assert gate.turns_away(far(100)).all()
    assert gate.turns_away(np.zeros((1, 60), np.float32)).all()  # as a blank image may have
    assert (gate.scores(far(5)) > gate.scores(near(5, 3)).max()).all()


def test_more_features_than_it_keeps_are_averaged():
    wide = np.repeat(near(100, 1), 40, axis=1)
    gate = fit_gate(wide, np.arange(100))
    assert gate.mean.shape == (2048,)
    assert not gate.turns_away(wide).any()
    assert gate.turns_away(np.repeat(far(20), 40, axis=1)).all()


def test_images_of_one_patient_are_left_out_together():
    """Or they would be measured against their own twins, and what is a usual distance would be taken for a long one."""
    once = near(150, 1)
    rng = np.random.default_rng(2)
    twins = np.concatenate([once, once + 0.01 * rng.normal(size=once.shape).astype(np.float32)])
    together, apart = fit_gate(twins, np.tile(np.arange(150), 2)), fit_gate(twins, rng.permutation(300))
    assert together.centre[1] > apart.centre[1] + 1
    assert together.turns_away(near(300, 3)).mean() <= 0.04


@pytest.mark.parametrize(("images", "groups"), [(FEWEST - 1, FEWEST - 1), (200, 4)])
def test_of_too_few_images_or_patients_none_is_fitted(images, groups):
    assert fit_gate(near(images, 1), np.arange(images) % groups) is None


def test_it_knows_the_images_that_are_most_like_another_one():
    features, labels = near(100, 1), np.arange(100) % 3
    small = np.random.default_rng(0).integers(0, 256, (100, 8, 8), np.uint8)
    gate = fit_gate(features, np.arange(100), labels, small)
    places, cosines = gate.most_like(features[7:8], 4)
    assert places[0] == 7
    assert cosines[0] == pytest.approx(1, abs=1e-3)
    assert (np.diff(cosines) <= 0).all()
    again = Gate.read(gate.tensors, gate.numbers, 60)
    np.testing.assert_array_equal(again.thumbnails, small)
    np.testing.assert_array_equal(again.labels, labels)
    with pytest.raises(ValueError, match="its gate"):
        Gate.read(gate.tensors | {"thumbnails": torch.zeros(3, 8, 8)}, gate.numbers, 60)


def test_it_comes_back(gate):
    again = Gate.read(gate.tensors, gate.numbers, 60)
    features = np.concatenate([near(20, 4), far(20)])
    np.testing.assert_array_equal(again.scores(features), gate.scores(features))
    assert again.directions.shape == (DIRECTIONS, 60)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, numbers: tensors.pop("mean"),
        lambda tensors, numbers: numbers.pop("limits"),
        lambda tensors, numbers: numbers.update(limits=[1.0]),
        lambda tensors, numbers: numbers.update(spread=[1.0, 0.0]),
        lambda tensors, numbers: numbers.update(centre=[1.0, float("nan")]),
        lambda tensors, numbers: tensors.update(nearest=torch.zeros(3, 7)),
    ],
)
def test_parts_that_do_not_fit_are_refused(gate, change):
    tensors, numbers = gate.tensors, gate.numbers
    change(tensors, numbers)
    with pytest.raises(ValueError, match="its gate"):
        Gate.read(tensors, numbers, 60)
