"""``python -m cxrnet.prepare`` as a user types it."""

import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.manifest import read_manifest


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, draw) -> Path:
    """Class folders with one image that stands in two of them."""
    folder = tmp_path_factory.mktemp("work place")
    images = draw(folder / "my xrays")
    shutil.copy(images / "Covid" / "00.png", images / "Normal" / "copy.png")
    return folder


@pytest.fixture(scope="module")
def prepared(workplace, command) -> tuple[Path, str]:
    order = "data.classes=[Viral Pneumonia,Covid,Normal]"
    done = command(workplace, "prepare", "data=folder", "data.root=my xrays", "data.size=[32,24]", order)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder,) = (workplace / "outputs" / "prepared").iterdir()
    return folder, done.stdout


def test_everything_that_prepare_promises_is_in_its_folder(prepared):
    folder, _ = prepared
    assert folder.name.endswith("_folder")
    for name in ("class_distribution", "samples", "augmented", "image_sizes"):
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 200, name
    manifest = read_manifest(folder / "manifest.parquet")
    pd.testing.assert_frame_equal(read_manifest(folder / "manifest.csv"), manifest)
    assert manifest[["split", "width", "height", "sha256"]].notna().all(axis=None)
    assert manifest["group_id"].notna().sum() == 2
    distribution = pd.read_csv(folder / "class_distribution.csv")
    assert distribution["images"].sum() == 2 * len(manifest) == 2 * 37
    assert pd.read_csv(folder / "image_sizes.csv")["images"].tolist() == [12, 13, 12]
    assert not list(folder.glob("*.partial"))


def test_what_is_wrong_is_said_and_written(prepared):
    folder, said = prepared
    (pair,) = pd.read_csv(folder / "duplicates.csv").to_dict("records")
    assert (pair["kind"], pair["label_differs"], pair["split_differs"]) == ("same file", True, False)
    listed = pd.read_csv(folder / "label_conflicts.csv")
    assert listed["image_id"].tolist() == ["Covid/00.png", "Normal/copy.png"]
    assert listed["label"].tolist() == ["Covid", "Normal"]
    notes = pd.read_csv(folder / "notes.csv")["note"].tolist()
    for text in ("2 images are duplicates with different labels", "patients are not known"):
        assert text in said
        assert any(text in note for note in notes)


def test_the_console_shows_the_distribution_in_class_order(prepared):
    _, said = prepared
    rows = [line.split() for line in said.split("Images (patients)")[1].splitlines()]
    names = [row[0] for row in rows if row and row[-1].isdigit()]
    assert names == ["Viral", "Covid", "Normal", "all"]


def test_training_on_the_line_it_prints_keeps_the_split_and_the_class_order(prepared, workplace, command):
    folder, said = prepared
    python, module, *line = shlex.split(said.strip().splitlines()[-1])
    assert (python, module) == ("python", "-m")
    small = ("model=custom_cnn", "trainer=cpu", "schedule.max_epochs=1", "tracking=none")
    done = command(workplace, line.pop(0).removeprefix("cxrnet."), *line, *small)
    assert done.returncode == 0, done.stderr
    (run,) = (workplace / "outputs" / "runs").iterdir()
    assert not (workplace / "outputs" / "mlflow.db").exists()  # tracking=none
    before, after = (read_manifest(place / "manifest.parquet") for place in (folder, run))
    pd.testing.assert_frame_equal(before, after)
    classes = [name for name in pd.read_parquet(run / "predictions.parquet").columns if name.startswith("prob_")]
    assert classes == ["prob_Viral Pneumonia", "prob_Covid", "prob_Normal"]


def test_a_users_mistake_is_one_line(workplace, command):
    done = command(workplace, "prepare", "data=folder")
    assert done.returncode == 2
    assert done.stderr == "error: data.root: no value is set; give data.root=<value>\n"


def test_without_augmentation_there_is_no_picture_of_it(workplace, tmp_path, command):
    images = f"data.root={workplace / 'my xrays'}"
    done = command(tmp_path, "prepare", "data=folder", images, "augment=none", "data.limit=3")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "prepared").iterdir()
    assert not (folder / "augmented.png").exists()
    assert "nothing to show on augmented.png" in done.stdout
    assert "no more than 3 images of each class in each split" in done.stdout
