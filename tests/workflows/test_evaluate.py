"""Bundle, baselines and options of an evaluation on external data; the whole is in tests/integration."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from cxrnet.cli.app import compose_config, config_folder
from cxrnet.cli.command_line import typed_words
from cxrnet.core.atomic import write_table
from cxrnet.core.config import plain_config
from cxrnet.data.external import load_known, without_strange
from cxrnet.data.images.store import load_images
from cxrnet.data.manifest import digest, read_manifest, write_manifest
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError
from cxrnet.evaluate import hydra_words
from cxrnet.evaluation.decision import Mix
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import make_predictions, probabilities_of
from cxrnet.models.bundle import Bundle, save_bundle
from cxrnet.reporting.external import data_facts, data_warnings
from cxrnet.tracking.record import write_record
from cxrnet.training.baselines import fit_baselines
from cxrnet.workflows.evaluate import _judged, evaluate_external, find_origin, set_configs
from cxrnet.workflows.settings import Evaluate

CLASSES = ("Covid", "Normal", "Viral Pneumonia")


def composed(*words: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return compose("evaluate", hydra_words(["bundle=x", *words]))


def configured(*words: str, option: str | None = None) -> dict:
    return {each.name: each for each in set_configs(plain_config(composed(*words)), option)}


def test_data_and_external_sets_by_the_names_of_their_options():
    sets = configured(
        "data=covid_chestxray",
        "data.root=a",
        "+external=[covid19_image,folder]",
        "sets.covid19_image.root=b",
        "sets.folder.root=c d",
        "sets.folder.on_error=skip",
        "classes.folder={1: Covid}",
        option="covid_chestxray",
    )
    assert [each.key for each in sets.values()] == ["data", "sets.covid19_image", "sets.folder"]
    assert [each.data["manifest"]["root"] for each in sets.values()] == ["a", "b", "c d"]
    assert [each.data["on_error"] for each in sets.values()] == ["fail", "fail", "skip"]
    assert sets["folder"].classes == {"1": "Covid"}


@pytest.mark.parametrize("word", ["classes={folder: {1: Covid}}", "classes.folder={1: Covid}"])
def test_classes_of_a_data_set(word):
    plain = plain_config(compose_config(Evaluate, hydra_words(typed_words(["bundle=x", word]))))
    assert plain["classes"] == {"folder": {"1": "Covid"}}


def test_a_data_set_of_ones_own():
    manifest = "{_target_: x, root: b, labels: {1: Covid}}"
    sets = configured(*typed_words([f"sets={{mine: {{root: a, manifest: {manifest}, split: {{_target_: y}}}}}}"]))
    assert (sets["mine"].data["root"], sets["mine"].data["manifest"]["labels"]) == ("a", {"1": "Covid"})


def test_one_option_may_serve_several_data_sets():
    sets = configured("external={north: folder, south: folder}", "sets.north.root=n", "sets={south: {root: s}}")
    assert {name: each.data["manifest"]["root"] for name, each in sets.items()} == {"north": "n", "south": "s"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data: nothing to evaluate on; give data=<option> or"),
        (["+external=phantom"], r"external: phantom won't do; give options of data, as \[a, b\], or names"),
        (["+external=[phantom,phantom]"], "external: .* won't do"),
        (["+external={a/b: phantom}"], "external: 'a/b' is no name for a folder"),
        (["+external=[phantom]", "classes.other={a: b}"], "classes.other: there is no such data set; .* phantom"),
        (["+external=[phantom]", "classes.phantom=COVID"], "classes.phantom: COVID won't do; give {label: class}"),
        (["+external=[phantom]", "sets.phantom.limit=3"], "sets.phantom.limit: means nothing here; .* root, manifest"),
        (["data=phantom", "data.limit=3"], r"data\.limit: means nothing here"),
    ],
)
def test_what_means_nothing_is_said(words, message):
    with pytest.raises(CxrnetError, match=message) as caught:
        configured(*words)
    assert "\n" not in str(caught.value)


def test_two_data_sets_of_one_name_are_refused():
    with pytest.raises(CxrnetError, match="external: 'phantom' is the data set of data too"):
        configured("data=phantom", "+external=[phantom]", option="phantom")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("device=toaster", "device: 'toaster' can't be used here"),
        ("bundle=nowhere", "bundle: 'nowhere' is no folder, no id of an MLflow run and no"),
    ],
)
def test_a_mistake_leaves_no_run_behind(word, message, tmp_path):
    with pytest.raises(CxrnetError, match=message):
        evaluate_external(composed("data=phantom", f"outputs={tmp_path}", word), tmp_path, "phantom", [])
    assert not list(tmp_path.glob("*.db"))
    assert not (tmp_path / "run.json").exists()


@pytest.fixture
def run(tmp_path, make_network, xrays):
    """The folder of a run with twelve test images."""
    manifest, _ = load_images(folder(xrays), (32, 32), "stretch", "fail")
    manifest["split"] = (["train", "val", "test"] * 12)[: len(manifest)]
    manifest["split"] = manifest["split"].astype("string")
    place = tmp_path / "run"
    trained = dict.fromkeys(CLASSES, 1 / 3)
    save_bundle(Bundle(make_network(), "stretch", 1.0, {}, digest(manifest), {}, {}, prior=trained), place / "bundle")
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


def test_a_moved_bundle_and_one_beside_other_data_have_no_origin(run, make_network, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "elsewhere" / "bundle")
    origin = find_origin(str(tmp_path / "elsewhere" / "bundle"), "")
    assert (origin.manifest, origin.test, origin.run_id) == (None, None, None)
    save_bundle(Bundle(make_network(), "stretch", 1.0, {}, "another digest", {}, {}), run / "bundle")
    origin = find_origin(str(run), "")
    assert (origin.manifest, origin.test) == (None, None)


def test_leaked_internal_test_images_are_left_out(run, make_network):
    manifest = read_manifest(run / "manifest.parquet")
    names = {split: manifest.loc[manifest["split"] == split, "image_id"].iloc[0] for split in ("train", "test")}
    manifest["group_id"] = manifest["group_id"].mask(manifest["image_id"].isin(names.values()), "twice")
    write_manifest(manifest, run / "manifest.parquet")
    save_bundle(Bundle(make_network(), "stretch", 1.0, {}, digest(manifest), {}, {}), run / "bundle")
    origin = find_origin(str(run), "")
    assert (len(origin.test), origin.leaked) == (11, 1)
    assert names["test"] not in set(origin.test["image_id"])


def test_what_is_no_bundle_is_said(tmp_path):
    with pytest.raises(CxrnetError, match="bundle: '0123abc' is no folder, no id of an MLflow run and no registered"):
        find_origin("0123abc", "")
    with pytest.raises(CxrnetError, match=r"has no bundle\.json; give the folder 'bundle' of a finished run"):
        find_origin(str(tmp_path), "")
    with pytest.raises(CxrnetError, match="there is no MLflow at"):
        find_origin("0" * 32, f"sqlite:///{tmp_path}/none.db")


def test_the_internal_result_is_carried_over_to_the_prior_too(run):
    origin, other = (find_origin(str(run), "", prior) for prior in (None, {"Covid": 0.01}))
    assert other.test[["image_id", "label"]].equals(origin.test[["image_id", "label"]])
    odds = [table["prob_Covid"] / (1 - table["prob_Covid"]) for table in (origin.test, other.test)]
    np.testing.assert_allclose(odds[1] / odds[0], 2 * 0.01 / 0.99, rtol=1e-4)
    assert (other.test["predicted"] == "Covid").sum() < (origin.test["predicted"] == "Covid").sum()


@pytest.fixture
def manifest(own_manifest):
    """Three of four images of a class were for training."""
    return own_manifest(lambda number: number % 4 > 0)


@pytest.fixture
def elsewhere(draw, tmp_path, read_external):
    return read_external(draw(tmp_path / "elsewhere", images=6, seed=8), "elsewhere")


def test_both_baselines_are_trained_on_the_training_images_of_the_run(manifest, elsewhere):
    uneven = manifest.drop(manifest.index[(manifest["label"] == "Covid") & (manifest["split"] == "train")][:3])
    tables = fit_baselines(load_known(uneven), CLASSES).predict(elsewhere, Mix())
    train = uneven[uneven["split"] == "train"]["label"].value_counts()
    shares = [train[name] / train.sum() for name in CLASSES]
    np.testing.assert_allclose(probabilities_of(tables["majority"])[0], shares, atol=1e-6)
    assert tables["thumbnail"]["image_id"].tolist() == elsewhere.manifest["image_id"].tolist()
    assert evaluate(tables["thumbnail"])["accuracy"]["value"] > 0.85  # the classes differ in where a bright band lies


def test_images_that_the_gate_turns_away_are_left_out_counted_and_told(bundle, gated, read_external, xrays):
    each = read_external(xrays)
    gated_bundle, _ = gated(bundle)
    strict, open_wide = (
        replace(gated_bundle, gate=replace(gated_bundle.gate, limits=limits)) for limits in ((-99, -99), (1e9, 1e9))
    )
    config = {"gate": True, "batch_size": 8, "device": "cpu"}
    (left,), logits = _judged([each], open_wide, config)
    assert (left.turned_away, len(left.manifest), logits["north"].shape) == (0, 36, (36, 3))
    with pytest.raises(CxrnetError, match=r"north: no image is left: of each it does not look like a frontal chest"):
        _judged([each], strict, config)
    (same,), _ = _judged([each], strict, config | {"gate": False})
    assert (same.turned_away, len(same.manifest)) == (None, 36)
    left = without_strange(each, np.arange(36) < 10, "is odd")
    assert (len(left.manifest), len(left.images), len(left.small), left.turned_away) == (26, 26, 26, 10)
    assert data_facts(left)["gate"].startswith("10 turned away")
    assert "10 of 36 images were turned away by the bundle's gate" in data_warnings([left])[-1]
