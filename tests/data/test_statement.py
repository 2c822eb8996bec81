import pandas as pd
import pytest

from cxrnet.data.leaks import leak_statement, patients_text
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
        "1 of 3 test images have a duplicate in train or val; test results are too good",
        "2 of 3 test images are of patients who are in train or val",
        "1 of 1 val images have a duplicate in train; val results are too good",
    ]


def test_a_split_without_a_test_part():
    assert leak_statement(manifest_of(["train", "val"], patient_id=["p", "p"])) == [
        "1 of 1 val images are of patients who are in train"
    ]


def test_synthetic_images_are_called_synthetic():
    manifest = manifest_of(["train", "test"], patient_id=["1", "2"]).assign(source="phantom")
    assert leak_statement(manifest) == ["the images are synthetic; the result says nothing about patients"]


def test_one_known_patient_does_not_hide_that_the_others_are_unknown():
    manifest = manifest_of(["train"] * 40 + ["test"] * 20, patient_id=["p"] + [None] * 59)
    assert leak_statement(manifest) == [
        "patients are not known for 59 of 60 images; images of one patient may stand on both sides of the split"
    ]
    assert patients_text(manifest) == "1, known of 1 of 60 images"


def test_unknown_patients_are_counted_by_source_whichever_split_they_stand_in():
    patients = [f"p{i}" for i in range(30)] + [None] * 14  # all patients known are in train
    split, source = ["train"] * 30 + ["test"] * 14, ["a"] * 32 + ["b"] * 12
    (said,) = leak_statement(manifest_of(split, patient_id=patients, source=source))
    assert "for 14 of 44 images (b 12, a 2);" in said


def test_of_many_sources_those_with_the_most_unknown_patients_are_named():
    source = [f"s{i}" for i in range(9) for _ in range(i + 1)]
    manifest = manifest_of(["train"] * 45, patient_id=["p"] + [None] * 44, source=source)
    (said,) = leak_statement(manifest)
    assert "for 44 of 45 images (s8 9, s7 8, s6 7, s5 6, s4 5, and 9 of 3 more);" in said


@pytest.mark.parametrize(
    "nobody", ["", "  ", "nan", "NaN", "None", "unknown", " Unknown ", "N/A", "<NA>", "ANONYMOUS", "?"]
)
def test_a_word_for_not_known_is_no_patient(nobody, caplog):
    manifest = manifest_of(["train"] * 6 + ["test"] * 6, patient_id=["p", *[nobody] * 5] * 2)
    assert manifest["patient_id"].notna().sum() == 2
    assert "for 10 of 12 images" in leak_statement(manifest)[-1]
    said = f"patient_id is read as not known in 10 rows ('{nobody.strip()}' 10)"
    assert (said in caplog.text) == bool(nobody.strip())


def test_spaces_around_an_id_make_no_other_patient():
    manifest = manifest_of(["train", "test"], patient_id=["p", " p "])
    assert leak_statement(manifest)[0].startswith("1 of 1 test images are of patients who are in train")


def test_one_patient_for_a_whole_source_is_suspicious():
    patients = ["0"] * 20 + [f"p{i}" for i in range(20)]
    assert leak_statement(manifest_of(["train"] * 40, patient_id=patients)) == []
    source = ["north"] * 20 + ["south"] * 20
    (said,) = leak_statement(manifest_of(["train"] * 40, patient_id=patients, source=source))
    assert "all 20 images of north with a patient have the same one, '0'" in said
