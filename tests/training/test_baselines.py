import numpy as np
import pytest

from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import probabilities_of
from cxrnet.training.baselines import baseline_predictions, thumbnails


def test_majority_gives_every_image_the_frequencies_of_training(make_data, xrays):
    from cxrnet.data.sources.folder import folder

    manifest = folder(xrays)
    data = make_data(manifest=manifest.drop(manifest.index[manifest["label"] == "Covid"][:6]))
    predictions = baseline_predictions(data, "test")["majority"]
    shares = np.array(data.counts("train")) / sum(data.counts("train"))
    np.testing.assert_allclose(probabilities_of(predictions), np.tile(shares, (len(predictions), 1)), atol=1e-6)
    assert predictions["predicted"].nunique() == 1
    assert evaluate(predictions)["roc_auc_macro"]["value"] == pytest.approx(0.5)


def test_thumbnails_learn_brightness(make_data):
    data = make_data()
    predictions = baseline_predictions(data, "test")["thumbnail"]
    assert predictions["image_id"].tolist() == data.rows("test")["image_id"].tolist()
    assert evaluate(predictions)["accuracy"]["value"] > 0.85  # the classes differ in where a bright band lies


def test_classes_in_an_order_of_ones_own(make_data):
    data = make_data(classes=["Viral Pneumonia", "Covid", "Normal"])
    predictions = baseline_predictions(data, "val")
    assert [name for name in predictions["thumbnail"].columns if name.startswith("prob_")] == [
        "prob_Viral Pneumonia",
        "prob_Covid",
        "prob_Normal",
    ]
    assert evaluate(predictions["thumbnail"])["accuracy"]["value"] > 0.85


def test_a_thumbnail_holds_the_means_of_its_boxes():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 32), np.uint8)
    expected = images.reshape(3, 8, 8, 8, 4).mean(axis=(2, 4)).reshape(3, 64)
    assert np.abs(thumbnails(images) - expected).max() <= 1  # grey values are whole numbers, rounded twice
