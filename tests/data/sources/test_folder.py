import re

import pytest

from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError


def test_class_folders(tmp_path, touch):
    root = touch(tmp_path / "my set", "Viral Pneumonia/a.JPG", "Normal/a.JPG", "Normal/deep/er/c.webp")
    manifest = folder(root)
    assert manifest["image_id"].tolist() == ["Normal/a.JPG", "Normal/deep/er/c.webp", "Viral Pneumonia/a.JPG"]
    assert manifest["label"].tolist() == ["Normal", "Normal", "Viral Pneumonia"]
    assert manifest["source"].eq("my set").all()
    assert manifest["split"].isna().all()
    assert manifest["path"].tolist()[0] == str(root.resolve() / "Normal" / "a.JPG")


@pytest.mark.parametrize(
    "names",
    ["train val test", "Train Validation TEST", "Training valid Testing", "training_set dev test_set"],
)
def test_split_folders_by_their_usual_names(tmp_path, caplog, names, touch):
    train, val, test = names.split()
    manifest = folder(touch(tmp_path, *[f"{part}/{label}/1.png" for part in (train, val, test) for label in "ab"]))
    splits = dict(zip(manifest["image_id"], manifest["split"], strict=True))
    assert (splits[f"{train}/a/1.png"], splits[f"{val}/b/1.png"], splits[f"{test}/a/1.png"]) == ("train", "val", "test")
    assert (f"'{val}' is val" in caplog.text) == (val != "val")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no class folders"),
        (["1.png", "2.png"], "holds no class folders"),
        (["train/1.png", "test/1.png"], "test' holds no class folders"),
        (["train/a/1.png", "a/1.png", "b/1.png"], r"split folders \(train\) and class folders \(a, b\) side by"),
        (["a/1.png", "b/1.txt"], "b' holds no images; put those of the class there or remove it"),
        (
            ["train/Covid/1.png", "test/covid/1.png"],
            "'Covid' and 'covid', which differ in case, spaces or Unicode form only",
        ),
        (["train/a/1.png", "Training/a/1.png"], r"several folders that are train \(Training, train\); leave one"),
        (["train/a/1.png", "val/a/1.png", "dev/a/1.png"], r"several folders that are val \(dev, val\)"),
        (["train/Testing/1.png", "train/a/1.png"], "Testing' stands where a class does and has the name of a split"),
        (["evaluation/1.png", "a/1.png"], "evaluation' stands where a class does and has the name of a split"),
        (["train/a/1.png", "eval/a/1.png"], "holds 'eval', which is not known as the name of a split; call it train"),
        (["COVID/a/1.png", "COVID/b/1.png"], "one folder alone, 'COVID'; if it is a class.* classes are a, b, give"),
        (["data/COVID/a/1.png"], "one folder alone, 'COVID'"),
        (["images/1.png", "masks/1.png"], "images' stands where a class does and has the name of images"),
        (["train/images/1.png", "train/masks/1.png"], "images' stands where a class does and has the name of images"),
        (["a/train/1.png", "a/test/2.png", "b/train/3.png"], "a' stands where a class does and holds split folders"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, files, message, touch):
    with pytest.raises(CxrnetError, match=rf"^[^\n]*{tmp_path}[^\n]*$") as caught:
        folder(touch(tmp_path, *files))
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize("name", ["gone", "file.png"])
def test_no_such_folder(tmp_path, touch, name):
    touch(tmp_path, "file.png")
    with pytest.raises(CxrnetError, match=rf"data.root: '.*{name}' is not a folder; give the one that holds the class"):
        folder(tmp_path / name)


def test_a_nested_folder_alone_is_read_and_a_second_copy_is_left_out(tmp_path, caplog, touch):
    """As Kaggle's chest_xray is unpacked."""
    splits = ("train", "val", "test")
    names = [
        f"chest_xray/{top}{split}/{label}/1.png" for top in ("", "chest_xray/") for split in splits for label in "ab"
    ]
    touch(tmp_path, *names, "chest_xray/__MACOSX/chest_xray/train/a/._1.png", "__MACOSX/x.png")
    manifest = folder(tmp_path)
    assert manifest["image_id"].tolist() == sorted(f"{split}/{label}/1.png" for split in splits for label in "ab")
    assert folder(tmp_path / "chest_xray")["image_id"].tolist() == manifest["image_id"].tolist()
    assert f"holds one folder alone, so '{tmp_path}/chest_xray' is read" in caplog.text
    assert "left out: 'chest_xray', which holds split folders of its own" in caplog.text
    assert "left out: 6 images outside the class folders" in caplog.text


@pytest.mark.parametrize("inner", ["my set", "COVID19 Dataset", "chest_xray", "archive/my set"])
def test_a_folder_alone_that_is_called_as_a_data_set_is_read_and_its_classes_are_said(tmp_path, caplog, inner, touch):
    manifest = folder(touch(tmp_path / "my set", f"{inner}/COVID/1.png", f"{inner}/Normal/1.png"))
    assert manifest["label"].tolist() == ["COVID", "Normal"]
    assert "is read: COVID, Normal" in caplog.text


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{}/images/1.png", "{}/masks/1.png"),
        ("{}/1.jpg", "{}/lung_masks/1_mask.png"),
        ("{}/1.png", "{}/1_mask.png"),
        ("images/{}/1.png", "Masks/{}/1.png"),
        ("{}/deep/images/1.png", "{}/deep/Segmentations/1.png"),
    ],
)
def test_masks_are_left_out_and_fitted_to_their_images(tmp_path, caplog, image, mask, touch):
    files = [name.format(label) for label in "ab" for name in (image, mask)]
    manifest = folder(touch(tmp_path, *files))
    assert manifest["path"].tolist() == [str(tmp_path / image.format(label)) for label in "ab"]
    assert manifest["mask_path"].tolist() == [str(tmp_path / mask.format(label)) for label in "ab"]
    assert "left out: 2 masks" in caplog.text


def test_of_several_masks_that_of_the_lungs_is_taken_and_a_mask_of_another_image_never(tmp_path, touch):
    names = [
        f"{label}/{part}/1.png" for label in "ab" for part in ("images", "lung masks", "infection masks", "site A")
    ]
    manifest = folder(touch(tmp_path, *names)).set_index("image_id")
    assert manifest["mask_path"].dropna().to_dict() == {
        f"{label}/images/1.png": str(tmp_path / label / "lung masks" / "1.png") for label in "ab"
    }
    assert len(manifest) == 4
