import logging

import pytest

from cxrnet.data.sources.labelled_names import labelled_names
from cxrnet.errors import CxrnetError

LABELS = {"covid": "COVID-19", "normal": "Normal"}
FOLDERS = {"train": "train", "test": "val", "predict": "test"}


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def labels_of(manifest):
    return dict(zip(manifest["image_id"], manifest["label"], strict=True))


def test_the_published_folders(tmp_path):
    """Classes by folder in train and test, by the beginning of the name in predict."""
    root = make(tmp_path / "detector", "train/covid/a.png", "train/normal/b.jpeg", "test/Normal cases/deep/c.png")
    make(root, "test/covid/d.png", "predict/covid_12.png", "predict/normal (3).jpg")
    manifest = labelled_names(root, LABELS, FOLDERS).set_index("image_id")
    assert manifest["label"].to_dict() == {
        "predict/covid_12.png": "COVID-19",
        "predict/normal (3).jpg": "Normal",
        "test/Normal cases/deep/c.png": "Normal",
        "test/covid/d.png": "COVID-19",
        "train/covid/a.png": "COVID-19",
        "train/normal/b.jpeg": "Normal",
    }
    assert manifest["split"].tolist() == ["test", "test", "val", "val", "train", "train"]
    assert set(manifest["source"]) == {"detector"}


@pytest.mark.parametrize("name", ["covid_12.png", "COVID-12.png", "Covid (3).jpg", "covid19.png", "covid.png"])
def test_a_label_in_any_case_with_anything_but_a_letter_after_it(tmp_path, name):
    assert labels_of(labelled_names(make(tmp_path, name), LABELS, None)) == {name: "COVID-19"}


def test_the_longest_label_wins(tmp_path):
    labels = {"covid": "covid", "covid-neg_": "normal", "covid-19": "covid 19"}
    manifest = labelled_names(make(tmp_path, "covid_1.png", "covid-neg_x.png", "COVID-19-7.png"), labels, None)
    assert labels_of(manifest) == {"covid_1.png": "covid", "covid-neg_x.png": "normal", "COVID-19-7.png": "covid 19"}
    assert manifest["split"].isna().all()


def test_a_folder_that_is_not_named_is_left_out_and_counted(tmp_path, caplog):
    make(tmp_path, "train/covid/1.png", "more/what.png", "notes.txt")
    with caplog.at_level(logging.INFO, "cxrnet"):
        assert len(labelled_names(tmp_path, LABELS, {"train": "train"})) == 1
    assert "1 images outside the folders of data.manifest.folders were left out" in caplog.text


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        (["covid1.png", "covidlike.png", "x.png"], None, r"2 of 3 images .*: covidlike.png, x.png; rename or remove"),
        (["covid/normal_1.png", "covid/1.png"], None, r"1 of 2 images .* in a folder of another: covid/normal_1.png"),
        (["train/covid1.png"], {"train": "train", "tset": "test"}, "has no folder 'tset'"),
        (["train/covid1.png"], {"train": "training"}, "train: 'training' is no split; use train, val, test"),
        (["train/notes.txt"], {"train": "train"}, "train' holds no images"),
    ],
)
def test_folders_that_can_not_be_read(tmp_path, files, folders, message):
    with pytest.raises(CxrnetError, match=message) as error:
        labelled_names(make(tmp_path, *files), LABELS, folders)
    assert "\n" not in str(error.value)


def test_no_such_folder(tmp_path):
    with pytest.raises(CxrnetError, match=r"'.*gone' is not a folder; give the one that holds the images"):
        labelled_names(tmp_path / "gone", LABELS, None)
