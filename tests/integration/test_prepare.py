"""``python -m cxrnet.prepare`` as a user types it."""

import html
import re
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


def test_the_page_shows_the_images_the_conflict_and_the_verdict(prepared, phone, check_standalone):
    folder, said = prepared
    page = (folder / "data_report.html").read_text(encoding="utf-8")
    check_standalone(page)
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.split("<body>")[1].replace("<wbr>", ""))))
    verdict, _, rest = text.partition("Images and patients")
    assert "2 images are duplicates with different labels" in verdict
    assert "can't be told: all are of source 'my xrays'" in verdict
    for words in (
        "Covid: 12 of 12 images",
        "Duplicates with different labels: 1 pair",
        "Normal/copy.png · Normal · ",
        "Not known of any image: view, sex, age.",
        "PNG, L 12 12 13 37",  # files by class, and all
        "python -m cxrnet.prepare data=folder",
    ):
        assert words in rest, words
    pictures = 12 + 12 + 12 + 2 + 2  # sheets, the pair, two plots
    doubted = len(pd.read_csv(folder / "doubted_labels.csv")) if (folder / "doubted_labels.csv").exists() else 0
    shown = pictures + min(doubted, 24)
    assert phone(page) == f"hidden 0 px, seen {shown} of {shown}"
    assert "warning      2 images are duplicates with different labels" in said


def test_pictures_stay_in_the_house(workplace, tmp_path, command):
    images = f"data.root={workplace / 'my xrays'}"
    done = command(tmp_path, "prepare", "data=folder", images, "data.size=[32,32]", "report.images=0", "weights=none")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "prepared").iterdir()
    page = (folder / "data_report.html").read_text(encoding="utf-8")
    assert "image/jpeg" not in page
    assert "Pictures are left out (report.images=0)" in page
    assert {path.name for path in folder.glob("*.png")} == {"class_distribution.png", "image_sizes.png"}
    assert "no picture of an X-ray was written" in done.stdout


def test_fixes_leave_no_leak_and_training_with_them_says_so(tmp_path, draw, command):
    root = draw(tmp_path / "xrays", classes=("Covid", "Normal"), images=20)
    for split, numbers in {"train": range(10), "val": range(10, 15), "test": range(15, 20)}.items():
        for name in ("Covid", "Normal"):
            (root / split / name).mkdir(parents=True)
            for number in numbers:
                (root / name / f"{number:02d}.png").rename(root / split / name / f"{number:02d}.png")
    for name in ("Covid", "Normal"):
        (root / name).rmdir()
    shutil.copy(root / "train/Covid/00.png", root / "test/Covid/leak.png")
    shutil.copy(root / "train/Covid/01.png", root / "val/Covid/leak.png")
    shutil.copy(root / "train/Covid/02.png", root / "train/Normal/conflict.png")
    Image.new("L", (40, 48), 255).save(root / "train/Normal/blank.png")
    before = sorted(path for path in root.rglob("*.png"))
    small = ("data=folder", "data.root=xrays", "data.size=[32,32]")
    fix = "fix={drop_leaked_test: true, regroup: true, drop_conflicts: true, drop_decoys: true}"
    done = command(tmp_path, "prepare", *small, "weights=none", fix)
    assert done.returncode == 0, done.stderr
    assert "1 of 11 test images have a duplicate in train or val" in done.stdout
    (folder,) = (tmp_path / "outputs" / "prepared").iterdir()
    fixes = pd.read_csv(folder / "fixes.csv").set_index("image_id")
    assert fixes["action"].value_counts().to_dict() == {"kept": 39, "dropped": 4, "regrouped": 1}
    assert fixes.loc["val/Covid/leak.png", "action"] == "regrouped"
    assert "dropped      4 of 44 images" in done.stdout
    assert fixes["reason"].notna().all()
    assert "What the fixes do" in (folder / "data_report.html").read_text(encoding="utf-8")
    assert sorted(path for path in root.rglob("*.png")) == before

    _, _, command_name, *line = shlex.split(done.stdout.strip().splitlines()[-1])
    assert "manifest_fixed.parquet" in " ".join(line)
    quick = ("model=custom_cnn", "trainer=cpu", "schedule.max_epochs=1", "tracking=none", "evaluation.resamples=0")
    trained = command(tmp_path, command_name.removeprefix("cxrnet."), *line, *quick)
    assert trained.returncode == 0, trained.stderr
    assert "duplicate" not in trained.stdout
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Covid: most" in report
    assert len(report) < 8_000_000


def test_data_that_cannot_be_trained_on_are_looked_at_all_the_same(tmp_path, draw, command):
    draw(tmp_path / "one class", classes=("Covid",), images=3)
    one = ("data=folder", "data.root=one class", "data.size=[32,32]", "weights=none", "augment=none")
    done = command(tmp_path, "prepare", *one)
    assert done.returncode == 0, done.stderr
    assert "warning      it can't be trained on as it is: data: only one class ('Covid')" in done.stdout
    assert "To train with this very split" not in done.stdout
    (folder,) = (tmp_path / "outputs" / "prepared").iterdir()
    page = (folder / "data_report.html").read_text(encoding="utf-8")
    for words in (
        "only one class",
        "There is no result: only 'Covid' has images",
        "doubted: only 'Covid' has images",
        "The images have no split",
    ):
        assert words in html.unescape(page), words
    refused = command(tmp_path, "prepare", *one, "fix={regroup: true}")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: fix: the data can't be split")
    assert refused.stderr.count("\n") == 1


def test_three_images_have_a_page_and_unreadable_ones_are_counted(tmp_path, draw, command):
    root = draw(tmp_path / "few", classes=("Covid", "Normal"), images=2)
    (root / "Covid/01.png").unlink()
    (root / "Normal/02.png").write_bytes(b"no image")
    done = command(
        tmp_path, "prepare", "data=folder", "data.root=few", "data.size=[32,32]", "weights=none", "data.on_error=skip"
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "1 of 4 images could not be read",
        "it can't be trained on as it is: data.split: class 'Covid' has 1",
    ):
        assert words in done.stdout
    (folder,) = (tmp_path / "outputs" / "prepared").iterdir()
    assert "1 images could not be read" in (folder / "data_report.html").read_text(encoding="utf-8")


def test_an_unknown_fix_is_refused_in_one_line(workplace, command):
    done = command(workplace, "prepare", "data=folder", "data.root=my xrays", "fix={drop_leaks: true}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: fix.drop_leaks: no such key")
    assert done.stderr.count("\n") == 1


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
