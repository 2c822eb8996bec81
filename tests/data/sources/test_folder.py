import logging

import pytest

from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def test_class_folders(tmp_path):
    root = make(tmp_path / "my set", "Viral Pneumonia/b 1.png", "Normal/a.JPG", "Normal/deep/er/c.webp")
    manifest = folder(root)
    assert manifest["image_id"].tolist() == ["Normal/a.JPG", "Normal/deep/er/c.webp", "Viral Pneumonia/b 1.png"]
    assert manifest["label"].tolist() == ["Normal", "Normal", "Viral Pneumonia"]
    assert manifest["source"].eq("my set").all()
    assert manifest["split"].isna().all()
    assert manifest["path"].tolist()[0] == str(root.resolve() / "Normal" / "a.JPG")


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "VAL"])
def test_split_folders_in_any_case(tmp_path, val):
    names = [f"{part}/{label}/1.png" for part in ("Train", val, "TEST") for label in ("a", "b")]
    manifest = folder(make(tmp_path, *names))
    assert sorted(manifest["split"].tolist()) == ["test"] * 2 + ["train"] * 2 + ["val"] * 2
    assert dict(zip(manifest["image_id"], manifest["split"], strict=True))[f"{val}/a/1.png"] == "val"


def test_the_same_name_in_two_classes_gives_two_ids(tmp_path):
    assert folder(make(tmp_path, "a/01.jpeg", "b/01.jpeg"))["image_id"].is_unique


def test_a_relative_root_gives_absolute_paths(tmp_path, monkeypatch):
    make(tmp_path, "set/a/1.png", "set/b/1.png")
    monkeypatch.chdir(tmp_path)
    manifest = folder("set")
    assert manifest["path"].tolist()[0] == str(tmp_path.resolve() / "set" / "a" / "1.png")
    assert manifest["source"].eq("set").all()


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path, caplog):
    make(tmp_path, "a/1.png", "b/1.png", "a/Thumbs.db", "a/.DS_Store", "a/._1.png", "a/.cache/2.png")
    make(tmp_path, "readme.txt", "a/notes.csv", ".git/x/1.png", "__MACOSX/a/1.png", ".ipynb_checkpoints/1.png")
    with caplog.at_level(logging.INFO, "cxrnet"):
        assert folder(tmp_path)["image_id"].tolist() == ["a/1.png", "b/1.png"]
    assert "9 files that are hidden or no images were left out" in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no class folders"),
        (["1.png", "2.png"], "holds no class folders"),
        (["train/1.png", "test/1.png"], "test' holds no class folders"),
        (["train/a/1.png", "a/1.png", "b/1.png"], r"split folders \(train\) and class folders \(a, b\) side by"),
        (["a/1.png", "b/1.txt"], "b' holds no images; put those of the class there or remove it"),
        (["train/Covid/1.png", "test/covid/1.png"], "'Covid' and 'covid', which differ in case or spaces only"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, files, message):
    with pytest.raises(CxrnetError, match=message) as caught:
        folder(make(tmp_path, *files))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_such_folder(tmp_path):
    with pytest.raises(CxrnetError, match=r"data.root: '.*gone' is not a folder; give the one that holds the class"):
        folder(tmp_path / "gone")
    make(tmp_path, "file.png")
    with pytest.raises(CxrnetError, match="is not a folder"):
        folder(tmp_path / "file.png")
