import pytest

from cxrnet.data.sources.labelled_names import labelled_names
from cxrnet.errors import CxrnetError

LABELS = {"covid": "COVID-19", "normal": "Normal"}
FOLDERS = {"train": "train", "test": "val", "predict": "test"}


def labels_of(manifest):
    return dict(zip(manifest["image_id"], manifest["label"], strict=True))


def test_the_published_folders(tmp_path, touch):
    """Classes by folder in train and test, by the beginning of the name in predict."""
    root = touch(tmp_path / "detector", "train/covid/a.png", "train/normal/b.jpeg", "test/Normal cases/deep/c.png")
    touch(root, "test/covid/d.png", "predict/covid_12.png", "predict/normal (3).jpg")
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
def test_a_label_in_any_case_with_anything_but_a_letter_after_it(tmp_path, name, touch):
    assert labels_of(labelled_names(touch(tmp_path, name), LABELS, None)) == {name: "COVID-19"}


def test_the_longest_label_wins(tmp_path, touch):
    labels = {"covid": "covid", "covid-neg_": "normal", "covid-19": "covid 19"}
    manifest = labelled_names(touch(tmp_path, "covid_1.png", "covid-neg_x.png", "COVID-19-7.png"), labels, None)
    assert labels_of(manifest) == {"covid_1.png": "covid", "covid-neg_x.png": "normal", "COVID-19-7.png": "covid 19"}
    assert manifest["split"].isna().all()


def test_a_folder_that_is_not_named_is_left_out_and_counted(tmp_path, caplog, touch):
    touch(tmp_path, "train/covid/1.png", "more/what.png", "notes.txt")
    assert len(labelled_names(tmp_path, LABELS, {"train": "train"})) == 1
    assert "left out: 1 images outside the folders of data.manifest.folders" in caplog.text


@pytest.mark.parametrize("train", ["train", "Train"])
def test_numbers_before_labels_and_alone(tmp_path, caplog, train, touch):
    """0_normal and 1_covid in train and test say what 0- and 1- mean in predict; a file's own number means nothing."""
    touch(
        tmp_path,
        f"{train}/0_normal/1-s2.0-fx1.png",
        f"{train}/1_covid/0.png",
        "test/1_covid/a.png",
        "test/0_normal/b.png",
    )
    touch(tmp_path, "predict/0-from-somewhere.jpeg", "predict/1 (2).jpg", "predict/12_covid.png")
    manifest = labelled_names(tmp_path, LABELS, FOLDERS)
    assert labels_of(manifest) == {
        f"{train}/0_normal/1-s2.0-fx1.png": "Normal",
        f"{train}/1_covid/0.png": "COVID-19",
        "test/0_normal/b.png": "Normal",
        "test/1_covid/a.png": "COVID-19",
        "predict/0-from-somewhere.jpeg": "Normal",
        "predict/1 (2).jpg": "COVID-19",
        "predict/12_covid.png": "COVID-19",
    }
    assert "0 is Normal, 1 is COVID-19" in caplog.text


def test_numbers_as_labels(tmp_path, touch):
    touch(tmp_path, "0_x/1-s2.0.png", "1/000.png", "0-a.png", "1.png")
    labels = labels_of(labelled_names(tmp_path, {"0": "normal", "1": "covid"}, None))
    assert labels == {"0_x/1-s2.0.png": "normal", "1/000.png": "covid", "0-a.png": "normal", "1.png": "covid"}


@pytest.mark.parametrize("name", ["10.png", "0th.png", "00.png", "x0.png"])
def test_a_number_that_goes_on_is_no_label(tmp_path, name, touch):
    with pytest.raises(CxrnetError, match=r"1 of 1 images .* begin with no label"):
        labelled_names(touch(tmp_path, name), {"0": "normal", "1": "covid"}, None)


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        (["covid1.png", "covidlike.png", "x.png"], None, r"2 of 3 images .*: covidlike.png, x.png; rename or remove"),
        (["covid/normal_1.png", "covid/1.png"], None, r"1 of 2 images .* in a folder of another: covid/normal_1.png"),
        (["train/covid1.png"], {"train": "train", "tset": "test"}, "has no folder 'tset'"),
        (["train/covid1.png"], {"train": "training"}, "train: 'training' is no split; use train, val, test"),
        (["train/notes.txt"], {"train": "train"}, "train' holds no images"),
        (["0_normal/1.png", "0_covid/1.png"], None, "the number 0 stands before 'COVID-19' and 'Normal'"),
        (["normal/1.png", "0-x.png"], None, "1 of 2 images .* begin with no label"),
    ],
)
def test_folders_that_can_not_be_read(tmp_path, files, folders, message, touch):
    with pytest.raises(CxrnetError, match=rf"^data[^\n]*{message}[^\n]*$"):
        labelled_names(touch(tmp_path, *files), LABELS, folders)


def test_no_such_folder(tmp_path):
    with pytest.raises(CxrnetError, match=r"'.*gone' is not a folder; give the one that holds the images"):
        labelled_names(tmp_path / "gone", LABELS, None)
