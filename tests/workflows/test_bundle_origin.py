import shutil

import numpy as np
import pytest

from cxrnet.core.atomic import write_table
from cxrnet.data.images.store import load_images
from cxrnet.data.manifest import digest, read_manifest, write_manifest
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.prior import Mix, read_mix
from cxrnet.models.bundle import Bundle, save_bundle
from cxrnet.tracking.record import write_record
from cxrnet.workflows.bundle_origin import at_mix, find_origin

CLASSES = ("Covid", "Normal", "Viral Pneumonia")


@pytest.fixture
def run(tmp_path, make_network, xrays):
    """The folder of a run with twelve test images."""
    manifest, _ = load_images(folder(xrays), (32, 32), "stretch", "fail")
    manifest["split"] = (["train", "val", "test"] * 12)[: len(manifest)]
    manifest["split"] = manifest["split"].astype("string")
    place = tmp_path / "run"
    save_bundle(Bundle(make_network(), "stretch", 1.0, {}, digest(manifest), {}, {}), place / "bundle")
    write_manifest(manifest, place / "manifest.parquet")
    rows = manifest[manifest["split"] != "train"]
    logits = np.random.default_rng(0).normal(size=(len(rows), 3)).astype(np.float32)
    write_table(make_predictions(rows, CLASSES, logits), place / "predictions.parquet")
    write_record(place, {"run_id": "a" * 32})
    return place


@pytest.mark.parametrize("inside", ["", "bundle"])
def test_a_bundle_is_found_by_its_run_and_by_itself(run, inside):
    origin = find_origin(str(run / inside), "")
    assert origin.bundle.classes == CLASSES
    assert (len(origin.manifest), len(origin.test), origin.run_id) == (36, 12, "a" * 32)
    assert set(origin.test["split"]) == {"test"}


def test_beside_a_bundle_that_was_moved_nothing_is_known(run, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "elsewhere" / "bundle")
    origin = find_origin(str(tmp_path / "elsewhere" / "bundle"), "")
    assert (origin.manifest, origin.test, origin.run_id) == (None, None, None)


def test_a_manifest_of_other_data_is_not_taken_for_the_bundles(run, make_network):
    other = Bundle(make_network(), "stretch", 1.0, {}, "another digest", {}, {})
    save_bundle(other, run / "bundle")
    origin = find_origin(str(run), "")
    assert (origin.manifest, origin.test) == (None, None)


def test_internal_test_images_that_were_seen_are_left_out(run, make_network):
    manifest = read_manifest(run / "manifest.parquet")
    names = {split: manifest.loc[manifest["split"] == split, "image_id"].iloc[0] for split in ("train", "test")}
    manifest["group_id"] = manifest["group_id"].mask(manifest["image_id"].isin(names.values()), "twice")
    write_manifest(manifest, run / "manifest.parquet")
    save_bundle(Bundle(make_network(), "stretch", 1.0, {}, digest(manifest), {}, {}), run / "bundle")
    origin = find_origin(str(run), "")
    assert (len(origin.test), origin.seen) == (11, 1)
    assert names["test"] not in set(origin.test["image_id"])


@pytest.mark.parametrize("place", ["nowhere", "0123abc"])
def test_what_is_no_bundle_is_said(place, tmp_path):
    with pytest.raises(CxrnetError, match=f"bundle: '{place}' is no folder and no id of an MLflow run; give one"):
        find_origin(place, "")
    with pytest.raises(CxrnetError, match=r"has no bundle\.json; give the folder 'bundle' of a finished run"):
        find_origin(str(tmp_path), "")
    with pytest.raises(CxrnetError, match="there is no MLflow at"):
        find_origin("0" * 32, f"sqlite:///{tmp_path}/none.db")


def test_the_internal_result_is_carried_over_to_the_prior_too(run):
    origin, trained = find_origin(str(run), ""), dict.fromkeys(CLASSES, 1 / 3)
    mix = read_mix({"Covid": 0.01}, trained)
    other = at_mix(origin, mix)
    assert other.test["image_id"].equals(origin.test["image_id"])
    assert other.test["label"].equals(origin.test["label"])
    odds = [table["prob_Covid"] / (1 - table["prob_Covid"]) for table in (origin.test, other.test)]
    np.testing.assert_allclose(odds[1] / odds[0], 2 * 0.01 / 0.99, rtol=1e-4)
    assert (other.test["predicted"] == "Covid").sum() < (origin.test["predicted"] == "Covid").sum()
    assert at_mix(origin, Mix(trained)) is origin
