import pandas as pd

from cxrnet.data.leaks import conflict_statement, label_conflicts
from cxrnet.data.manifest import make_manifest


def manifest_of(labels: str, **columns) -> pd.DataFrame:
    ids = list("abcdefghijklmnop"[: len(labels)])
    rows = pd.DataFrame({"image_id": ids, "path": ids, "label": list(labels), "source": "s", **columns})
    return make_manifest(rows, "test")


def pairs_of(*pairs: str) -> pd.DataFrame:
    return pd.DataFrame([tuple(pair) for pair in pairs], columns=["image_id_a", "image_id_b"])


def test_all_images_of_a_group_with_two_labels_are_listed_wherever_they_stand():
    manifest = manifest_of("XXYYYXZ", split=["train", "train", "test", "train", "val", "train", "test"])
    found = label_conflicts(pairs_of("ab", "bc", "de", "fg", "fz"), manifest)  # a = b = c, d = e, f = g
    assert found[["group", "image_id", "label", "split"]].to_numpy().tolist() == [
        ["a", "a", "X", "train"],
        ["a", "b", "X", "train"],
        ["a", "c", "Y", "test"],
        ["f", "f", "X", "train"],
        ["f", "g", "Z", "test"],
    ]


def test_one_file_in_three_classes_is_one_group():
    (said,) = conflict_statement(pairs_of("ab", "ac", "bc"), manifest_of("XYZX"))
    assert said.startswith("3 images are duplicates that carry different labels (a (X) = b (Y) = c (Z));")


def test_many_are_counted_and_a_few_named():
    (said,) = conflict_statement(pairs_of("ab", "cd", "ef", "gh", "ij"), manifest_of("XYXYXYXYXY"))
    assert "10 images" in said
    assert "e (X) = f (Y); and 2 more)" in said
    assert "label_conflicts.csv" in said


def test_different_labels_are_normal_for_a_patient_and_same_labels_for_duplicates():
    manifest = manifest_of("XYXX", patient_id=["p", "p", "q", "q"], group_id=["g", "g", None, None])
    assert conflict_statement(pairs_of("cd"), manifest) == []
    assert conflict_statement(pairs_of(), manifest) == []
