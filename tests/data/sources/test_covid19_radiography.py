import shutil

import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.sources.covid19_radiography import FOLDER, PUBLISHED, collection, covid19_radiography
from cxrnet.errors import CxrnetError

RSNA = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"
URLS = {
    "COVID": ["https://sirm.org/category/covid-19/", "https://github.com/ieee8023/covid-chestxray-dataset"],
    "Lung_Opacity": [RSNA, RSNA],
    "Normal": [RSNA, "https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia"],
    "Viral Pneumonia": ["https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia"] * 2,
}


def make(root, classes=tuple(PUBLISHED)):
    """Two images of each class with masks and tables, in the original layout."""
    top = root / FOLDER
    for name in classes:
        for folder, size in (("images", 299), ("masks", 256)):
            (top / name / folder).mkdir(parents=True)
            for n in (1, 2):
                Image.new("L", (size, size)).save(top / name / folder / f"{name}-{n}.png")
        written = [f"{name.upper() if name == 'Normal' else name}-{n}" for n in (1, 2)]
        table = pd.DataFrame({"FILE NAME": written, "FORMAT": "PNG", "SIZE": "256*256", "URL": URLS[name]})
        table.to_excel(top / f"{name}.metadata.xlsx", index=False)
    return root


@pytest.mark.parametrize("below", ["", FOLDER])
def test_all_that_the_original_layout_says(tmp_path, below):
    manifest = covid19_radiography(make(tmp_path) / below, None, False)
    assert manifest["label"].value_counts().to_dict() == dict.fromkeys(PUBLISHED, 2)
    assert manifest["split"].isna().all()
    normal = manifest.set_index("image_id").loc["Normal/images/Normal-1.png"]
    top = tmp_path.resolve() / FOLDER
    assert normal["path"] == str(top / "Normal" / "images" / "Normal-1.png")
    assert normal["mask_path"] == str(top / "Normal" / "masks" / "Normal-1.png")
    assert (normal["url"], normal["source"]) == (RSNA, "kaggle.com/c/rsna-pneumonia-detection-challenge/data")
    assert manifest["source"].nunique() == manifest["url"].nunique() == 4
    assert manifest["mask_path"].notna().all()


def test_some_classes(tmp_path):
    root = make(tmp_path, ["COVID", "Normal"])
    assert set(covid19_radiography(root, ["Normal"], False)["label"]) == {"Normal"}
    assert set(covid19_radiography(root, "COVID", False)["label"]) == {"COVID"}
    with pytest.raises(CxrnetError, match=r"classes: 'Covid' is no class; choose from COVID, Lung_Opacity, Normal, V"):
        covid19_radiography(root, ["Covid", "Normal"], False)


def test_everything_that_is_missing_is_listed_in_one_line(tmp_path, caplog):
    root = make(tmp_path, ["COVID", "Normal"])
    (root / FOLDER / "COVID.metadata.xlsx").unlink()
    (root / FOLDER / "Normal" / "masks").rename(tmp_path / "elsewhere")
    missing = "lacks COVID.metadata.xlsx, class Lung_Opacity, Normal/masks, class Viral Pneumonia; "
    with pytest.raises(CxrnetError, match=rf"^[^\n]*{missing}[^\n]*data.manifest.partial=true[^\n]*$"):
        covid19_radiography(root, None, False)

    manifest = covid19_radiography(root, None, True)
    (warning,) = caplog.messages
    for fault in ("no COVID.metadata.xlsx", "no class Lung_Opacity", "no Normal/masks", "2 of 3616 images of COVID"):
        assert fault in warning
    covid, normal = (manifest[manifest["label"] == label] for label in ("COVID", "Normal"))
    assert set(covid["source"]) == {"covid19_radiography"}
    assert normal["source"].nunique() == 2
    assert covid["mask_path"].notna().all()
    assert normal["mask_path"].isna().all()


def test_other_counts_than_published_are_said(tmp_path, caplog):
    top = make(tmp_path, ["Viral Pneumonia"]) / FOLDER
    covid19_radiography(tmp_path, "Viral Pneumonia", False)
    assert caplog.messages == ["covid19_radiography: not as published: 2 of 1345 images of Viral Pneumonia"]
    caplog.clear()
    names = [f"Viral Pneumonia-{n}" for n in range(1, 1346)]
    for name in names[2:]:
        (top / "Viral Pneumonia" / "images" / f"{name}.png").touch()
        (top / "Viral Pneumonia" / "masks" / f"{name}.png").touch()
    table = pd.DataFrame({"FILE NAME": names, "FORMAT": "PNG", "SIZE": "256*256", "URL": RSNA})
    table.to_excel(top / "Viral Pneumonia.metadata.xlsx", index=False)
    assert len(covid19_radiography(tmp_path, "Viral Pneumonia", False)) == 1345
    assert caplog.messages == []


def test_single_images_without_mask_or_row(tmp_path, caplog):
    top = make(tmp_path, ["COVID"]) / FOLDER
    (top / "COVID" / "images" / "COVID-9.png").touch()
    manifest = covid19_radiography(tmp_path, "COVID", False).set_index("image_id")
    lonely = manifest.loc["COVID/images/COVID-9.png"]
    assert lonely["source"] == "covid19_radiography"
    assert lonely[["mask_path", "url"]].isna().all()
    assert "1 images without mask, 1 images without row in the table" in caplog.text


@pytest.mark.parametrize("content", [b"no workbook", None])
def test_a_table_that_can_not_be_read(tmp_path, content):
    table = make(tmp_path, ["COVID"]) / FOLDER / "COVID.metadata.xlsx"
    if content is None:
        pd.DataFrame({"name": ["COVID-1"]}).to_excel(table, index=False)
    else:
        table.write_bytes(content)
    with pytest.raises(CxrnetError, match=r"^[^\n]*COVID.metadata.xlsx' can't be read \(.*\); get it again[^\n]*$"):
        covid19_radiography(tmp_path, "COVID", False)


def test_a_missing_data_set_says_where_it_looked(tmp_path):
    with pytest.raises(CxrnetError, match=rf"'{tmp_path}/gone/{FOLDER}'.*unpack {FOLDER}/ from Kaggle there"):
        covid19_radiography(tmp_path / "gone", None, True)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://eurorad.org", "eurorad.org"),
        (" http://www.Eurorad.org/ ", "eurorad.org"),
        ("https://github.com/armiro/COVID-CXNet", "github.com/armiro/covid-cxnet"),
        ("https://bimcv.cipf.es/bimcv-projects/bimcv-covid19/#159", "bimcv.cipf.es/bimcv-projects/bimcv-covid19"),
        ("sirm.org/category", "sirm.org/category"),
    ],
)
def test_the_name_of_a_collection(url, name):
    assert collection(url) == name


@pytest.mark.shared
def test_the_reduced_data_set(shared, caplog):
    root = shared / "data" / "covid19_radiography"
    with pytest.raises(CxrnetError, match=r"lacks COVID/masks, COVID.metadata.xlsx, class Lung_Opacity, Normal/masks"):
        covid19_radiography(root, None, False)
    manifest = covid19_radiography(root, None, True)
    assert manifest["label"].value_counts().to_dict() == {"Normal": 1700, "COVID": 600}
    assert "600 of 3616 images of COVID, 1700 of 10192 images of Normal" in caplog.text
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(("covid", "normal"), [("COVID", "Normal"), ("COVID-19", "NORMAL")])
def test_the_older_layout_has_no_folder_of_images_and_no_masks(tmp_path, caplog, covid, normal):
    names = {covid: "COVID", normal: "Normal", "Viral Pneumonia": "Viral Pneumonia", "Lung_Opacity": "Lung_Opacity"}
    for name in names:
        (tmp_path / FOLDER / name).mkdir(parents=True)
        for i in (1, 2):
            (tmp_path / FOLDER / name / f"{name}-{i}.png").touch()
    manifest = covid19_radiography(tmp_path, None, False)
    assert dict(zip(manifest["image_id"], manifest["label"], strict=True)) == {
        f"{name}/{name}-{i}.png": label for name, label in names.items() for i in (1, 2)
    }
    assert "2 of 3616 images of COVID" in caplog.text
    shutil.rmtree(tmp_path / FOLDER / normal)
    with pytest.raises(CxrnetError, match=r"lacks .*class Normal"):
        covid19_radiography(tmp_path, None, False)
