from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.sources.phantom import phantom
from cxrnet.errors import CxrnetError

CLASSES = ["COVID-19", "Lung Opacity", "Normal", "Viral Pneumonia"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return phantom(tmp_path_factory.mktemp("phantom"), images=34, size=96, seed=5)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    root = tmp_path_factory.mktemp("faulty")
    manifest = phantom(
        root, images=40, size=96, seed=5, marker=0.5, duplicates=3, label_noise=0.1, missing=2, corrupt=3
    )
    return manifest, pd.read_csv(next(root.iterdir()) / "faults.csv", keep_default_na=False)


def pixels(path):
    return np.asarray(Image.open(path))


def test_manifest_of_balanced_classes_and_patients(plain):
    assert plain["label"].value_counts().to_dict() == dict(zip(CLASSES, [9, 9, 8, 8], strict=True))
    assert plain["split"].isna().all()
    assert set(plain["source"]) == {"phantom"}
    per_patient = plain.groupby("patient_id")
    assert (per_patient["label"].nunique() == 1).all()
    assert set(per_patient.size()) <= {1, 2, 3, 4}
    assert per_patient.size().max() > 1
    assert plain["image_id"].str.startswith("images/").all()  # no absolute path, the same on every machine


def test_images_are_grey_squares_and_masks_lie_where_they_should(plain):
    for row in plain.itertuples():
        with Image.open(row.path) as image:
            assert (image.mode, image.size) == ("L", (96, 96))
        radiograph, lung, lesion = pixels(row.path), pixels(row.mask_path), pixels(row.lesion_mask_path)
        assert np.ptp(radiograph) > 150
        assert set(np.unique(lung)) == {0, 255}
        assert 0.1 < (lung > 0).mean() < 0.6
        assert not (lesion & ~lung).any()  # no lesion outside the lungs
        assert (lesion > 0).any() == (row.label != "Normal")
        if row.label == "Normal":  # air is darker than heart and abdomen
            assert radiograph[lung > 0].mean() < radiograph[80:, 30:66].mean()


def test_the_same_seed_draws_the_same_pixels_with_any_number_of_threads(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    again = phantom(tmp_path, images=34, size=96, seed=5)
    assert list(again["image_id"]) == list(plain["image_id"])
    for column in ("path", "mask_path", "lesion_mask_path"):
        for one, other in zip(plain[column], again[column], strict=True):
            assert np.array_equal(pixels(one), pixels(other))
    different = phantom(tmp_path, images=8, size=96, seed=6)
    assert not np.array_equal(pixels(different["path"].iloc[0]), pixels(plain["path"].iloc[0]))


def test_a_complete_set_is_used_again(tmp_path):
    first = phantom(tmp_path, images=8, size=64, seed=1)
    Path(first["path"][0]).write_bytes(b"touched")
    again = phantom(tmp_path, images=8, size=64, seed=1)
    pd.testing.assert_frame_equal(first, again)
    assert Path(again["path"][0]).read_bytes() == b"touched"
    assert len(list(tmp_path.iterdir())) == 1  # nothing half-written is left
    phantom(tmp_path, images=8, size=64, seed=1, missing=1)
    assert len(list(tmp_path.iterdir())) == 2  # other parameters, another folder


def test_two_at_the_same_time_both_end_well(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: phantom(tmp_path, images=8, size=64, seed=1), range(2))
    pd.testing.assert_frame_equal(one, other)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_foreign_folder_of_that_name_is_refused(tmp_path):
    folder = tmp_path / Path(phantom(tmp_path, images=8, size=64, seed=1)["path"][0]).relative_to(tmp_path).parts[0]
    (folder / "manifest.parquet").unlink()
    with pytest.raises(CxrnetError, match="no complete set of phantoms; delete it"):
        phantom(tmp_path, images=8, size=64, seed=1)
    assert list(tmp_path.iterdir()) == [folder]


def test_every_fault_is_planted_as_often_as_asked(faulty):
    manifest, table = faulty
    assert table["fault"].value_counts().to_dict() == {
        "marker": 5, "label_noise": 4, "duplicate": 3, "corrupt": 3, "missing": 2,
    }  # fmt: skip
    assert table["image_id"].is_unique
    assert set(table["image_id"]) <= set(manifest["image_id"])
    assert len(manifest) == 43


def test_wrong_labels_and_markers(faulty, tmp_path):
    manifest, table = faulty
    clean = phantom(tmp_path, images=40, size=96, seed=5).set_index("image_id")
    by_id = manifest.set_index("image_id")
    for row in table[table["fault"] == "label_noise"].itertuples():
        assert by_id["label"][row.image_id] != row.detail == clean["label"][row.image_id]
    for name in table.loc[table["fault"] == "marker", "image_id"]:
        assert by_id["label"][name] == "COVID-19"
        changed = pixels(by_id["path"][name]) != pixels(clean["path"][name])
        assert changed.any()
        assert not changed[20:, :70].any()  # in the corner only


def test_duplicates_look_alike_under_another_patient(faulty):
    manifest, table = faulty
    by_id = manifest.set_index("image_id")
    for row in table[table["fault"] == "duplicate"].itertuples():
        copy, original = by_id.loc[row.image_id], by_id.loc[row.detail]
        assert copy["patient_id"] != original["patient_id"]
        assert (manifest["patient_id"] == copy["patient_id"]).sum() == 1
        a, b = pixels(copy["path"]).astype(float), pixels(original["path"]).astype(float)
        assert not np.array_equal(a, b)
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98


def test_missing_and_corrupt_files(faulty):
    manifest, table = faulty
    path = manifest.set_index("image_id")["path"]
    kind = table.set_index("image_id")["fault"]
    for name, file in path.items():
        assert Path(file).exists() == (kind.get(name) != "missing")
        if kind.get(name) == "corrupt":
            with pytest.raises(OSError):  # noqa: PT011 (what Pillow raises differs by kind)
                Image.open(file).load()
    assert set(table.loc[table["fault"] == "corrupt", "detail"]) == {"truncated", "not an image", "empty"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "many"}, "data.manifest.images: many is out of range; give a whole number from 8 on"),
        ({"size": 96.5}, "data.manifest.size: 96.5 is out of range; give a whole number from 64 on"),
        ({"images": 7}, "data.manifest.images: 7 is out of range"),
        ({"size": 63}, "data.manifest.size: 63 is out of range"),
        ({"seed": -1}, "data.manifest.seed: -1 is out of range; give a whole number from 0 on"),
        ({"marker": 1.5}, "data.manifest.marker: 1.5 is out of range; give a share from 0 to 1"),
        ({"label_noise": -0.1}, "data.manifest.label_noise: -0.1 is out of range"),
        ({"duplicates": float("nan")}, "data.manifest.duplicates: nan is out of range"),
        ({"missing": 5, "corrupt": 4}, "data: 9 faults asked for but only 8 images"),
        ({"marker": 1.0, "duplicates": 7}, "data: 9 faults asked for but only 8 images"),
    ],
)
def test_wrong_parameters_are_one_line(tmp_path, change, message):
    with pytest.raises(CxrnetError, match=rf"^{message}[^\n]*$"):
        phantom(**{"root": tmp_path, "images": 8, "size": 64, "seed": 1} | change)
    assert not list(tmp_path.iterdir())
