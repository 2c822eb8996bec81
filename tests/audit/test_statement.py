import pandas as pd

from cxrnet.audit.statement import leak_statement
from cxrnet.data.manifest import make_manifest


def manifest_of(split, **columns) -> pd.DataFrame:
    ids = [f"{i}.png" for i in range(len(split))]
    rows = pd.DataFrame({"image_id": ids, "path": ids, "label": "a", "source": "s", "split": list(split), **columns})
    return make_manifest(rows, "test")


def test_nothing_to_say_where_patients_are_known_and_nothing_leaks():
    assert leak_statement(manifest_of(["train", "val", "test"], patient_id=["p", "q", "r"])) == []


def test_unknown_patients_are_stated():
    assert leak_statement(manifest_of(["train", "val", "test"])) == [
        "patients are not known; images of one patient may stand on both sides of the split"
    ]


def test_copies_and_patients_across_the_split_are_counted():
    manifest = manifest_of(
        ["train", "train", "val", "test", "test", "test"],
        patient_id=["p", "q", "v", "p", "t", "v"],
        group_id=["g", None, "g", None, "g", None],
    )
    assert leak_statement(manifest) == [
        "1 of 3 test images have a copy in train or val; its result is flattered",
        "2 of 3 test images are of patients who are in train or val",
        "1 of 1 val images have a copy in train; the choice of weights is flattered",
    ]


def test_a_split_without_a_test_part():
    assert leak_statement(manifest_of(["train", "val"], patient_id=["p", "p"])) == [
        "1 of 1 val images are of patients who are in train"
    ]


def test_synthetic_images_are_called_synthetic():
    manifest = manifest_of(["train", "test"], patient_id=["1", "2"]).assign(source="phantom")
    assert leak_statement(manifest) == ["the images are synthetic; the result says nothing about patients"]
