"""Fixes: every row has a reason, and what they leave has no leaks."""

import pandas as pd
import pytest

from cxrnet.data.fixes import KEPT, REASON, fix_manifest, fixed_manifest
from cxrnet.data.leaks import leak_statement, leaks
from cxrnet.data.manifest import make_manifest, read_manifest, write_manifest
from cxrnet.data.settings import Fix
from cxrnet.errors import CxrnetError

ALL = Fix(drop_leaked_test=True, regroup=True, drop_conflicts=True, drop_decoys=True)
# image: label, split, patient, group
IMAGES = {
    "blank": ("Covid", "train", "9", None),
    "conflict_a": ("Covid", "train", "8", "conflict"),
    "conflict_b": ("Normal", "train", "7", "conflict"),
    "copy": ("Covid", "test", "6", "copy"),
    "copied": ("Covid", "train", "5", "copy"),
    "fine_covid": ("Covid", "train", "10", None),
    "fine_normal": ("Normal", "train", "11", None),
    "patient_test": ("Normal", "test", "1", None),
    "patient_train": ("Normal", "train", "1", None),
    "patient_val": ("Normal", "val", "1", None),
    "test_covid": ("Covid", "test", "12", None),
    "val_normal": ("Normal", "val", "13", None),
}


@pytest.fixture
def manifest() -> pd.DataFrame:
    columns = ["label", "split", "patient_id", "group_id"]
    rows = pd.DataFrame.from_dict(IMAGES, orient="index", columns=columns).reset_index(names="image_id")
    return make_manifest(rows.assign(path=rows["image_id"] + ".png", source="invented"), "invented")


@pytest.fixture
def pairs() -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id_a": ["conflict_a", "copied"], "image_id_b": ["conflict_b", "copy"], "kind": "recompressed"}
    )


def test_each_fix_does_its_own_and_says_why(manifest, pairs) -> None:
    fixes = fix_manifest(manifest, pairs, ["blank"], ALL).set_index("image_id")
    assert fixes["action"].to_dict() == {
        **dict.fromkeys(("copied", "fine_covid", "fine_normal", "patient_train", "test_covid", "val_normal"), "kept"),
        **dict.fromkeys(("blank", "conflict_a", "conflict_b", "copy", "patient_test"), "dropped"),
        "patient_val": "regrouped",
    }
    reasons = fixes["reason"].to_dict()
    assert reasons["blank"].startswith("dropped as a decoy: two grey levels or one")
    assert reasons["conflict_a"] == (
        "dropped for a conflict: its label is Covid, that of its duplicate conflict_b is Normal"
    )
    assert reasons["copy"] == "dropped as a leak: a duplicate (copied) is in train"
    assert reasons["patient_test"] == "dropped as a leak: its patient (patient_train) is in train"
    assert reasons["patient_val"] == "regrouped from val to train: its patient (patient_train) is in train"
    assert reasons["fine_covid"] == KEPT
    assert fixes["split_fixed"].isna().tolist() == (fixes["action"] == "dropped").tolist()
    assert fixes.loc["patient_val", "split_fixed"] == "train"


def test_nothing_leaks_in_what_they_leave(manifest, pairs, tmp_path) -> None:
    assert sum(leak.any for leak in leaks(manifest).values()) == 3
    fixed = fixed_manifest(manifest, fix_manifest(manifest, pairs, ["blank"], ALL))
    write_manifest(fixed, tmp_path / "fixed.csv")
    read = read_manifest(tmp_path / "fixed.csv")
    assert leak_statement(read) == []
    assert read[REASON].notna().all()
    assert len(read) == 7


def test_a_fix_that_is_not_asked_for_is_not_done(manifest, pairs) -> None:
    fixes = fix_manifest(manifest, pairs, ["blank"], Fix(regroup=True)).set_index("image_id")
    assert fixes["action"].value_counts().to_dict() == {"kept": 9, "regrouped": 3}
    assert fixes.loc["copy", "reason"] == "regrouped from test to train: a duplicate (copied) is in train"


def test_what_would_leave_no_data_is_refused(manifest, pairs) -> None:
    few = manifest[manifest["image_id"] != "test_covid"]
    with pytest.raises(CxrnetError, match=r"fix: no test image is left \(2 dropped\); leave a fix out"):
        fixed_manifest(few, fix_manifest(few, pairs, [], Fix(drop_leaked_test=True)))
    few = manifest[~manifest["image_id"].isin(["fine_covid", "copied", "copy"])]
    with pytest.raises(CxrnetError, match="class 'Covid' has no training image left"):
        fixed_manifest(few, fix_manifest(few, pairs, ["blank"], ALL))
