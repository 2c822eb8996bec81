"""The looks of an audit, on small images without and with lungs."""

import numpy as np
import pandas as pd
import pytest
import torch

from cxrnet.data.images.reader import Images
from cxrnet.data.regions import Masks, lung_box
from cxrnet.evaluation.audit import BORDER, LUNGS_OUT, OUTLINE, WHOLE, Sampling, findings
from cxrnet.models.bundle import Bundle
from cxrnet.workflows.looks import AuditImages, Model, model_looks, probe_looks, telling_corner

SAMPLING = Sampling(100, 0, 0.95)
N, SIDE = 120, 32


@pytest.fixture
def model(make_network) -> Model:
    bundle = Bundle(make_network(classes=("covid", "normal")).eval(), "stretch", 1.0, {}, "", {}, {})
    return Model.of(bundle, 32, torch.device("cpu"))


@pytest.fixture
def make_images():
    """Makes images of which those of covid have a marker at the top right, and masks of some of them."""

    def make(with_masks: int = 0, classes=("covid", "normal"), marker: bool = True) -> AuditImages:
        random = np.random.default_rng(0)
        pixels = random.integers(80, 120, (N, SIDE, SIDE), np.uint8)
        labels = [classes[row // 2 % len(classes)] for row in range(N)]
        if marker:
            for image, label in zip(pixels, labels, strict=True):
                if label == "covid":
                    image[1:5, 27:31] = 250
        names = [f"{row}.png" for row in range(N)]
        columns = {"image_id": names, "path": names, "label": labels, "split": "test", "source": "one", "view": pd.NA}
        patients = {"patient_id": [f"p{row // 2}" for row in range(N)], "group_id": pd.NA, "sha256": names}
        rows = pd.DataFrame({**columns, **patients}).astype("string").assign(width=SIDE, height=SIDE)
        masks = np.zeros((N, SIDE, SIDE), bool)
        masks[:with_masks] = np.pad(np.ones((12, 20), bool), ((8, 12), (6, 6)))
        lungs = Masks(masks, masks.any(axis=(1, 2)), "masks", [])
        if not with_masks:
            box = np.broadcast_to(lung_box((SIDE, SIDE)), masks.shape)
            lungs = Masks(box, np.ones(N, bool), "box", [])
        images = Images.all_of(pixels)
        return AuditImages(rows, images, images, lungs)

    return make


def test_a_marker_is_found_by_the_probes_and_its_corner_is_named(make_images, model):
    data = make_images()
    found = probe_looks(data, model, SAMPLING)
    assert {"corners only", BORDER, "acquisition"} <= {look.name for look in findings(found.looks, 0.95)}
    assert telling_corner(data, model, SAMPLING, "normal") == "top right"
    assert found.gaps == [
        "no probe of the source: it is 'one' for all images",
        "no probe of the view: it is not known of any image",
    ]


def test_without_a_marker_nothing_is_found(make_images, model):
    data = make_images(marker=False)
    assert not findings(probe_looks(data, model, SAMPLING).looks, 0.95)
    assert not findings(model_looks(data, model, SAMPLING)[0].looks, 0.95)


def test_lungs_are_looked_at_where_they_are_known_beside_the_same_images(make_images, model):
    data = make_images(with_masks=80)
    looks = probe_looks(data, model, SAMPLING).looks
    assert {look.name: look.n for look in looks if look.name in (LUNGS_OUT, OUTLINE, BORDER)} == {
        LUNGS_OUT: 80,
        OUTLINE: 80,
        BORDER: 120,
    }
    assert [look.n for look in looks if look.name == WHOLE] == [80, 120]
    found, changes = model_looks(data, model, SAMPLING)
    assert {look.n for look in found.looks if look.kind == "model" and look.name == LUNGS_OUT} == {80}
    n = changes[changes["metric"] == "sensitivity"].groupby("intervention")["n"].sum()
    assert (n["lungs out"], n["blur"]) == (80, 120)


def test_too_few_masks_and_one_class_are_gaps(make_images, model):
    found = probe_looks(make_images(with_masks=2), model, SAMPLING)  # one patient
    assert any(gap.startswith("no probes of the lungs: ") for gap in found.gaps)
    assert any(look.name == BORDER for look in found.looks)
    alone = make_images(classes=("covid",))
    assert probe_looks(alone, model, SAMPLING).gaps == ["no probes: only 'covid' has images; two classes are needed"]
    assert "nothing was planted: all images are of covid" in model_looks(alone, model, SAMPLING)[0].gaps


def test_a_class_of_one_patient_is_left_out_of_the_probes_and_it_is_said(make_images, make_network):
    bundle = Bundle(make_network(classes=("covid", "normal", "rare")).eval(), "stretch", 1.0, {}, "", {}, {})
    data = make_images()
    data.rows.loc[:1, "label"] = "rare"
    found = probe_looks(data, Model.of(bundle, 32, torch.device("cpu")), SAMPLING)
    assert "no probes of rare: all its images are of one patient, or duplicates" in found.gaps
    assert {look.label for look in findings(found.looks, 0.95)} == {"covid", "normal"}
    assert {look.reason for look in found.looks if look.label == "rare"} == {"no image is labelled rare"}
