import numpy as np
import pytest
import torch

from cxrnet.data.augment import light, none


def square() -> torch.Tensor:
    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    image[:, 24:40, 24:40] = 200
    return image


def centre(image: torch.Tensor) -> tuple[float, float]:
    rows, columns = np.indices(image.shape[1:])
    weight = image[0].numpy().astype(float)
    return float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum())


def test_none_is_nothing_so_that_features_are_computed_once():
    assert none() is None


def test_shape_and_type_stay():
    torch.manual_seed(0)
    image = light(7, 0.05, 0.05)(square()[:, :, :48])
    assert image.shape == (1, 64, 48)
    assert image.dtype == torch.uint8


def test_shifts_stay_within_their_share():
    torch.manual_seed(0)
    transform = light(degrees=0, translate=0.1, zoom=0)
    found = np.array([centre(transform(square())) for _ in range(60)]) - centre(square())
    assert 4 < np.abs(found).max() <= 6.4 + 1e-6
    assert (found > 2).any(axis=0).all()
    assert (found < -2).any(axis=0).all()


def test_zooms_stay_within_their_share():
    torch.manual_seed(0)
    transform = light(degrees=0, translate=0, zoom=0.2)
    sides = [float(transform(square()).float().sum() / 200) ** 0.5 / 16 for _ in range(60)]
    assert 0.78 < min(sides) < 0.88
    assert 1.12 < max(sides) < 1.22


def test_the_heart_never_changes_sides():
    torch.manual_seed(0)
    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    image[:, 20:44, 44:60] = 200
    assert all(centre(light(10, 0.1, 0.1)(image))[1] > 36 for _ in range(40))


def test_the_same_seed_gives_the_same_image():
    images = []
    for _ in range(2):
        torch.manual_seed(5)
        images.append(light(7, 0.05, 0.05)(square()))
    assert torch.equal(*images)


def test_off_in_every_part_changes_nothing():
    assert torch.equal(light(0, 0, 0)(square()), square())


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_border_is_black(side):
    torch.manual_seed(0)
    white = torch.full((1, 64, 64), 255, dtype=torch.uint8)
    column = 0 if side == "left" else 63
    assert any(bool((light(0, 0.1, 0)(white)[..., column] == 0).all()) for _ in range(20))
