"""Interventions: one thing changes, and the images that were given don't."""

import numpy as np
import pytest

from cxrnet.data.interventions import ON_ALL, blacked_out, choose_donors, kept_only, planted, without_markers
from cxrnet.data.phantom.render import stamp
from cxrnet.data.regions import all_corners


@pytest.fixture
def images() -> np.ndarray:
    """Smooth images, as radiographs are away from their letters."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96] / 96
    phases = random.uniform(0, 6, (3, 2, 1, 1))
    smooth = 110 + 50 * np.sin(3 * rows + phases[:, 0]) + 40 * np.cos(4 * columns + phases[:, 1])
    return smooth.astype(np.uint8)


@pytest.mark.parametrize("name", list(ON_ALL))
def test_every_intervention_changes_copies(images, name):
    before = images.copy()
    changed = ON_ALL[name](images)
    assert changed.shape == images.shape
    assert changed.dtype == np.uint8
    assert (images == before).all()
    if name != "corner markers out":
        assert (changed != images).any()


def test_lungs_out_and_lungs_only_are_the_two_parts_of_an_image(images):
    masks = np.random.default_rng(1).random(images.shape) < 0.5
    out, only = blacked_out(images, masks), kept_only(images, masks)
    assert not out[masks].any()
    assert not only[~masks].any()
    assert (out + only == images).all()


def test_a_marker_goes_and_the_rest_hardly_changes(images):
    marked = images.copy()
    for image in marked:
        grey = image / 255
        stamp(grey, "AP", (0.8, 0.04, 0.07))
        image[:] = np.rint(255 * grey).astype(np.uint8)
    corner = (slice(None), slice(0, 19), slice(77, 96))
    assert marked[corner].max() > 230
    clean = without_markers(marked)
    assert np.abs(clean[corner].astype(int) - images[corner].astype(int)).mean() < 10
    assert (clean[:, 20:76, 20:76] == marked[:, 20:76, 20:76]).all()
    assert np.abs(without_markers(images).astype(int) - images.astype(int)).mean() < 2


def test_a_region_of_another_image_is_planted(images):
    region = all_corners((96, 96))
    changed = planted(images[:1], images[1:2], region)
    assert (changed[0][region] == images[1][region]).all()
    assert (changed[0][~region] == images[0][~region]).all()


def test_donors_are_of_the_class_and_of_another_patient():
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    patients = np.array([0, 0, 1, 2, 2, 3, 3])
    for seed in range(20):
        donors = choose_donors(labels, patients, np.ones(7, np.int64), seed)
        assert (labels[donors] == 1).all()
        assert (patients[donors] != patients).all()
    lonely = choose_donors(np.array([0, 1]), np.array([0, 1]), np.array([0, 1]), 0)
    assert lonely.tolist() == [0, 1]  # no other image of the class: the image itself
