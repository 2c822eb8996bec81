import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from cxrnet.data.duplicates import search as copies
from cxrnet.data.duplicates.search import (
    CORRELATION,
    HASH_BITS,
    RANK_CORRELATION,
    SEARCH_SIZE,
    find_duplicates,
    group_duplicates,
)
from cxrnet.data.images.resize import resize
from cxrnet.data.images.store import load_images
from cxrnet.data.leaks import leaks
from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.covid19_image import covid19_image
from cxrnet.data.sources.phantom import phantom
from cxrnet.data.splits import carve_validation

SIZE = (96, 96)


def pictures(n: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Different smooth pictures, (n, H, W) uint8."""
    noise = np.random.default_rng(0).normal(size=(n, *size))
    smooth = gaussian_filter(noise, (0, 6, 6)) + 0.2 * gaussian_filter(noise, (0, 1.5, 1.5))
    low, high = smooth.min((1, 2), keepdims=True), smooth.max((1, 2), keepdims=True)
    return ((smooth - low) / (high - low) * 255).astype(np.uint8)


def manifest_of(n: int, **columns) -> pd.DataFrame:
    ids = [f"{i:04d}.png" for i in range(n)]
    rows = pd.DataFrame({"image_id": ids, "path": ids, "label": "a", "source": "s", **columns})
    return make_manifest(rows, "test")


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    return np.array(Image.open(buffer))


CHANGES = {
    "recompressed": jpeg,
    "brighter": lambda image: np.minimum(image.astype(int) + 30, 255).astype(np.uint8),
    "less contrast": lambda image: (image * 0.5 + 60).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255) ** 1.8).astype(np.uint8),
    "made smaller": lambda image: resize(resize(image, (70, 70), "stretch"), SIZE, "stretch"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(change):
    originals = pictures(40)
    images = np.concatenate([originals, [CHANGES[change](image) for image in originals]]).astype(np.uint8)
    pairs = find_duplicates(images, manifest_of(80))
    expected = [(f"{i:04d}.png", f"{i + 40:04d}.png") for i in range(40)]
    assert list(zip(pairs["image_id_a"], pairs["image_id_b"], strict=True)) == expected
    assert pairs["kind"].eq("near").all()
    assert pairs["hash_distance"].le(4).all()


def test_same_file_is_exact_and_carries_splits_and_labels():
    images = pictures(4)[[0, 1, 0, 2]]
    manifest = manifest_of(4, sha256=["x", "y", "x", None], split=["train", "train", "test", None], label=list("abcd"))
    (pair,) = find_duplicates(images, manifest).itertuples(index=False)
    assert pair.kind == "exact"
    assert (pair.image_id_a, pair.split_a, pair.label_a) == ("0000.png", "train", "a")
    assert (pair.image_id_b, pair.split_b, pair.label_b) == ("0002.png", "test", "c")
    assert pair.correlation == pytest.approx(1)
    assert pair.hash_distance == 0


def test_ids_are_in_order_whatever_the_order_of_the_rows():
    images = pictures(3)[[0, 1, 0]]
    pairs = find_duplicates(images[::-1], manifest_of(3).iloc[::-1])
    assert pairs[["image_id_a", "image_id_b"]].to_numpy().tolist() == [["0000.png", "0002.png"]]


def test_constant_images_are_no_near_copies():
    assert len(find_duplicates(np.zeros((5, *SIZE), np.uint8), manifest_of(5))) == 0


def test_no_pairs_is_an_empty_table_that_can_be_used():
    manifest = manifest_of(6, split=["train", "test"] * 3)
    pairs = find_duplicates(pictures(6), manifest)
    assert len(pairs) == 0
    assert group_duplicates(pairs, manifest)["group_id"].isna().all()


def test_pairs_across_blocks_are_found():
    images = pictures(1100, (40, 40))
    images[1099], images[1098] = images[3], images[1097]
    pairs = find_duplicates(images, manifest_of(1100))
    found = pairs[["image_id_a", "image_id_b"]].to_numpy().tolist()
    assert found == [["0003.png", "1099.png"], ["1097.png", "1098.png"]]


def all_against_all(images: np.ndarray) -> set[tuple[int, int]]:
    """The definition of a near copy, in float64 for every pair; images (n, 64, 64)."""
    halves = images.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    low = dctn(halves.astype(np.float32), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(-1, 64)
    tiny = np.stack([resize(image, (8, 9), "stretch") for image in images]).astype(int)
    perceptual, difference = low > np.median(low, axis=1, keepdims=True), (np.diff(tiny) > 0).reshape(-1, 64)
    distance = np.minimum(*((bits[:, None] != bits[None]).sum(axis=2) for bits in (perceptual, difference)))
    with np.errstate(invalid="ignore"):  # a constant image correlates with none
        pearson, ranks = np.corrcoef(images.reshape(-1, 4096)), np.corrcoef(rankdata(halves.reshape(-1, 1024), axis=1))
    near = (distance <= HASH_BITS) & ((pearson >= CORRELATION) | (ranks >= RANK_CORRELATION))
    return {(int(a), int(b)) for a, b in np.argwhere(np.triu(near, k=1))}


def found_in(pairs: pd.DataFrame) -> set[tuple[int, int]]:
    return {(int(a[:-4]), int(b[:-4])) for a, b in pairs[["image_id_a", "image_id_b"]].to_numpy()}


def test_what_is_found_is_what_comparing_all_with_all_finds():
    rng = np.random.default_rng(1)
    noisy = pictures(20, SEARCH_SIZE)[rng.integers(0, 20, 380)] + rng.uniform(0, 25, (380, 1, 1)) * rng.normal(
        size=(380, *SEARCH_SIZE)
    )
    random = rng.integers(0, 256, (50, *SEARCH_SIZE))
    images = np.concatenate([noisy.clip(0, 255), random, np.full((5, *SEARCH_SIZE), 9)]).astype(np.uint8)
    expected = all_against_all(images)
    assert 500 < len(expected) < 6000  # of the 7,000 pairs that show one picture
    assert found_in(find_duplicates(images, manifest_of(len(images)))) == expected


@pytest.mark.shared
def test_of_a_real_set_all_pairs_are_found_that_comparing_all_with_all_finds(shared):
    manifest, images = load_images(covid19_image(shared / "data" / "covid19_image"), SEARCH_SIZE, "stretch", "fail")
    pairs = find_duplicates(
        images, manifest.assign(image_id=[f"{i:04d}.png" for i in range(len(manifest))], sha256=None)
    )
    assert found_in(pairs) == all_against_all(images[:])


class OnDisk:
    """Images that can be read by their places only, and not many at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.most = images, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return self.images[rows]


def test_images_are_read_in_blocks():
    once = pictures(100, (40, 40))
    images = OnDisk(np.concatenate([once] * 30))
    pairs = find_duplicates(images, manifest_of(3000))
    assert len(pairs) == 100 * 30 * 29 // 2
    assert images.most <= 2048


class Unread:
    """Images that nobody may look at."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        pytest.fail("searched again")


def six() -> tuple[np.ndarray, pd.DataFrame]:
    """Images of which 0, 2 and 5 are one file and 3 shows the same in another; 1 and 4 are others."""
    images = pictures(6, SEARCH_SIZE)[[0, 1, 0, 0, 4, 0]]
    images[3] = jpeg(images[3])
    return images, manifest_of(6, sha256=["x", "y", "x", "z", "v", "x"])


def test_what_was_found_is_kept_and_the_files_are_not_searched_again(tmp_path):
    images, manifest = six()
    first = find_duplicates(images, manifest, tmp_path)
    assert len(first) == 6
    pd.testing.assert_frame_equal(first, find_duplicates(images, manifest))
    pd.testing.assert_frame_equal(first, find_duplicates(Unread(), manifest, tmp_path))


def test_what_was_kept_serves_other_names_labels_and_splits(tmp_path):
    images, manifest = six()
    find_duplicates(images, manifest, tmp_path)
    splits = pd.array(["train", "val", "test", "val", None, "test"], "string")
    other = manifest.assign(image_id=list("fedcba"), split=splits, label=list("123456"))
    again = find_duplicates(Unread(), other, tmp_path)
    pd.testing.assert_frame_equal(again, find_duplicates(images, other))
    (pair,) = again[(again["image_id_a"] == "a") & (again["image_id_b"] == "d")].itertuples(index=False)
    assert (pair.kind, pair.split_a, pair.split_b, pair.label_a, pair.label_b) == ("exact", "test", "test", "6", "3")


def test_no_pairs_are_kept_too(tmp_path):
    manifest = manifest_of(6, sha256=list("abcdef"))
    find_duplicates(pictures(6, SEARCH_SIZE), manifest, tmp_path)
    assert len(find_duplicates(Unread(), manifest, tmp_path)) == 0


@pytest.mark.parametrize("rule", ["FORMAT", "HASH_BITS", "CORRELATION", "RANK_CORRELATION"])
def test_another_way_to_search_searches_anew(tmp_path, monkeypatch, rule):
    images, manifest = six()
    find_duplicates(images, manifest, tmp_path)
    monkeypatch.setattr(copies, rule, getattr(copies, rule) * 0.5)
    with pytest.raises(pytest.fail.Exception, match="searched again"):
        find_duplicates(Unread(), manifest, tmp_path)


@pytest.mark.parametrize("change", ["another file", "another order", "fewer"])
def test_other_files_are_searched_anew(tmp_path, change):
    images, manifest = six()
    find_duplicates(images, manifest, tmp_path)
    order = {"another file": [0, 1, 2, 3, 4, 5], "another order": [1, 0, 2, 3, 4, 5], "fewer": [1, 2, 3, 4]}[change]
    other, images = manifest.iloc[order].reset_index(drop=True), images[order]
    if change == "another file":
        images[0], other.loc[0, "sha256"] = images[1], "w"
    found = find_duplicates(images, other, tmp_path)
    pd.testing.assert_frame_equal(found, find_duplicates(images, other))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="3 images for 4 rows"):
        find_duplicates(pictures(3), manifest_of(4))


def test_groups_join_chains_and_groups_that_are_there_already():
    images = pictures(6)[[0, 0, 0, 1, 2, 1]]
    manifest = manifest_of(6, group_id=[None, None, None, "g", "g", None])
    groups = group_duplicates(find_duplicates(images, manifest), manifest)["group_id"]
    assert groups.tolist() == ["0000.png"] * 3 + ["0003.png"] * 3


@pytest.mark.shared
def test_known_copies_of_a_real_set(shared):
    manifest, images = load_images(covid19_image(shared / "data" / "covid19_image"), SEARCH_SIZE, "stretch", "fail")
    pairs = find_duplicates(images, manifest)
    names = ("0100.jpeg", "0112.jpg", "COVID-00003b.jpg", "COVID-00012.jpg", "COVID-00022.jpg", "COVID-00033.jpg")
    names += ("COVID-00037.jpg", "auntminnie-2020_01_31_20_24_2322_2020_01_31_x-ray_coronavirus_US.jpg")
    names += ("radiopaedia-2019-novel-coronavirus-infected-pneumonia.jpg",)
    leaked = pairs[(pairs["split_a"] == "test") & (pairs["split_b"] == "train")]
    assert sorted(set(leaked["image_id_a"])) == sorted(f"test/Covid/{name}" for name in names)

    inside = pairs[(pairs["split_a"] == "train") & (pairs["split_b"] == "train")]
    assert inside[["image_id_a", "image_id_b"]].to_numpy().tolist() == [
        ["train/Covid/057.jpeg", "train/Covid/078.jpeg"],  # looked at: one picture, moved by a few pixels
        ["train/Covid/COVID-00033.jpg", "train/Covid/COVID-00037.jpg"],
        ["train/Normal/019.jpeg", "train/Normal/020.jpeg"],
        ["train/Normal/093.jpeg", "train/Normal/094.jpeg"],
        ["train/Viral Pneumonia/019.jpeg", "train/Viral Pneumonia/020.jpeg"],
    ]
    assert (pairs["kind"] == "exact").sum() == 10
    assert (pairs["label_a"] == pairs["label_b"]).all()

    carved = leaks(carve_validation(group_duplicates(pairs, manifest), 0.2, 0))
    assert carved["val"].any == 0
    assert carved["test"].duplicates == 9


def test_planted_copies_are_found_and_nothing_else(tmp_path):
    manifest = phantom(tmp_path, images=40, size=128, seed=1, copies=6)
    manifest, small = load_images(manifest, SEARCH_SIZE, "stretch", "fail")
    pairs = find_duplicates(small, manifest)
    (faults,) = tmp_path.glob("*/faults.csv")
    planted = pd.read_csv(faults)
    assert {frozenset(pair) for pair in pairs[["image_id_a", "image_id_b"]].to_numpy()} == {
        frozenset(pair) for pair in planted[["image_id", "detail"]].to_numpy()
    }
