"""The pictures of a run: which images are shown, and what is said of them."""

import numpy as np
import pytest
import torch

from cxrnet.data.augment import geometric
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.reporting.data_pictures import Looks
from cxrnet.reporting.pictures import picture
from cxrnet.reporting.run_pictures import VIEWS, chosen_images, result_groups, run_pictures

AUGMENT = geometric(flip=0, degrees=20, translate=0, shear=0, zoom=0, distortion=0)


@pytest.fixture
def data(make_data):
    return make_data(augment=AUGMENT)


@pytest.fixture
def predictions(data):
    """Of nine test images, three a class: all of Covid right, one of Normal, none of Viral Pneumonia."""
    rows = data.rows("test")
    logits = np.zeros((9, 3), np.float32)
    for name, predicted in {"Covid": (0, 0, 0), "Normal": (0, 0, 1), "Viral Pneumonia": (1, 0, 1)}.items():
        for place, column in zip(np.flatnonzero(rows["label"] == name), predicted, strict=True):
            logits[place, column] = 1.0 + place
    return make_predictions(rows, data.classes, logits)


def test_the_surest_errors_and_hits_of_each_class_are_chosen(predictions):
    chosen = chosen_images(predictions, 2)
    counts = chosen.groupby(["label", "hit"]).size().to_dict()
    assert counts == {("Covid", True): 2, ("Normal", False): 2, ("Normal", True): 1, ("Viral Pneumonia", False): 2}
    for _, part in chosen.groupby(["label", "hit"]):
        assert part["probability"].is_monotonic_decreasing
    surest = predictions.iloc[8]
    assert chosen.iloc[-2]["image_id"] == surest["image_id"]
    assert chosen.iloc[-2]["probability"] == surest["prob_Normal"]


def test_each_picture_has_file_label_prediction_and_probability(data, predictions):
    looks = Looks(data.manifest, data.images, as_trained=True)
    overlay = picture(np.zeros((32, 32, 3), np.uint8), "what the network looks at")
    wrong = predictions[predictions["label"] == "Normal"].iloc[0]["image_id"]
    groups = {group.title: group for group in result_groups(predictions, looks, 2, {wrong: overlay})}
    assert groups["Covid: most confident errors"].note == "No image of this class was predicted wrongly."
    assert groups["Viral Pneumonia: most typical hits"].note == "No image of this class was predicted rightly."
    errors = groups["Normal: most confident errors, 2 of 2"]
    assert [len(figure.pictures) for figure in errors.figures] == [1, 2]  # beside the one with an overlay
    for figure in errors.figures:
        name, label, said = figure.lines
        row = predictions.set_index("image_id").loc[name]
        assert label == "label Normal"
        assert said == f"predicted Covid, {row['prob_Covid']:.3f}"


def test_a_run_shows_duplicates_and_augmented_samples(data, predictions):
    state = torch.get_rng_state()
    shown = run_pictures(data, predictions, 4, "geometric(degrees=20)")
    assert torch.equal(torch.get_rng_state(), state)
    *_, duplicates, augmented = shown.groups
    assert duplicates.note == "No duplicates were found among the images."
    assert augmented.note == "Augmentation: geometric(degrees=20)."
    assert [len(figure.pictures) for figure in augmented.figures] == [1 + VIEWS] * 4
    assert len({figure.lines[1] for figure in augmented.figures[:3]}) == 3  # classes in turn
    assert len({picture.source for picture in augmented.figures[0].pictures}) > 1


def test_without_augmentation_there_are_no_samples_of_it_and_without_pictures_none_at_all(data, predictions):
    unused = run_pictures(data, predictions, 4, "none, as the head was trained on the images themselves")
    assert unused.groups[-1].figures == ()
    assert unused.groups[-1].note == "Augmentation: none, as the head was trained on the images themselves."
    none = run_pictures(data, predictions, 0, "geometric(degrees=20)")
    assert none.groups == ()
    assert "report.images=0" in none.note
