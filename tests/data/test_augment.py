from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from cxrnet.data.augment import (
    NUMBERS,
    Geometric,
    geometric,
)
from cxrnet.data.augment import (
    _affine_maps as affine_maps,
)
from cxrnet.data.augment import (
    _compose as compose,
)
from cxrnet.data.augment import (
    _perspective_maps as perspective_maps,
)
from cxrnet.data.augment import (
    _warp as warp,
)
from cxrnet.errors import CxrnetError

OFF = {"flip": 0, "degrees": 0, "translate": 0, "shear": 0, "zoom": 0, "distortion": 0}
EVERYTHING = {"flip": 0.5, "degrees": 10, "translate": 0.1, "shear": 5, "zoom": 0.1, "distortion": 0.2}
BILINEAR = InterpolationMode.BILINEAR


def augmentation(**on) -> Geometric:
    return geometric(**{**OFF, **on})


def square(left: int = 24) -> torch.Tensor:
    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    image[:, 24:40, left : left + 16] = 200
    return image


def smooth(number: int, size: tuple[int, int] = (96, 64)) -> torch.Tensor:
    """Images without edges, so that a second interpolation of them changes little."""
    coarse = torch.rand(number, 1, 7, 6, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=True).clamp(0, 255).round().to(torch.uint8)


def centre(image: torch.Tensor) -> tuple[float, float]:
    rows, columns = np.indices(image.shape[1:])
    weight = image[0].numpy().astype(float)
    return float((rows * weight).sum() / weight.sum()), float((columns * weight).sum() / weight.sum())


def drawn(image: torch.Tensor, number: int = 60, **on) -> torch.Tensor:
    """A batch of views of one image."""
    torch.manual_seed(0)
    return augmentation(**on)(image.expand(number, -1, -1, -1))


def test_off_in_every_part_changes_nothing_and_draws_nothing():
    state = torch.get_rng_state()
    images = smooth(3)
    assert augmentation()(images) is images
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [(64, 64), (225, 187), (1, 1), (1024, 640)])
def test_maps_of_nothing_give_the_same_image_to_the_bit(size):
    images, off = torch.randint(0, 256, (2, 1, *size), dtype=torch.uint8), torch.zeros(2)
    still = affine_maps(off.bool(), off, off, off + 1, off, off, size[1] / size[0])
    assert torch.equal(warp(images, still), images)
    assert torch.equal(warp(images, compose(still, perspective_maps(torch.zeros(2, 4, 2)))), images)


INWARDS = torch.tensor([[[0.1, 0.3], [0.0, 0.2], [0.25, 0.05], [0.3, 0.0]]])


def greatest_difference(maps: torch.Tensor, theirs: Callable[[torch.Tensor], torch.Tensor]) -> int:
    """Compute the greatest difference of grey values to torchvision's image, where nothing black comes in."""
    pairs = [(warp(images, maps), theirs(images)) for images in (smooth(1), torch.full_like(smooth(1), 255))]
    (ours, their), white = pairs[0], pairs[1]
    inside = (white[0] == 255) & (white[1] == 255)
    assert inside.float().mean() > 0.3
    return int((ours.int() - their.int()).abs()[inside].max())


def mapped(angle: float, shift: tuple[float, float], scale: float, shear: float, flipped: bool = False) -> torch.Tensor:
    """The affine map of an image 96 x 64, in the units of torchvision."""
    one = torch.ones(1)
    turn, lean = torch.deg2rad(angle * one), torch.deg2rad(shear * one)
    return affine_maps(one == flipped, turn, lean, scale * one, one * shift[0] / 32, one * shift[1] / 48, 64 / 96)


def distorted(images: torch.Tensor) -> torch.Tensor:
    """Torchvision's perspective; in its coordinates an image reaches from 0 to its width and height."""
    half, signs = torch.tensor([32.0, 48.0]), torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    start, end = (half * (1 + signs * (1 - moved)) for moved in (0 * INWARDS[0], INWARDS[0]))
    return functional.perspective(images, start.tolist(), end.tolist(), BILINEAR, fill=0)


@pytest.mark.parametrize(
    "settings",
    [(25, (0, 0), 1, 0), (0, (9, -14), 1, 0), (0, (0, 0), 1.3, 0), (0, (0, 0), 1, -20), (-12, (5.5, 7), 0.8, 15)],
)
def test_an_affine_map_is_that_of_torchvision(settings):
    angle, shift, scale, shear = settings
    theirs = partial(
        functional.affine, angle=angle, translate=list(shift), scale=scale, shear=[shear, 0], interpolation=BILINEAR
    )
    assert greatest_difference(mapped(*settings), theirs) <= 1


def test_a_perspective_and_the_composed_map_are_those_of_torchvision():
    def theirs(images):
        flipped = functional.horizontal_flip(images)
        return distorted(functional.affine(flipped, 9, [3, -4], 1.1, [-8, 0], BILINEAR))

    assert greatest_difference(perspective_maps(INWARDS), distorted) <= 1
    maps = compose(mapped(9, (3, -4), 1.1, -8, flipped=True), perspective_maps(INWARDS))
    assert greatest_difference(maps, theirs) <= 2


def test_a_flip_comes_with_its_probability():
    sides = [centre(image)[1] < 32 for image in drawn(square(44), 200, flip=0.25)]
    assert 0.15 < np.mean(sides) < 0.35
    assert torch.equal(drawn(square(44), 1, flip=1)[0], square(4))


def test_the_same_seed_gives_the_same_batch_and_the_next_batch_is_another():
    first, again = (drawn(square(), 3, **EVERYTHING) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(augmentation(**EVERYTHING)(square().expand(3, -1, -1, -1)), first)


def test_the_numbers_of_an_image_say_how_it_is_augmented():
    images, augment = square().expand(4, -1, -1, -1), augmentation(**EVERYTHING)
    torch.manual_seed(0)
    whole = augment(images)
    torch.manual_seed(0)
    numbers = torch.rand(4, NUMBERS)
    shares = [augment(images[:2], numbers[rank::2]) for rank in range(2)]
    assert torch.equal(torch.cat(shares), whole[[0, 2, 1, 3]])


def test_switching_one_thing_off_leaves_the_other_draws_as_they_were():
    torch.manual_seed(0)
    flipped = augmentation(**{**EVERYTHING, "flip": 1})._maps(torch.rand(8, NUMBERS), 1.0)
    torch.manual_seed(0)
    as_it_was = augmentation(**{**EVERYTHING, "flip": 0})._maps(torch.rand(8, NUMBERS), 1.0)
    assert torch.equal(flipped[:, 0], -as_it_was[:, 0])
    assert torch.equal(flipped[:, 1:], as_it_was[:, 1:])


ASPECT = 0.75
PARAMETERS = {
    "degrees": ({"degrees": 10}, lambda maps: -torch.rad2deg(torch.asin(maps[:, 1, 0] / ASPECT)), -10, 10),
    "across": ({"translate": 0.2}, lambda maps: -maps[:, 0, 2] / 2, -0.2, 0.2),
    "down": ({"translate": 0.2}, lambda maps: -maps[:, 1, 2] / 2, -0.2, 0.2),
    "shear": ({"shear": 15}, lambda maps: torch.rad2deg(torch.atan(maps[:, 0, 1] * ASPECT)), -15, 15),
    "zoom": ({"zoom": 0.3}, lambda maps: 1 / maps[:, 1, 1], 0.7, 1.3),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_value_of_a_range_is_as_likely(name):
    torch.manual_seed(0)
    on, parameter, low, high = PARAMETERS[name]
    values = parameter(augmentation(**on)._maps(torch.rand(4000, NUMBERS), ASPECT))
    assert low <= values.min()
    assert values.max() <= high
    found = (torch.quantile(values, torch.tensor([0, 0.25, 0.5, 0.75, 1])) - low) / (high - low)
    torch.testing.assert_close(found, torch.tensor([0, 0.25, 0.5, 0.75, 1]), atol=0.03, rtol=0)


def test_a_batch_of_several_chunks_is_its_images_one_by_one():
    images = smooth(7, (300, 400))
    maps = augmentation(**EVERYTHING)._maps(torch.rand(7, NUMBERS), 400 / 300)
    one_by_one = [warp(image, its_map) for image, its_map in zip(images.split(1), maps.split(1), strict=True)]
    assert torch.equal(warp(images, maps), torch.cat(one_by_one))


def test_half_precision_around_it_leaves_it_exact():
    with torch.autocast("cpu", torch.bfloat16):
        lowered = drawn(square(), 5, **EVERYTHING)
    assert torch.equal(lowered, drawn(square(), 5, **EVERYTHING))


def test_it_works_on_another_device_without_waiting_for_it():
    # The meta device has shapes alone: whatever read a value back from it would raise.
    augmented = augmentation(**EVERYTHING)(torch.empty(4, 1, 32, 24, dtype=torch.uint8, device="meta"))
    assert augmented.device.type == "meta"
    assert augmented.shape == (4, 1, 32, 24)


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
        augmentation(**on)
