import pickle

import numpy as np
import pytest
from PIL import Image

from cxrnet.data.images.resize import Images, resize, resize_all

GREY = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2  # (40, 60), 0..196
TEN = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((10, 2, 3), np.uint8)


def test_images_are_rows_of_an_array_in_an_order_of_their_own():
    images = Images(TEN, np.array([7, 2, 5]))
    assert len(images) == 3
    assert images.shape == (3, 2, 3)
    assert images[:2][:, 0, 0].tolist() == [7, 2]
    assert images[[2, 0, 0]][:, 0, 0].tolist() == [5, 7, 7]
    assert [image[0, 0] for image in images] == [7, 2, 5]


def test_images_are_taken_by_place_or_by_mask_without_being_read(tmp_path):
    np.save(tmp_path / "images.npy", TEN)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    images = Images.all_of(mapped).take(np.array([9, 4, 1]))
    assert images.take(np.array([True, False, True]))[:][:, 0, 0].tolist() == [9, 1]
    assert images.array is mapped


def test_another_process_maps_the_file_and_gets_no_copy_of_it(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((100, 64, 64), np.uint8))
    images = Images.all_of(np.load(tmp_path / "images.npy", mmap_mode="r")).take(np.array([3, 5]))
    message = pickle.dumps(images)
    assert len(message) < 2000
    assert pickle.loads(message).rows.tolist() == [3, 5]
    assert pickle.loads(pickle.dumps(Images(TEN, np.array([7]))))[:][0, 0, 0] == 7


@pytest.mark.parametrize("shape", [(40, 60), (299, 301), (7, 3), (1, 5), (2, 1), (64, 64), (2500, 2048)])
@pytest.mark.parametrize("size", [(32, 32), (33, 18), (1, 1), (80, 90)])
def test_pillow_gives_the_same_up_to_rounding(shape, size):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    by_pillow = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resize(image, size, "stretch").astype(int) - by_pillow).max() <= 1


@pytest.mark.parametrize("rule", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(22, 30), (96, 48), (1, 1)])
def test_an_image_is_the_same_alone_and_among_others(rule, size):
    images = np.random.default_rng(0).integers(0, 256, (7, 53, 71)).astype(np.uint8)
    together = resize_all(images, size, rule)
    assert together.shape == (7, *size)
    assert together.dtype == np.uint8
    for image, resized in zip(images, together, strict=True):
        np.testing.assert_array_equal(resize(image, size, rule), resized)


def test_every_rule_puts_the_centre_into_the_centre():
    half = np.repeat(np.array([0, 200, 0], np.uint8), [25, 50, 25])[None].repeat(50, axis=0)  # the middle of 50 x 100
    padded = resize(np.full((50, 100), 200, np.uint8), (40, 40), "pad")
    assert padded[:, 0].tolist() == [0] * 10 + [200] * 20 + [0] * 10
    assert (resize(half, (20, 20), "crop")[:, 1:-1] == 200).all()
    assert (resize(half.T, (30, 30), "crop")[1:-1] == 200).all()
    stretched = resize(half, (10, 20), "stretch")
    assert (stretched[:, :4] == 0).all()
    assert (stretched[:, 6:14] == 200).all()


def test_reduction_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert np.abs(resize(stripes, (8, 8), "stretch").astype(int) - 127).max() < 8


def test_an_image_of_the_right_size_is_not_touched():
    for rule in ("stretch", "pad", "crop"):
        np.testing.assert_array_equal(resize(GREY, GREY.shape, rule), GREY)
