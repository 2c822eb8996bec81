import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from cxrnet.data import duplicates
from cxrnet.data.duplicates import SEARCH_SIZE, find_duplicates, group_duplicates
from cxrnet.data.images.reader import resize
from cxrnet.data.images.store import load_images
from cxrnet.data.leaks import leaks
from cxrnet.data.sources.covid19_image import covid19_image
from cxrnet.data.sources.phantom import phantom
from cxrnet.data.splits import carve_validation


def pictures(n: int) -> np.ndarray:
    """Different smooth pictures, (n, 64, 64) uint8."""
    noise = np.random.default_rng(0).normal(size=(n, *SEARCH_SIZE))
    smooth = gaussian_filter(noise, (0, 6, 6)) + 0.2 * gaussian_filter(noise, (0, 1.5, 1.5))
    low, high = smooth.min((1, 2), keepdims=True), smooth.max((1, 2), keepdims=True)
    return ((smooth - low) / (high - low) * 255).astype(np.uint8)


def found_in(pairs: pd.DataFrame) -> list[tuple[int, int]]:
    return [(int(a[:-4]), int(b[:-4])) for a, b in pairs[["image_id_a", "image_id_b"]].to_numpy()]


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    return np.array(Image.open(buffer))


CHANGES = {
    "recompressed": jpeg,
    "brighter": lambda image: np.minimum(image.astype(int) + 30, 255).astype(np.uint8),
    "less contrast": lambda image: (image * 0.5 + 60).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255) ** 1.8).astype(np.uint8),
    "made smaller": lambda image: resize(resize(image, (46, 46), "stretch"), SEARCH_SIZE, "stretch"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_duplicates_are_found_and_nothing_else(change, manifest_of):
    originals = pictures(40)
    images = np.concatenate([originals, [CHANGES[change](image) for image in originals]]).astype(np.uint8)
    pairs = find_duplicates(images, manifest_of("a" * 80))
    assert found_in(pairs) == [(i, i + 40) for i in range(40)]
    assert pairs["kind"].eq("near").all()
    assert pairs["hash_distance"].le(4).all()


def test_same_file_is_exact_and_carries_splits_and_labels(manifest_of):
    manifest = manifest_of("abcd", sha256=["x", "y", "x", None], split=["train", "train", "test", None])
    order = [3, 2, 1, 0]  # ids are in order whatever the order of the rows
    (pair,) = find_duplicates(pictures(4)[[0, 1, 0, 2]][order], manifest.iloc[order]).itertuples(index=False)
    assert pair.kind == "exact"
    assert (pair.image_id_a, pair.split_a, pair.label_a) == ("0000.png", "train", "a")
    assert (pair.image_id_b, pair.split_b, pair.label_b) == ("0002.png", "test", "c")
    assert pair.correlation == pytest.approx(1)
    assert pair.hash_distance == 0


def test_no_pairs_is_an_empty_table_that_can_be_used(manifest_of):
    manifest = manifest_of("a" * 6, split=["train", "test"] * 3)
    pairs = find_duplicates(np.concatenate([pictures(3), np.zeros((3, *SEARCH_SIZE), np.uint8)]), manifest)
    assert len(pairs) == 0  # constant images are no near-duplicates
    assert group_duplicates(pairs, manifest)["group_id"].isna().all()


def test_groups_join_chains_and_groups_that_are_there_already(manifest_of):
    manifest = manifest_of("a" * 6, group_id=[None, None, None, "g", "g", None])
    groups = group_duplicates(find_duplicates(pictures(6)[[0, 0, 0, 1, 2, 1]], manifest), manifest)["group_id"]
    assert groups.tolist() == ["0000.png"] * 3 + ["0003.png"] * 3


def all_against_all(images: np.ndarray) -> list[tuple[int, int]]:
    """The definition of a near-duplicate, in float64 for every pair; images (n, 64, 64)."""
    halves = images.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4))
    low = dctn(halves.astype(np.float32), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(-1, 64)
    tiny = np.stack([resize(image, (8, 9), "stretch") for image in images]).astype(int)
    perceptual, difference = low > np.median(low, axis=1, keepdims=True), (np.diff(tiny) > 0).reshape(-1, 64)
    distance = np.minimum(*((bits[:, None] != bits[None]).sum(axis=2) for bits in (perceptual, difference)))
    with np.errstate(invalid="ignore"):  # a constant image correlates with none
        pearson, ranks = np.corrcoef(images.reshape(-1, 4096)), np.corrcoef(rankdata(halves.reshape(-1, 1024), axis=1))
    near = (distance <= 4) & ((pearson >= 0.98) | (ranks >= 0.985))
    return [(int(a), int(b)) for a, b in np.argwhere(np.triu(near, k=1))]


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    """Pictures that show one of twenty, more or less, random ones, and some that are constant, (600, 64, 64) uint8."""
    rng = np.random.default_rng(1)
    shown = pictures(20)[rng.integers(0, 20, 540)] + rng.uniform(0, 25, (540, 1, 1)) * rng.normal(size=(540, 64, 64))
    random, constant = rng.integers(0, 256, (50, *SEARCH_SIZE)), np.full((10, *SEARCH_SIZE), 9)
    return np.concatenate([shown.clip(0, 255), random, constant]).astype(np.uint8)


def test_the_search_finds_what_comparing_all_with_all_finds(noisy, manifest_of):
    expected = all_against_all(noisy)
    assert 500 < len(expected) < 12000  # of the 14,000 pairs that show one picture
    assert found_in(find_duplicates(noisy, manifest_of("a" * len(noisy)))) == expected
    mixed = np.random.default_rng(2).permutation(len(noisy))  # pairs far apart in the table
    again = find_duplicates(noisy[mixed], manifest_of("a" * len(noisy)))
    assert sorted(tuple(sorted(mixed[list(pair)])) for pair in found_in(again)) == expected


class OnDisk:
    """Images that can be read by their places only, and not many at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.most = images, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return self.images[rows]


def test_images_are_read_in_blocks(manifest_of):
    images = OnDisk(np.concatenate([pictures(100)] * 30))
    assert len(find_duplicates(images, manifest_of("a" * 3000))) == 100 * 30 * 29 // 2
    assert images.most <= 2048


class Unread:
    """Images that nobody may look at."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        pytest.fail("searched again")


@pytest.fixture
def six(tmp_path, manifest_of) -> tuple[np.ndarray, pd.DataFrame]:
    """Images of which 0, 2 and 5 are one file and 3 shows the same in another; the search is kept in tmp_path."""
    images = pictures(6)[[0, 1, 0, 0, 4, 0]]
    images[3] = jpeg(images[3])
    manifest = manifest_of("a" * 6, sha256=["x", "y", "x", "z", "v", "x"])
    find_duplicates(images, manifest, tmp_path)
    return images, manifest


def test_what_was_kept_serves_other_names_labels_and_splits(tmp_path, six):
    images, manifest = six
    splits = pd.array(["train", "val", "test", "val", None, "test"], "string")
    other = manifest.assign(image_id=list("fedcba"), split=splits, label=list("123456"))
    again = find_duplicates(Unread(), other, tmp_path)
    assert len(again) == 6
    pd.testing.assert_frame_equal(again, find_duplicates(images, other))
    (pair,) = again[(again["image_id_a"] == "a") & (again["image_id_b"] == "d")].itertuples(index=False)
    assert (pair.kind, pair.split_a, pair.split_b, pair.label_a, pair.label_b) == ("exact", "test", "test", "6", "3")


@pytest.mark.parametrize("rule", ["FORMAT", "_HASH_BITS", "_CORRELATION", "_RANK_CORRELATION"])
def test_another_way_to_search_searches_anew(tmp_path, monkeypatch, six, rule):
    monkeypatch.setattr(duplicates, rule, getattr(duplicates, rule) * 0.5)
    with pytest.raises(pytest.fail.Exception, match="searched again"):
        find_duplicates(Unread(), six[1], tmp_path)


@pytest.mark.parametrize("change", ["another file", "another order", "fewer"])
def test_other_files_are_searched_anew(tmp_path, six, change):
    images, manifest = six
    order = {"another file": [0, 1, 2, 3, 4, 5], "another order": [1, 0, 2, 3, 4, 5], "fewer": [1, 2, 3, 4]}[change]
    other, images = manifest.iloc[order].reset_index(drop=True), images[order]
    if change == "another file":
        images[0], other.loc[0, "sha256"] = images[1], "w"
    found = find_duplicates(images, other, tmp_path)
    pd.testing.assert_frame_equal(found, find_duplicates(images, other))


@pytest.mark.parametrize(("shape", "message"), [((3, 64, 64), "3 images for 4 rows"), ((4, 96, 96), "64 x 64")])
def test_number_and_size_of_the_images_must_agree(manifest_of, shape, message):
    with pytest.raises(ValueError, match=message):
        find_duplicates(np.zeros(shape, np.uint8), manifest_of("abcd"))


@pytest.mark.shared
def test_known_duplicates_of_a_real_set(shared):
    manifest, images = load_images(covid19_image(shared / "data" / "covid19_image"), SEARCH_SIZE, "stretch", "fail")
    pairs = find_duplicates(images, manifest)
    numbered = manifest.assign(image_id=[f"{i:04d}.png" for i in range(len(manifest))], sha256=None)
    assert found_in(find_duplicates(images, numbered)) == all_against_all(images[:])

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


def test_planted_duplicates_are_found_and_nothing_else(tmp_path):
    manifest = phantom(tmp_path, images=40, size=128, seed=1, duplicates=6)
    manifest, small = load_images(manifest, SEARCH_SIZE, "stretch", "fail")
    pairs = find_duplicates(small, manifest)
    (faults,) = tmp_path.glob("*/faults.csv")
    planted = pd.read_csv(faults)
    assert {frozenset(pair) for pair in pairs[["image_id_a", "image_id_b"]].to_numpy()} == {
        frozenset(pair) for pair in planted[["image_id", "detail"]].to_numpy()
    }
