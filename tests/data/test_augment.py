import numpy as np
import pytest
import torch

from cxrnet.data.augment import geometric, none
from cxrnet.errors import CxrnetError

OFF = {"flip": 0, "degrees": 0, "translate": 0, "shear": 0, "zoom": 0, "distortion": 0}
EVERYTHING = {"flip": 0.5, "degrees": 10, "translate": 0.1, "shear": 5, "zoom": 0.1, "distortion": 0.2}


def transform(**on):
    return geometric(**{**OFF, **on})


def square(left: int = 24) -> torch.Tensor:
    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    image[:, 24:40, left : left + 16] = 200
    return image


def centre(image: torch.Tensor) -> tuple[float, float]:
    rows, columns = np.indices(image.shape[1:])
    weight = image[0].numpy().astype(float)
    return float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum())


def drawn(image: torch.Tensor, n: int = 60, **on) -> list[torch.Tensor]:
    torch.manual_seed(0)
    augment = transform(**on)
    return [augment(image) for _ in range(n)]


def test_none_is_nothing_so_that_features_are_computed_once():
    assert none() is None


def test_shape_and_type_stay():
    for image in drawn(square()[:, :, :48], 5, **EVERYTHING):
        assert image.shape == (1, 64, 48)
        assert image.dtype == torch.uint8


def test_off_in_every_part_changes_nothing():
    assert torch.equal(transform()(square(3)), square(3))


def test_a_flip_comes_with_its_probability():
    sides = [centre(image)[1] < 32 for image in drawn(square(44), 200, flip=0.25)]
    assert 0.15 < np.mean(sides) < 0.35
    assert torch.equal(transform(flip=1)(square(44)), square(4))


def test_without_a_flip_the_heart_never_changes_sides():
    assert all(centre(image)[1] > 32 for image in drawn(square(44), 40, **{**EVERYTHING, "flip": 0}))


def test_rotations_stay_within_their_range():
    bar = torch.zeros(1, 64, 64, dtype=torch.uint8)
    bar[:, 31:33, 4:60] = 255
    angles = []
    for image in drawn(bar, degrees=10):
        left, right = centre(image[..., :16])[0], centre(image[..., -16:])[0]
        angles.append(np.degrees(np.arctan2(left - right, 48)))
    assert 7 < max(angles) < 11
    assert -11 < min(angles) < -7


def test_shifts_stay_within_their_share():
    found = np.array([centre(image) for image in drawn(square(), translate=0.1)]) - centre(square())
    assert 4 < np.abs(found).max() <= 6.4 + 1e-6
    assert (found > 2).any(axis=0).all()
    assert (found < -2).any(axis=0).all()


def test_zooms_stay_within_their_share():
    sides = [float(image.float().sum() / 200) ** 0.5 / 16 for image in drawn(square(), zoom=0.2)]
    assert 0.78 < min(sides) < 0.88
    assert 1.12 < max(sides) < 1.22


def test_shear_leans_by_degrees_and_along_the_rows_alone():
    bar = torch.zeros(1, 64, 64, dtype=torch.uint8)
    bar[:, 8:56, 31:33] = 255
    leans = []
    for image in drawn(bar, shear=20):
        top, bottom = centre(image[:, 10:14])[1], centre(image[:, 50:54])[1]
        leans.append(np.degrees(np.arctan2(bottom - top, 40)))
        assert image[0, :7].max() == image[0, 57:].max() == 0
    assert 14 < max(leans) < 21
    assert -21 < min(leans) < -14


def test_distortion_draws_the_corners_inwards():
    white = torch.full((1, 64, 64), 255, dtype=torch.uint8)
    kept = [float((image > 0).float().mean()) for image in drawn(white, distortion=0.2)]
    assert min(kept) > 0.8**2  # a tenth at either end of a side, at most
    assert max(kept) < 1
    assert len(set(kept)) > 30


def test_the_same_seed_gives_the_same_image():
    assert torch.equal(drawn(square(), 1, **EVERYTHING)[0], drawn(square(), 1, **EVERYTHING)[0])


@pytest.mark.parametrize("column", [0, 63])
def test_the_border_is_black(column):
    white = torch.full((1, 64, 64), 255, dtype=torch.uint8)
    assert any(bool((image[..., column] == 0).all()) for image in drawn(white, 20, translate=0.1))


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ({"flip": 1.5}, r"augment.flip: 1.5 is out of range; give a number from 0 to 1$"),
        ({"degrees": -7}, r"augment.degrees: -7 is out of range; give a number from 0 to 180$"),
        ({"translate": 20}, r"augment.translate: 20 is out of range; give a number from 0 to 1$"),
        ({"shear": 90}, r"augment.shear: 90 is out of range; give a number from 0 to 89$"),
        ({"zoom": 1}, r"augment.zoom: 1 is out of range; give a number from 0 to 0.99$"),
        ({"distortion": "small"}, r"augment.distortion: small is out of range; give a number from 0 to 1$"),
    ],
)
def test_numbers_out_of_range(on, message):
    with pytest.raises(CxrnetError, match=message):
        transform(**on)
