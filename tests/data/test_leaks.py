import numpy as np
import pandas as pd
import pytest

from cxrnet.data.leaks import (
    conflict_statement,
    leak_statement,
    leaked_images,
    leaks,
    patients_text,
    write_conflicts,
)

UNKNOWN = "images of one patient may be in training and in test"


def test_counts_are_those_of_looking_at_each_image_and_empty_cells_tie_nothing(manifest_of):
    rng = np.random.default_rng(0)
    columns = {name: rng.choice([None, "", *"abcdefghij"], 60) for name in ("patient_id", "sha256", "group_id")}
    manifest = manifest_of("x" * 60, split=rng.choice([None, *["train"] * 3, "val", *["test"] * 4], 60), **columns)
    before = manifest[manifest["split"].isin(["train", "val"])]
    test = manifest[manifest["split"] == "test"]
    shared = {name: [bool(cell) and cell in set(before[name]) for cell in test[name].fillna("")] for name in columns}
    leak = leaks(manifest)["test"]
    assert leak.patients_known == (test["patient_id"].fillna("") != "").sum()
    assert leak.same_patient == sum(shared["patient_id"])
    assert leak.duplicates == np.sum(np.any([shared["sha256"], shared["group_id"]], axis=0))
    assert leaked_images(manifest, "test") == test["image_id"][np.any(list(shared.values()), axis=0)].tolist()


@pytest.mark.parametrize(
    ("split", "columns", "sentences"),
    [
        (["train", "val", "test"], {"patient_id": ["p", "q", "r"]}, []),
        (["train", "val", "test"], {}, [f"patients are not known; {UNKNOWN}"]),
        (
            ["train", "train", "val", "test", "test", "test"],
            {"patient_id": ["p", "q", "v", "p", "t", "v"], "group_id": ["g", None, "g", None, "g", None]},
            [
                "1 of 3 test images have a duplicate in train or val; the test results are too optimistic",
                "2 of 3 test images show patients who also have images in train or val",
                "1 of 1 val images have a duplicate in train; the val results are too optimistic",
            ],
        ),
        (
            ["train", "val"],
            {"patient_id": ["p", " p "]},  # spaces around an id make no other patient
            ["1 of 1 val images show patients who also have images in train"],
        ),
        (
            ["train", "test"],
            {"patient_id": ["1", "2"], "source": "phantom"},
            ["the images are synthetic; the result says nothing about patients"],
        ),
        (
            ["train"] * 40 + ["test"] * 20,
            {"patient_id": ["p"] + [None] * 59},
            [f"patients are not known for 59 of 60 images; {UNKNOWN}"],
        ),
        (  # all patients known are in train
            ["train"] * 30 + ["test"] * 14,
            {"patient_id": [f"p{i}" for i in range(30)] + [None] * 14, "source": ["a"] * 32 + ["b"] * 12},
            [f"patients are not known for 14 of 44 images (12 in b, 2 in a); {UNKNOWN}"],
        ),
        (
            ["train"] * 45,
            {"patient_id": ["p"] + [None] * 44, "source": [f"s{i}" for i in range(9) for _ in range(i + 1)]},
            ["patients are not known for 44 of 45 images (9 in s8, 8 in s7, 7 in s6, 6 in s5, 5 in s4, 9 in 3 "],
        ),
        (["train"] * 40, {"patient_id": ["0"] * 20 + [f"p{i}" for i in range(20)]}, []),
        (
            ["train"] * 40,
            {"patient_id": ["0"] * 20 + [f"p{i}" for i in range(20)], "source": ["north"] * 20 + ["south"] * 20},
            ["north: all 20 images with a patient_id have the same one, '0'; if it stands"],
        ),
    ],
)
def test_leaks_and_unknown_patients_are_stated(manifest_of, split, columns, sentences):
    said = leak_statement(manifest_of(["a"] * len(split), split=split, **columns))
    assert [text[: len(expected)] for text, expected in zip(said, sentences, strict=True)] == sentences


def test_the_number_of_patients(manifest_of):
    assert patients_text(manifest_of("aaa")) == "not known"
    assert patients_text(manifest_of("aaa", patient_id=["p", "p", None])) == "1, known for 2 of 3 images"
    assert patients_text(manifest_of("aa", patient_id=["p", "q"])) == "2"


@pytest.mark.parametrize(
    "nobody", ["", "  ", "nan", "NaN", "None", "unknown", " Unknown ", "N/A", "<NA>", "ANONYMOUS", "?"]
)
def test_a_word_for_not_known_is_no_patient(manifest_of, nobody, caplog):
    manifest = manifest_of("a" * 12, split=["train"] * 6 + ["test"] * 6, patient_id=["p", *[nobody] * 5] * 2)
    assert manifest["patient_id"].notna().sum() == 2
    said = f"patient_id is read as not known in 10 rows ('{nobody.strip()}' 10)"
    assert (said in caplog.text) == bool(nobody.strip())


def pairs_of(*pairs: tuple[int, int]) -> pd.DataFrame:
    names = [(f"{a:04d}.png", f"{b:04d}.png") for a, b in pairs]
    kinds = ["cropped", "same file"] * len(names)
    return pd.DataFrame(names, columns=["image_id_a", "image_id_b"]).assign(kind=kinds[: len(names)])


def test_all_images_of_a_group_with_two_labels_are_listed_wherever_they_stand(manifest_of, tmp_path):
    manifest = manifest_of("XXYYYXZ", split=["train", "train", "test", "train", "val", "train", "test"])
    pairs = pairs_of((0, 1), (1, 2), (3, 4), (5, 6), (5, 99))  # 0 = 1 = 2, 3 = 4, 5 = 6
    write_conflicts(pairs, manifest, tmp_path)
    found = pd.read_csv(tmp_path / "label_conflicts.csv")
    assert found[["group", "image_id", "label", "split", "kind"]].to_numpy().tolist() == [
        ["0000.png", "0000.png", "X", "train", "cropped"],
        ["0000.png", "0001.png", "X", "train", "cropped, same file"],
        ["0000.png", "0002.png", "Y", "test", "same file"],
        ["0005.png", "0005.png", "X", "train", "same file"],
        ["0005.png", "0006.png", "Z", "test", "same file"],
    ]


@pytest.mark.parametrize(
    ("labels", "pairs", "said"),
    [
        ("XYZX", [(0, 1), (0, 2), (1, 2)], "3 images are duplicates with different labels (0000.png (X) = 0001"),
        ("XY" * 5, [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)], "0005.png (Y); and 2 more); label_conflicts.csv lists"),
        ("XYXX", [(2, 3)], None),
        ("XYXX", [], None),
    ],
)
def test_different_labels_are_counted_and_a_few_named(manifest_of, labels, pairs, said):
    patients = ["p", "p", *["q"] * (len(labels) - 2)]  # for whom different labels are normal
    found = conflict_statement(pairs_of(*pairs), manifest_of(labels, patient_id=patients))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
