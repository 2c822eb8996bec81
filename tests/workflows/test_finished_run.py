"""Runs read from folders as ``cxrnet.train`` leaves them, and from tables of other programs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrnet.core.atomic import write_table
from cxrnet.data.manifest import digest, make_manifest, read_manifest, write_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.workflows.compare import check_same_files, named
from cxrnet.workflows.finished_run import read_run
from cxrnet.workflows.run_context import write_facts_of_all

URI = "sqlite:////somewhere/mlflow.db"


def rows(splits=("val", "test"), images: int = 4) -> pd.DataFrame:
    ids = [(split, i) for split in splits for i in range(images)]
    return pd.DataFrame(
        {
            "image_id": [f"{split}/{i}" for split, i in ids],
            "path": [f"{split}/{i}.png" for split, i in ids],
            "label": [("Covid", "Normal")[i % 2] for _, i in ids],
            "split": [split for split, _ in ids],
            "source": "invented",
            "patient_id": None,
        }
    )


def table(**settings) -> pd.DataFrame:
    images = rows(**settings)
    return make_predictions(images, ("Covid", "Normal"), np.zeros((len(images), 2), np.float32))


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    def make(name: str, *overrides: str, hashes: str = "a", **settings) -> Path:
        folder = tmp_path / name
        write_table(table(**settings), folder / "predictions.parquet")
        manifest = make_manifest(rows(**settings).assign(sha256=hashes * 64), "made up")
        write_manifest(manifest, folder / "manifest.parquet")
        command = ["python", "-m", "cxrnet.train", *overrides]
        (folder / "run.json").write_text(
            json.dumps({"command": command, "run_id": f"id of {name}", "tracking_uri": URI})
        )
        (folder / "config.yaml").write_text("seed: 3\nmodel:\n  backbone: vgg16\n")
        phases = [
            {"name": "head", "trained_parameters": 10, "seconds": 2.5},
            {"name": "finetune", "trained_parameters": 90, "seconds": 4.0},
        ]
        facts = {"parameters": 100, "weights": {"origin": "imagenet"}, "phases": phases}
        (folder / "run_facts.json").write_text(json.dumps(facts))
        return folder

    return make


def test_a_folder_tells_what_the_run_was(make_run):
    folder = make_run("one", "model=vgg16", "tracking=none", "data.root=/my/xrays", "trainer.devices=1", "seed=3")
    manifest = make_manifest(rows().assign(sha256=list("abcdefgh")), "made up")  # no image is a duplicate
    write_manifest(manifest, folder / "manifest.parquet")
    run = read_run(folder, URI)
    assert (run.name, run.place, run.run_id) == ("one", str(folder), "id of one")
    assert run.overrides == ["model=vgg16", "data.root=/my/xrays", "trainer.devices=1", "seed=3"]
    assert set(run.table["split"]) == {"test"}
    assert run.facts == {
        "backbone": "vgg16",
        "phases": "head, finetune",
        "parameters": 100,
        "trained parameters": 90,
        "training seconds": 6.5,
        "weights": "imagenet",
        "seed": 3,
        "split": "test",
        "leaked images": 0,
        "manifest digest": digest(manifest)[:12],
    }


def test_the_trivial_baselines_of_a_run_stand_beside_it(make_run):
    folder = make_run("one")
    of = {name: {"balanced_accuracy": {"value": value}} for name, value in (("thumbnail", 0.8954), ("majority", 0.25))}
    (folder / "metrics.json").write_text(json.dumps({"baselines": {"test": of}}))
    facts = read_run(folder, URI).facts
    assert facts["8 × 8 thumbnails: balanced accuracy"] == "0.895"
    assert facts["Majority class: balanced accuracy"] == "0.250"


def test_what_is_not_there_is_left_out(tmp_path):
    write_table(table(), tmp_path / "bare" / "predictions.parquet")
    run = read_run(tmp_path / "bare", URI)
    assert run.facts == {"split": "test"}
    assert (run.overrides, run.run_id, len(run.hashes), run.leaked) == (None, None, 0, None)


def test_a_table_of_another_program_is_a_run_without_facts(make_run, tmp_path):
    folder = make_run("one")
    theirs = table(splits=("test",)).assign(split=pd.NA)
    write_table(theirs, folder / "theirs.csv")
    run = read_run(folder / "theirs.csv", URI)
    assert (run.name, run.facts, run.overrides, run.run_id) == ("theirs", {}, None, None)
    assert len(run.table) == 4


def test_a_place_without_predictions_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CxrnetError, match=r"empty' has no predictions.parquet; give folders of finished runs"):
        read_run(tmp_path / "empty", None)
    with pytest.raises(CxrnetError, match="gone' is neither a folder, a file nor an MLflow run id"):
        read_run(tmp_path / "gone", None)


def names(*folders: Path) -> list[str]:
    return list(named([read_run(folder, None) for folder in folders]))


def test_runs_are_named_by_what_tells_them_apart(make_run):
    assert names(make_run("a", "x=1", "seed=0"), make_run("b", "x=1", "seed=1")) == ["seed=0", "seed=1"]


def test_runs_that_overrides_do_not_tell_apart_have_their_own_names(make_run, tmp_path):
    same = [make_run(name, "x=1") for name in ("a", "b", "deep/b")]
    assert names(*same) == ["a", f"b ({same[1]})", f"b ({same[2]})"]
    write_table(table(), tmp_path / "theirs.csv")
    assert names(make_run("ours", "x=1"), tmp_path / "theirs.csv") == ["ours", "theirs"]


def test_half_a_command_line_is_no_name(make_run):
    different = [f"optimizer.setting_{i}=1" for i in range(6)]
    assert names(make_run("a", "seed=0", *different), make_run("b", "seed=0")) == ["a", "b"]


def test_a_run_is_given_once(make_run):
    folder = make_run("a")
    with pytest.raises(CxrnetError, match="given more than once; give each run once"):
        names(folder, folder.parent / "." / "a")


def test_other_files_of_the_same_name_are_refused(make_run):
    runs = {name: read_run(make_run(name, hashes=name[0]), None) for name in ("a", "a again", "b")}
    check_same_files({name: runs[name] for name in ("a", "a again")})
    words = "'b' and 'a' are tested on different data: 4 of 4 images have the same image_id and other files"
    with pytest.raises(CxrnetError, match=words):
        check_same_files(runs)


def test_leaked_images_follow_from_the_manifest(make_run):
    leaky = make_run("leaky", splits=("train", "val", "test"))  # one hash for all
    clean = make_run("clean", splits=("test",))
    assert read_run(leaky, None).leaked == {f"test/{i}" for i in range(4)}
    assert read_run(leaky, None).facts["leaked images"] == 4
    assert read_run(clean, None).leaked == frozenset()


@pytest.fixture
def make_folds(make_run) -> Callable[..., Path]:
    """A run over folds: every image is a test image, and the manifest knows of no split."""

    def make(name: str, config: str, leaked: int, **settings) -> Path:
        folder = make_run(name, splits=("test",), **settings)
        pooled = table(splits=("test",)).assign(fold=1, leaked=[place < leaked for place in range(4)])
        write_table(pooled, folder / "predictions.parquet")
        manifest = read_manifest(folder / "manifest.parquet")
        write_manifest(manifest.assign(split=pd.NA), folder / "manifest.parquet")
        (folder / "config.yaml").write_text(f"seed: 3\nmodel:\n  backbone: vgg16\n{config}")
        return folder

    return make


def test_over_folds_the_table_says_what_was_leaked(make_folds):
    folds = "folds: 5\nfolds_by: image\nseeds: null\n"
    leaky, clean = (read_run(make_folds(name, folds, leaked), None) for name, leaked in (("leaky", 3), ("clean", 0)))
    assert (leaky.leaked, clean.leaked) == ({"test/0", "test/1", "test/2"}, frozenset())
    check_same_files({"leaky": leaky, "clean": clean})
    other = read_run(make_folds("other", folds, 0, hashes="b"), None)
    with pytest.raises(CxrnetError, match="'other' and 'clean' are tested on different data: 4 of 4 images"):
        check_same_files({"clean": clean, "other": other})


def test_the_column_of_an_older_table_is_read(tmp_path):
    write_table(table(splits=("test",)).assign(fold=1, seen=[True, False, False, False]), tmp_path / "older.parquet")
    assert read_run(tmp_path / "older.parquet", None).leaked == {"test/0"}


def test_a_table_that_says_it_in_words_is_not_asked(make_folds, tmp_path):
    pooled = table(splits=("test",)).assign(leaked="yes")
    write_table(pooled, tmp_path / "theirs.csv")
    assert read_run(tmp_path / "theirs.csv", None).leaked is None


@pytest.mark.parametrize(
    ("config", "seed", "folds"),
    [
        ("folds: 5\nfolds_by: image\nseeds: null\n", 3, "5, by image"),
        ("folds: 5\nfolds_by: patient\nseeds: [1]\n", 1, "5, by patient"),
        ("folds: null\nfolds_by: patient\nseeds: [1]\n", 1, None),
        ("folds: 5\nfolds_by: patient\nseeds: [4, 0]\n", "4, the first of 4, 0", "5, by patient"),
        ("fold: 2\nfolds: 5\nfolds_by: patient\nseeds: [4, 3]\n", 3, "2 of 5, by patient"),  # one of the runs
    ],
)
def test_seeds_and_folds_are_told(make_folds, config, seed, folds):
    facts = read_run(make_folds("run", config, 0), None).facts
    assert (facts["seed"], facts.get("folds")) == (seed, folds)


def test_a_run_over_folds_has_the_facts_of_its_runs(make_run, tmp_path):
    parts = [make_run(f"all/{name}") for name in ("one", "two")]
    write_table(table(), tmp_path / "all" / "predictions.parquet")
    write_facts_of_all(tmp_path / "all", parts, ["python", "-m", "cxrnet.train", "+folds=3"])
    run = read_run(tmp_path / "all", None)
    assert run.overrides == ["+folds=3"]
    names = ("phases", "parameters", "trained parameters", "training seconds", "networks", "weights")
    assert [run.facts[name] for name in names] == ["head, finetune", 100, 90, 13.0, 2, "imagenet"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("run_facts.json", "{"),
        ("run_facts.json", "[1]"),
        ("run_facts.json", '{"phases": [3]}'),
        ("run_facts.json", '{"command": 3}'),
        ("metrics.json", '{"baselines": [1]}'),
        ("config.yaml", "a: ["),
        ("config.yaml", "model: {backbone: '${oc.env:HOME}'}"),
    ],
)
def test_a_damaged_file_of_a_stranger_is_one_line(make_run, file, text):
    folder = make_run("a")
    (folder / file).write_text(text)
    with pytest.raises(CxrnetError, match=rf"{file}"):
        read_run(folder, None)
