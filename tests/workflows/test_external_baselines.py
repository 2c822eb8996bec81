import numpy as np
import pytest

from cxrnet.data.duplicates.overlap import load_known
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import probabilities_of
from cxrnet.evaluation.prior import Mix
from cxrnet.workflows.evaluate import fit_baselines, predict_baselines

CLASSES = ("Covid", "Normal", "Viral Pneumonia")


@pytest.fixture
def manifest(own_manifest):
    """Three of four images of a class were for training."""
    return own_manifest(lambda number: number % 4 > 0)


@pytest.fixture
def elsewhere(draw, tmp_path, read_external):
    return read_external(draw(tmp_path / "elsewhere", images=6, seed=8), "elsewhere")


def test_both_are_trained_on_the_training_images_of_the_run(manifest, elsewhere):
    uneven = manifest.drop(manifest.index[(manifest["label"] == "Covid") & (manifest["split"] == "train")][:3])
    tables = predict_baselines(fit_baselines(load_known(uneven), CLASSES), elsewhere, Mix())
    train = uneven[uneven["split"] == "train"]["label"].value_counts()
    shares = [train[name] / train.sum() for name in CLASSES]
    np.testing.assert_allclose(probabilities_of(tables["majority"])[0], shares, atol=1e-6)
    assert tables["thumbnail"]["image_id"].tolist() == elsewhere.manifest["image_id"].tolist()
    assert evaluate(tables["thumbnail"])["accuracy"]["value"] > 0.85  # the classes differ in where a bright band lies


def test_training_images_that_are_gone_leave_the_majority_class(manifest, elsewhere):
    gone = manifest.copy()
    gone.loc[gone.index[gone["split"] == "train"][0], "path"] = "/nowhere/x.png"
    baselines = fit_baselines(load_known(gone), CLASSES)
    assert (
        baselines.gap
        == f"no thumbnails, as 1 of {(gone['split'] == 'train').sum()} training images can't be read any more"
    )
    assert list(predict_baselines(baselines, elsewhere, Mix())) == ["majority"]


def test_without_the_run_there_are_none(elsewhere):
    baselines = fit_baselines(None, CLASSES)
    assert baselines.gap == "the images that the bundle was made with are not known"
    assert predict_baselines(baselines, elsewhere, Mix()) == {}
