import numpy as np
import pandas as pd
import pytest

from cxrnet.data.duplicates import SEARCH_SIZE, find_duplicates, group_duplicates
from cxrnet.data.images.store import load_at_sizes
from cxrnet.data.sources.covid_chestxray import covid_chestxray
from cxrnet.data.splits import carve_validation, complete_split, fold_manifest, split_manifest
from cxrnet.errors import CxrnetError

SEVENTY = {"train": 0.7, "val": 0.15, "test": 0.15}


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
@pytest.mark.parametrize("seed", [0, 2**40])
def test_class_proportions_within_one_image(fractions, seed, manifest_of):
    manifest = manifest_of(["b"] * 111 + ["a"] * 70 + ["Viral Pneumonia"] * 7 + ["c"] * 1003)
    have, share = counts(split_manifest(manifest, fractions, seed), fractions)
    assert have.sum() == len(manifest)
    assert np.abs(have - share).max() <= 1


@pytest.mark.parametrize("n", [3, 4, 7, 12, 39])
@pytest.mark.parametrize("share", [0.15, 0.01])
def test_small_classes_are_in_every_split_and_within_one_image_in_val_and_test(n, share, manifest_of):
    fractions = {"train": 1 - 2 * share, "val": share, "test": share}
    have, wanted = counts(split_manifest(manifest_of(["a"] * n + ["b"] * 300), fractions, 0), fractions)
    assert (have > 0).all()
    assert np.abs(have - wanted)[:, 1:].max() <= 1
    assert np.abs(have - wanted)[:, 0].max() < 2


def test_the_order_of_the_rows_does_not_count_and_stays(manifest_of):
    manifest = manifest_of(["a", "b"] * 50, patient_id=[str(i // 3) for i in range(100)])
    shuffled = manifest.sample(frac=1, random_state=0)
    split, of_shuffled = split_manifest(manifest, SEVENTY, 7), split_manifest(shuffled, SEVENTY, 7)
    assert of_shuffled["image_id"].tolist() == shuffled["image_id"].tolist()
    pd.testing.assert_frame_equal(of_shuffled.sort_values("image_id"), split, check_like=True)
    assert manifest["split"].isna().all()
    assert (split_manifest(manifest, SEVENTY, 8)["split"] != split["split"]).sum() > 20


def test_a_seed_gives_the_same_split_on_every_system(manifest_of):
    split = split_manifest(manifest_of("ab" * 10), {"train": 0.5, "val": 0.25, "test": 0.25}, 3)["split"]
    assert "".join(name[1] for name in split) == "rrarerraaaeerearrerr"


@pytest.mark.parametrize("seed", range(3))
def test_patients_and_duplicates_stay_together_through_each_other(manifest_of, seed):
    rng = np.random.default_rng(seed)
    n = 600
    patient = np.where(rng.random(n) < 0.3, rng.choice([None, ""], n), rng.integers(0, 200, n).astype(str))
    group = np.where(rng.random(n) < 0.9, None, rng.integers(0, 30, n).astype(str))
    labels = rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])
    split = split_manifest(manifest_of(labels, patient_id=patient, group_id=group, split="test"), SEVENTY, seed)
    for column in ("patient_id", "group_id"):
        assert split.groupby(column)["split"].nunique().eq(1).all()
    assert np.abs(np.subtract(*counts(split, SEVENTY))).max() <= 1  # single images fill the gaps that groups leave


def patients_of_sizes(manifest_of, sizes: dict[int, int], mixed: int = 0) -> pd.DataFrame:
    """So many patients by their number of images, four in five with label a; ``mixed`` of them have both labels."""
    size = np.repeat(list(sizes), list(sizes.values()))
    patient = np.repeat(np.arange(len(size)), size)
    label = np.where(patient % 5 == 0, "b", "a")
    first = np.flatnonzero(np.append(True, patient[1:] != patient[:-1]))
    label[first[size > 1][:mixed]] = "b"
    return manifest_of(label, patient_id=[f"p{i}" for i in patient])


def shares_by_size(manifest: pd.DataFrame, splits: list[pd.Series], sizes=(1, 2, 3)) -> pd.DataFrame:
    """Count how often patients come into each split, by their number of images; the last size is that or more."""
    size = manifest["patient_id"].map(manifest["patient_id"].value_counts()).clip(upper=sizes[-1]).to_numpy()
    first = ~manifest["patient_id"].duplicated().to_numpy()
    parts = pd.concat([pd.DataFrame({"size": size, "split": split.to_numpy()})[first] for split in splits])
    return pd.crosstab(parts["size"], parts["split"], normalize="index")


@pytest.mark.parametrize("sizes", [{1: 120, 2: 40, 3: 15, 4: 8, 9: 2}, {5: 10, 8: 15, 11: 15, 14: 10}])
def test_patients_of_few_and_of_many_images_come_equally_often_into_each_split(manifest_of, sizes):
    manifest = patients_of_sizes(manifest_of, sizes, mixed=6)
    splits = [split_manifest(manifest, SEVENTY, seed) for seed in range(40)]
    found = shares_by_size(manifest, [split["split"] for split in splits], tuple(sizes)[:3])
    assert np.abs(found[["val", "test"]].to_numpy() - 0.15).max() < 0.03
    far = [np.abs(np.subtract(*counts(split, SEVENTY))).max() for split in splits]
    assert max(far) <= (1 if 1 in sizes else 3)


def test_patients_of_few_and_of_many_images_come_equally_often_into_each_fold(manifest_of):
    manifest = patients_of_sizes(manifest_of, {1: 40, 2: 40, 3: 15, 4: 10})
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
    rows, (small,) = load_at_sizes(rows, [(SEARCH_SIZE, "stretch")], "fail", None)
    manifest = group_duplicates(find_duplicates(small, rows), rows)
    share, arguments = (0.15, (SEVENTY,)) if draw is split_manifest else (0.2, (5, 0, "patient"))
    splits = [draw(manifest, *arguments, seed) for seed in range(200)]
    found = shares_by_size(manifest, [split["split"] for split in splits])
    assert np.abs(found[["val", "test"]].to_numpy() - share).max() < 0.03
    fractions = {"train": 1 - 2 * share, "val": share, "test": share}
    assert max(np.abs(np.subtract(*counts(split, fractions))).max() for split in splits) < 1


def test_a_group_larger_than_a_split_stays_out_of_it_aloud_and_takes_no_fold_for_its_own(caplog, manifest_of):
    label = ["a"] * 300 + ["b"] * 100  # a third of a is duplicates of one image
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


def test_many_rows():
    n = 300_000
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
        (3, "data.split.fractions: 3 is no mapping; give {train"),
        ({"train": 1.2, "val": -0.2}, "train 1.2, val -0.2; each fraction must lie between 0 and 1"),
        ({"train": float("nan")}, "each fraction must lie between 0 and 1"),
        ({"train": 0.8, "holdout": 0.2}, "'holdout' is not a split; use train, val, test"),
    ],
)
def test_impossible_fractions(fractions, message, manifest_of):
    with pytest.raises(CxrnetError, match=message):
        split_manifest(manifest_of("ab" * 10), fractions, 0)


@pytest.mark.parametrize(
    ("labels", "patients", "message"),
    [
        ("a" * 50 + "bb", None, r"class 'b' has 2 images in 2 clusters .* too few for 3 splits .train"),
        (
            "a" * 50 + "b" * 20,
            [None] * 50 + ["p"] * 10 + ["q"] * 10,
            r"class 'b' has 20 images in 2 clusters .* use fewer splits",
        ),
        # Three patients for each class, but one of them has all classes but one image of each.
        ("aaabbbccc", list("pqrpqsprs"), r"no image of class '.' is left for .*patients, duplicates"),
    ],
)
def test_classes_that_allow_no_split(manifest_of, labels, patients, message):
    with pytest.raises(CxrnetError, match=message):
        split_manifest(manifest_of(labels, patient_id=patients), SEVENTY, 0)


@pytest.fixture
def published(manifest_of) -> pd.DataFrame:
    return manifest_of("ab" * 50, split=["train"] * 80 + ["test"] * 20)


def test_carve_takes_a_stratified_part_of_train_and_leaves_test_alone(published):
    manifest = published.copy()
    carved = carve_validation(manifest, 0.25, 0)
    table = pd.crosstab(carved["label"], carved["split"])[["train", "val", "test"]]
    assert table.to_numpy().tolist() == [[30, 10, 10], [30, 10, 10]]
    assert (carved["split"] == "test").equals(manifest["split"] == "test")
    assert manifest.equals(published)


@pytest.mark.parametrize(
    ("split", "fraction", "message"),
    [
        *((["train"] * 3 + ["test"], fraction, "is no share; give one between 0 and 1") for fraction in (0, 1, -0.1)),
        (None, 0.2, "no train to carve val from"),
        (["train", "train", "val", "test"], 0.2, "val is there already"),
    ],
)
def test_carve_needs_a_share_train_and_no_val(manifest_of, split, fraction, message):
    with pytest.raises(CxrnetError, match=message):
        carve_validation(manifest_of("abab", split=split), fraction, 0)


def test_complete_split_keeps_what_is_published_and_draws_what_is_missing(published, manifest_of):
    fractions = {"train": 0.6, "val": 0.2, "test": 0.2}
    completed = complete_split(published, fractions, 0)
    assert (completed["split"] == "test").equals(published["split"] == "test")
    assert (completed["split"] == "val").sum() == 20  # a quarter of train, as 0.2 is beside 0.6
    assert complete_split(completed, fractions, 1).equals(completed)
    unsplit = manifest_of("ab" * 50)
    assert complete_split(unsplit, fractions, 3).equals(split_manifest(unsplit, fractions, 3))
    with pytest.raises(CxrnetError, match="1 of 4 images have no split"):
        complete_split(manifest_of("abab", split=["train", "train", "test", None]), SEVENTY, 0)


def test_over_all_folds_each_image_is_in_test_once_and_in_val_once(manifest_of):
    manifest = manifest_of(["a"] * 53 + ["b"] * 22)
    splits = [fold_manifest(manifest, 5, fold, "patient", 0)["split"] for fold in range(5)]
    for name in ("test", "val"):
        assert sum((split == name).astype(int) for split in splits).eq(1).all()
    for split in splits:
        parts = pd.crosstab(manifest["label"], split)
        assert (np.abs(parts[["test", "val"]].to_numpy() - [[10.6], [4.4]]) <= 1).all()


@pytest.mark.parametrize(("by", "parted"), [("patient", 0), ("image", 20)])
def test_folds_keep_patients_together_or_part_them_on_demand_and_depend_on_the_seed(manifest_of, by, parted):
    manifest = manifest_of(["a", "b"] * 60, patient_id=[f"p{i // 5}" for i in range(120)])
    for fold in range(4):
        split = fold_manifest(manifest, 4, fold, by, 0)
        assert (split.groupby("patient_id")["split"].nunique() > 1).sum() >= parted
        assert parted or split.groupby("patient_id")["split"].nunique().eq(1).all()
        assert (split[split["split"] == "test"]["label"].value_counts() == 15).all()
    assert not fold_manifest(manifest, 4, 3, by, 1)["split"].equals(split["split"])


@pytest.mark.parametrize(
    ("folds", "by", "seed", "message"),
    [
        *((folds, "patient", 0, "folds: .*whole number from 3 on") for folds in (2, 0, 2.5, True, "5")),
        (5, "patient", 0, "class 'b' has 4 images in 4 clusters .* too few for 5 splits"),
        (4, "hospital", 0, "folds_by: 'hospital' is not known"),
        (4, "image", -1, "seed: -1 is no seed"),
    ],
)
def test_impossible_folds(manifest_of, folds, by, seed, message):
    with pytest.raises(CxrnetError, match=message):
        fold_manifest(manifest_of("aaaaaaaabbbb"), folds, 0, by, seed)
