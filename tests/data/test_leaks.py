import numpy as np
import pandas as pd

from cxrnet.data.leaks import leaked_images, leaks
from cxrnet.data.manifest import make_manifest
from cxrnet.data.splits import split_manifest

SEVENTY = {"train": 0.7, "val": 0.15, "test": 0.15}


def manifest_of(labels, **columns) -> pd.DataFrame:
    ids = [f"images/{i:06d}.png" for i in range(len(labels))]
    rows = pd.DataFrame({"image_id": ids, "path": ids, "label": list(labels), "source": "s", **columns})
    return make_manifest(rows, "test")


def test_leaks_counts_patients_files_and_groups():
    manifest = manifest_of(
        "aaaaaaaa",
        split=["train", "train", "train", "test", "test", "test", "test", None],
        patient_id=["p", "q", None, "p", "r", None, "p", "p"],
        sha256=["1", "2", "3", "4", "2", "3", None, "1"],
        group_id=[None, None, "g", None, None, "g", None, None],
    )
    found = leaks(manifest)
    assert list(found) == ["test"]
    leak = found["test"]
    assert (leak.images, leak.patients_known, leak.same_patient, leak.duplicates, leak.any) == (4, 3, 2, 2, 4)
    assert leaked_images(manifest, "test") == [f"images/{i:06d}.png" for i in (3, 4, 5, 6)]


def test_test_must_share_nothing_with_val_either():
    manifest = manifest_of("aaaa", split=["train", "val", "test", "test"], sha256=["1", "2", "2", "3"])
    found = leaks(manifest)
    assert found["val"].duplicates == 0
    assert found["test"].duplicates == 1
    assert leaked_images(manifest, "test") == ["images/000002.png"]
    assert leaked_images(manifest, "val") == []


def test_leaks_of_a_split_by_patient_are_none():
    manifest = manifest_of("ab" * 60, patient_id=[str(i // 4) for i in range(120)])
    found = leaks(split_manifest(manifest, SEVENTY, 0))
    assert list(found) == ["val", "test"]
    assert all(leak.any == 0 and leak.patients_known == leak.images for leak in found.values())


def test_counts_are_those_of_looking_at_each_image_and_empty_cells_tie_nothing():
    rng = np.random.default_rng(0)
    columns = {name: rng.choice([None, "", *"abcdefghij"], 60) for name in ("patient_id", "sha256", "group_id")}
    manifest = manifest_of("x" * 60, split=rng.choice([None, *["train"] * 3, "val", *["test"] * 4], 60), **columns)
    seen = manifest[manifest["split"].isin(["train", "val"])]
    test = manifest[manifest["split"] == "test"]
    shared = {name: [bool(cell) and cell in set(seen[name]) for cell in test[name].fillna("")] for name in columns}
    leak = leaks(manifest)["test"]
    assert leak.patients_known == (test["patient_id"].fillna("") != "").sum()
    assert leak.same_patient == sum(shared["patient_id"])
    assert leak.duplicates == np.sum(np.any([shared["sha256"], shared["group_id"]], axis=0))
    assert leaked_images(manifest, "test") == test["image_id"][np.any(list(shared.values()), axis=0)].tolist()
