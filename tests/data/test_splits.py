import numpy as np
import pandas as pd
import pytest

from cxrnet.data.duplicates.search import COPY_SIZE, copy_groups, find_copies
from cxrnet.data.images.store import load_at_sizes
from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.covid19_image import covid19_image
from cxrnet.data.sources.covid_chestxray import covid_chestxray
from cxrnet.data.splits import carve_validation, complete_split, fold_manifest, split_manifest
from cxrnet.errors import CxrnetError

SEVENTY = {"train": 0.7, "val": 0.15, "test": 0.15}


def manifest_of(labels, **columns) -> pd.DataFrame:
    ids = [f"images/{i:06d}.png" for i in range(len(labels))]
    rows = pd.DataFrame({"image_id": ids, "path": ids, "label": list(labels), "source": "s", **columns})
    return make_manifest(rows, "test")


def counts(manifest: pd.DataFrame, fractions) -> tuple[np.ndarray, np.ndarray]:
    """Images by class and split, as they are and as they should be."""
    names = [name for name in fractions if fractions[name]]
    have = pd.crosstab(manifest["label"], manifest["split"]).reindex(columns=names, fill_value=0)
    return have.to_numpy(), have.sum(axis=1).to_numpy()[:, None] * np.array([fractions[n] for n in names])


@pytest.mark.parametrize(
    "fractions",
    [
        SEVENTY,
        {"train": 0.8, "test": 0.2},
        {"train": 0.8, "val": 0.2, "test": 0},
        {"train": 0.8, "val": 0.2, "test": None},
        {"train": 0.34, "val": 0.33, "test": 0.33},
        {"test": 1.0},
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_class_proportions_within_one_image(fractions, seed):
    manifest = manifest_of(["b"] * 111 + ["a"] * 70 + ["Viral Pneumonia"] * 7 + ["c"] * 1003)
    have, share = counts(split_manifest(manifest, fractions, seed), fractions)
    assert have.sum() == len(manifest)
    assert np.abs(have - share).max() <= 1


@pytest.mark.parametrize("n", range(3, 40))
@pytest.mark.parametrize("share", [0.15, 0.05, 0.01])
def test_small_classes_are_in_every_split_and_within_one_image_in_val_and_test(n, share):
    fractions = {"train": 1 - 2 * share, "val": share, "test": share}
    have, wanted = counts(split_manifest(manifest_of(["a"] * n + ["b"] * 300), fractions, 0), fractions)
    assert (have > 0).all()
    assert np.abs(have - wanted)[:, 1:].max() <= 1
    assert np.abs(have - wanted)[:, 0].max() < 2


def test_every_split_gets_every_class_even_a_tiny_one():
    split = split_manifest(manifest_of(["a"] * 3 + ["b"] * 300), SEVENTY, 0)
    assert sorted(split.loc[split["label"] == "a", "split"]) == ["test", "train", "val"]


def test_the_order_of_the_rows_does_not_count_and_stays():
    manifest = manifest_of(["a", "b"] * 50, patient_id=[str(i // 3) for i in range(100)])
    shuffled = manifest.sample(frac=1, random_state=0)
    split, of_shuffled = split_manifest(manifest, SEVENTY, 7), split_manifest(shuffled, SEVENTY, 7)
    assert of_shuffled["image_id"].tolist() == shuffled["image_id"].tolist()
    pd.testing.assert_frame_equal(of_shuffled.sort_values("image_id"), split, check_like=True)
    assert manifest["split"].isna().all()


def test_a_seed_gives_the_same_split_on_every_system():
    split = split_manifest(manifest_of("ab" * 10), {"train": 0.5, "val": 0.25, "test": 0.25}, 3)["split"]
    assert "".join(name[1] for name in split) == "rrarerraaaeerearrerr"


def test_seeds_differ():
    manifest = manifest_of("ab" * 50)
    one, two = (split_manifest(manifest, SEVENTY, seed)["split"] for seed in (0, 1))
    assert (one != two).sum() > 20


def test_a_former_split_is_replaced():
    manifest = manifest_of("ab" * 50, split="test")
    assert set(split_manifest(manifest, {"train": 0.5, "val": 0.5}, 0)["split"]) == {"train", "val"}


def clusters_of(manifest: pd.DataFrame, column: str) -> pd.Series:
    return manifest[manifest[column].notna() & (manifest[column] != "")].groupby(column)["split"].nunique()


@pytest.mark.parametrize("seed", range(5))
def test_patients_and_copies_stay_together_through_each_other(seed):
    rng = np.random.default_rng(seed)
    n = 600
    patient = np.where(rng.random(n) < 0.3, None, rng.integers(0, 200, n).astype(str))
    group = np.where(rng.random(n) < 0.9, None, rng.integers(0, 30, n).astype(str))
    manifest = manifest_of(rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]), patient_id=patient, group_id=group)
    split = split_manifest(manifest, SEVENTY, seed)
    assert clusters_of(split, "patient_id").eq(1).all()
    assert clusters_of(split, "group_id").eq(1).all()
    have, share = counts(split, SEVENTY)
    assert np.abs(have - share).max() <= 1  # single images fill the gaps that groups leave


def test_patients_alone_come_near_to_the_proportions():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 150, 500)
    label = rng.choice(["a", "b", "c"], 150)[patient]
    split = split_manifest(manifest_of(label, patient_id=patient.astype(str)), SEVENTY, 0)
    have, share = counts(split, SEVENTY)
    assert np.abs(have - share).max() <= 2
    assert clusters_of(split, "patient_id").eq(1).all()


def patients_of_sizes(sizes: dict[int, int], mixed: int = 0) -> pd.DataFrame:
    """So many patients by their number of images, four in five with label a; ``mixed`` of them have both labels."""
    size = np.repeat(list(sizes), list(sizes.values()))
    patient = np.repeat(np.arange(len(size)), size)
    label = np.where(patient % 5 == 0, "b", "a")
    first = np.flatnonzero(np.append(True, patient[1:] != patient[:-1]))
    label[first[size > 1][:mixed]] = "b"
    return manifest_of(label, patient_id=[f"p{i}" for i in patient])


def shares_by_size(manifest: pd.DataFrame, splits: list[pd.Series], sizes=(1, 2, 3)) -> pd.DataFrame:
    """How often patients come into each split, by their number of images; the last size is that or more."""
    size = manifest["patient_id"].map(manifest["patient_id"].value_counts()).clip(upper=sizes[-1]).to_numpy()
    first = ~manifest["patient_id"].duplicated().to_numpy()
    parts = pd.concat([pd.DataFrame({"size": size, "split": split.to_numpy()})[first] for split in splits])
    return pd.crosstab(parts["size"], parts["split"], normalize="index")


@pytest.mark.parametrize("sizes", [{1: 120, 2: 40, 3: 15, 4: 8, 9: 2}, {5: 10, 8: 15, 11: 15, 14: 10}])
def test_patients_of_few_and_of_many_images_come_equally_often_into_each_split(sizes):
    manifest = patients_of_sizes(sizes, mixed=6)
    splits = [split_manifest(manifest, SEVENTY, seed) for seed in range(40)]
    found = shares_by_size(manifest, [split["split"] for split in splits], tuple(sizes)[:3])
    assert np.abs(found[["val", "test"]].to_numpy() - 0.15).max() < 0.03
    far = [np.abs(np.subtract(*counts(split, SEVENTY))).max() for split in splits]
    assert max(far) <= (1 if 1 in sizes else 3)


def test_patients_of_few_and_of_many_images_come_equally_often_into_each_fold():
    manifest = patients_of_sizes({1: 40, 2: 40, 3: 15, 4: 10})
    splits = [fold_manifest(manifest, 5, 0, "patient", seed)["split"] for seed in range(40)]
    found = shares_by_size(manifest, splits)
    assert np.abs(found[["val", "test"]].to_numpy() - 0.2).max() < 0.03


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("draw", [split_manifest, fold_manifest])
def test_real_patients_of_few_and_of_many_images_are_tested_equally_often(shared, draw):
    root = shared / "data" / "covid_chestxray"
    rule = {"findings": {"covid": ["*COVID-19*"], "non_covid": ["*"]}, "left_out_findings": ["todo", "Unknown", ""]}
    rows = covid_chestxray(root, views=["PA", "AP"], fallback_views=["AP Supine"], **rule)
    rows, (small,) = load_at_sizes(rows, [(COPY_SIZE, "stretch")], "fail", None)
    manifest = copy_groups(find_copies(small, rows), rows)
    share, arguments = (0.15, (SEVENTY,)) if draw is split_manifest else (0.2, (5, 0, "patient"))
    splits = [draw(manifest, *arguments, seed) for seed in range(200)]
    found = shares_by_size(manifest, [split["split"] for split in splits])
    assert np.abs(found[["val", "test"]].to_numpy() - share).max() < 0.03
    fractions = {"train": 1 - 2 * share, "val": share, "test": share}
    assert max(np.abs(np.subtract(*counts(split, fractions))).max() for split in splits) < 1


def test_a_group_larger_than_a_split_stays_out_of_it_aloud_and_takes_no_fold_for_its_own(caplog):
    label = ["a"] * 300 + ["b"] * 100  # a third of a is copies of one image
    manifest = manifest_of(label, group_id=["g"] * 100 + [None] * 300)
    for seed in range(5):
        split = split_manifest(manifest, SEVENTY, seed)
        assert set(split["split"][:100]) == {"train"}
        said = [record.args for record in caplog.records]
        assert said == [(1, 100, "val", "val"), (1, 100, "test", "test")]
        caplog.clear()
        assert np.abs(np.subtract(*counts(split, SEVENTY))).max() <= 1
    tested = [fold_manifest(manifest, 5, 0, "patient", seed)["split"][0] == "test" for seed in range(40)]
    assert 2 < sum(tested) < 16
    assert not caplog.records  # it is larger than any fold, and comes into one all the same


def test_classes_of_equal_size_give_splits_of_equal_size():
    split = split_manifest(manifest_of("abcd" * 150), SEVENTY, 0)["split"]  # 22.5 of each class for val and for test
    assert split.value_counts().to_dict() == {"train": 420, "val": 90, "test": 90}


def test_one_huge_group_goes_to_train_and_the_rest_makes_up_for_it():
    label = ["a"] * 100
    split = split_manifest(manifest_of(label, patient_id=["p"] * 80 + [None] * 20), SEVENTY, 0)
    have, _ = counts(split, SEVENTY)
    assert have.tolist() == [[80, 10, 10]]


def test_few_groups_still_give_every_split_its_class():
    patient = ["x"] * 10 + ["y"] * 10 + ["z"] + ["w"] * 5 + ["v"] * 5 + ["u"] * 5
    split = split_manifest(manifest_of(["a"] * 21 + ["b"] * 15, patient_id=patient), SEVENTY, 0)
    have, _ = counts(split, SEVENTY)
    assert (have > 0).all()


def test_missing_and_empty_patients_are_nobody():
    split = split_manifest(manifest_of(["a"] * 10 + ["b"] * 10, patient_id=["", None] * 10), SEVENTY, 0)
    have, share = counts(split, SEVENTY)
    assert np.abs(have - share).max() <= 1


def test_a_million_rows():
    n = 1_000_000
    rng = np.random.default_rng(0)
    ids = pd.Series(np.arange(n)).astype("string")
    manifest = pd.DataFrame({"image_id": ids, "label": rng.choice(["a", "b", "c"], n), "group_id": pd.NA})
    patients = pd.Series(rng.integers(0, 100_000, n)).astype("string")
    manifest["patient_id"] = patients.where(pd.Series(rng.random(n) < 0.5))
    split = split_manifest(manifest, SEVENTY, 0)
    have, share = counts(split, SEVENTY)
    assert np.abs(have - share).max() <= 1


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.7, "val": 0.2}, "train 0.7, val 0.2 sum to 0.9; the fractions must sum to 1"),
        ({}, "sum to 0; the fractions must sum to 1"),
        ({"train": 1.2, "val": -0.2}, "train 1.2, val -0.2; each fraction must lie between 0 and 1"),
        ({"train": float("nan")}, "each fraction must lie between 0 and 1"),
        ({"train": 0.8, "holdout": 0.2}, "'holdout' is not a split; use train, val, test"),
    ],
)
def test_impossible_fractions(fractions, message):
    with pytest.raises(CxrnetError, match=message):
        split_manifest(manifest_of("ab" * 10), fractions, 0)


def test_a_class_with_too_few_images():
    with pytest.raises(CxrnetError, match=r"class 'b' has 2 images in 2 groups .* too few for 3 splits .train"):
        split_manifest(manifest_of(["a"] * 50 + ["b"] * 2), SEVENTY, 0)


def test_a_class_with_too_few_patients():
    manifest = manifest_of(["a"] * 50 + ["b"] * 20, patient_id=[None] * 50 + ["p"] * 10 + ["q"] * 10)
    with pytest.raises(CxrnetError, match=r"class 'b' has 20 images in 2 groups .* use fewer splits"):
        split_manifest(manifest, SEVENTY, 0)


def test_groups_that_allow_no_split():
    # Three patients for each class, but one of them has all classes but one image of each.
    patient = ["p", "q", "r", "p", "q", "s", "p", "r", "s"]
    label = ["a", "a", "a", "b", "b", "b", "c", "c", "c"]
    with pytest.raises(CxrnetError, match=r"no image of class '.' is left for .*patients, copies"):
        split_manifest(manifest_of(label, patient_id=patient), SEVENTY, 0)


def test_negative_seed():
    with pytest.raises(CxrnetError, match="seed: -1 is no seed"):
        split_manifest(manifest_of("ab" * 10), SEVENTY, -1)


def published(n: int = 100) -> pd.DataFrame:
    return manifest_of(["a", "b"] * (n // 2), split=["train"] * (n - 20) + ["test"] * 20)


def test_carve_takes_a_stratified_part_of_train_and_leaves_test_alone():
    manifest = published()
    carved = carve_validation(manifest, 0.25, 0)
    test = manifest["split"] == "test"
    assert (carved.loc[test, "split"] == "test").all()
    part = carved[~test.to_numpy()]
    assert pd.crosstab(part["label"], part["split"]).to_numpy().tolist() == [[30, 10], [30, 10]]
    assert manifest["split"].tolist() == published()["split"].tolist()


def test_carve_keeps_patients_together_and_the_order():
    manifest = published().assign(patient_id=[str(i // 4) for i in range(100)]).sample(frac=1, random_state=1)
    carved = carve_validation(manifest, 0.2, 0)
    assert carved["image_id"].tolist() == manifest["image_id"].tolist()
    train = carved[carved["split"] != "test"]
    assert train.groupby("patient_id")["split"].nunique().eq(1).all()
    assert (train["split"] == "val").sum() == 16


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_carve_needs_a_share(fraction):
    with pytest.raises(CxrnetError, match="is no share; give one between 0 and 1"):
        carve_validation(published(), fraction, 0)


def test_carve_needs_train_and_no_val():
    with pytest.raises(CxrnetError, match="no train to carve val from"):
        carve_validation(manifest_of("abab"), 0.2, 0)
    with pytest.raises(CxrnetError, match="val is there already"):
        carve_validation(manifest_of("abab", split=["train", "train", "val", "test"]), 0.2, 0)


def test_complete_split_keeps_what_is_published_and_draws_what_is_missing():
    fractions = {"train": 0.6, "val": 0.2, "test": 0.2}
    published = manifest_of("ab" * 50, split=["train"] * 80 + ["test"] * 20)
    completed = complete_split(published, fractions, 0)
    assert (completed["split"] == "test").equals(published["split"] == "test")
    assert (completed["split"] == "val").sum() == 20  # a quarter of train, as 0.2 is beside 0.6
    assert complete_split(completed, fractions, 1).equals(completed)
    unsplit = manifest_of("ab" * 50)
    assert complete_split(unsplit, fractions, 3).equals(split_manifest(unsplit, fractions, 3))


def test_complete_split_refuses_a_split_with_holes():
    with pytest.raises(CxrnetError, match="1 of 4 images have no split"):
        complete_split(manifest_of("abab", split=["train", "train", "test", None]), SEVENTY, 0)


@pytest.mark.shared
def test_published_split_of_a_real_set(shared):
    carved = carve_validation(covid19_image(shared / "data" / "covid19_image"), 0.2, 0)
    table = pd.crosstab(carved["label"], carved["split"])[["train", "val", "test"]]
    assert table.to_numpy().tolist() == [[89, 22, 26], [56, 14, 20], [56, 14, 20]]


def test_over_all_folds_each_image_is_in_test_once_and_in_val_once():
    manifest = manifest_of(["a"] * 53 + ["b"] * 22)
    splits = [fold_manifest(manifest, 5, fold, "patient", 0)["split"] for fold in range(5)]
    for name in ("test", "val"):
        assert sum((split == name).astype(int) for split in splits).eq(1).all()
    for split in splits:
        parts = pd.crosstab(manifest["label"], split)
        assert (np.abs(parts[["test", "val"]].to_numpy() - [[10.6], [4.4]]) <= 1).all()


def test_folds_keep_patients_together_and_depend_on_the_seed():
    manifest = manifest_of(["a", "b"] * 60, patient_id=[f"p{i // 5}" for i in range(120)])
    for fold in range(4):
        split = fold_manifest(manifest, 4, fold, "patient", 0)
        assert split.groupby("patient_id")["split"].nunique().eq(1).all()
    assert not fold_manifest(manifest, 4, 0, "patient", 0)["split"].equals(
        fold_manifest(manifest, 4, 0, "patient", 1)["split"]
    )


@pytest.mark.parametrize("folds", [2, 0, 2.5, True, "5"])
def test_fewer_than_three_folds_are_none(folds):
    with pytest.raises(CxrnetError, match=r"folds: .*whole number from 3 on"):
        fold_manifest(manifest_of("ab" * 9), folds, 0, "patient", 0)


def test_a_class_with_fewer_images_than_folds():
    with pytest.raises(CxrnetError, match=r"class 'b' has 4 images in 4 groups .* too few for 5 splits"):
        fold_manifest(manifest_of("aaaaaaaabbbb"), 5, 0, "patient", 0)


def test_folds_by_image_part_patients_on_demand_and_stay_stratified():
    manifest = manifest_of(["a", "b"] * 60, patient_id=[f"p{i // 5}" for i in range(120)])
    split = fold_manifest(manifest, 4, 0, "image", 0)
    assert split.groupby("patient_id")["split"].nunique().gt(1).any()
    assert (split[split["split"] == "test"]["label"].value_counts() == 15).all()
    with pytest.raises(CxrnetError, match=r"folds_by: 'hospital' is not known"):
        fold_manifest(manifest, 4, 0, "hospital", 0)
