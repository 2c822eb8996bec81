import pandas as pd
import pytest

from cxrnet.data.sources.covid19_image import CLASSES, covid19_image
from cxrnet.errors import CxrnetError


def make(root, classes=CLASSES):
    for part in ("train", "test"):
        for label in classes:
            folder = root / "Covid19-dataset" / part / label
            folder.mkdir(parents=True)
            (folder / "01.jpeg").write_bytes(b"x")
    return root


@pytest.mark.parametrize("below", ["", "Covid19-dataset"])
def test_both_roots_give_the_same_manifest(tmp_path, below):
    manifest = covid19_image(make(tmp_path) / below)
    assert manifest["image_id"].tolist() == [
        f"{part}/{label}/01.jpeg" for part in ("test", "train") for label in CLASSES
    ]
    assert manifest["source"].eq("covid19_image").all()
    assert manifest["split"].tolist() == ["test"] * 3 + ["train"] * 3


def test_an_incomplete_copy_is_read_with_a_warning(tmp_path, caplog):
    covid19_image(make(tmp_path))
    assert "{'train': 3, 'test': 3} images found, {'train': 251, 'test': 66} published" in caplog.text


def test_a_missing_data_set_says_where_it_looked_and_what_belongs_there(tmp_path):
    looked = rf"no train/ and test/ in '{tmp_path}/gone/Covid19-dataset' and [^\n]*unpack Covid19-dataset/ from Kaggle"
    with pytest.raises(CxrnetError, match=looked):
        covid19_image(tmp_path / "gone")


def test_another_data_set_in_the_same_layout(tmp_path):
    with pytest.raises(CxrnetError, match=r"not the COVID-19 Image Dataset .*class 'Viral Pneumonia' is missing"):
        covid19_image(make(tmp_path, ("Covid", "Normal")))


@pytest.mark.shared
def test_the_real_data_set(shared, caplog):
    manifest = covid19_image(shared / "data" / "covid19_image")
    table = pd.crosstab(manifest["split"], manifest["label"])
    assert table.columns.tolist() == ["Covid", "Normal", "Viral Pneumonia"]
    assert table.loc["train"].tolist() == [111, 70, 70]
    assert table.loc["test"].tolist() == [26, 20, 20]
    assert {"train/Covid/01.jpeg", "train/Normal/01.jpeg"} <= set(manifest["image_id"])
    assert caplog.text == ""
