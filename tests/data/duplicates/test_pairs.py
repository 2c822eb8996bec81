import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from cxrnet.data.duplicates import KINDS, SEARCH_SIZE, evidence, find_duplicates, group_duplicates, rules
from cxrnet.data.images.reader import resize
from cxrnet.data.images.store import load_images
from cxrnet.data.leaks import leaks
from cxrnet.data.sources.covid19_image import covid19_image
from cxrnet.data.sources.covid19_radiography import covid19_radiography
from cxrnet.data.sources.phantom import phantom
from cxrnet.data.splits import carve_validation

SIDE = 128  # of the pictures that are changed before they are searched


def pictures(n: int, side: int = SEARCH_SIZE[0], seed: int = 0) -> np.ndarray:
    """Different smooth pictures with some detail, (n, side, side) uint8."""
    noise = np.random.default_rng(seed).normal(size=(n, side, side))
    smooth = [gaussian_filter(noise, (0, side / share, side / share)) for share in (10, 20, 40)]
    mixed = sum(each / each.std() for each in smooth)
    low, high = mixed.min((1, 2), keepdims=True), mixed.max((1, 2), keepdims=True)
    return ((mixed - low) / (high - low) * 255).astype(np.uint8)


def searched(images) -> np.ndarray:
    return np.stack([resize(np.asarray(image), SEARCH_SIZE, "stretch") for image in images])


def found_in(pairs: pd.DataFrame) -> list[tuple[int, int]]:
    return [(int(a[:-4]), int(b[:-4])) for a, b in pairs[["image_id_a", "image_id_b"]].to_numpy()]


def jpeg(image: Image.Image, quality: int = 10) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def labelled(image: Image.Image) -> Image.Image:
    drawn = image.copy()
    drawn.paste(255, (4, 4, 32, 32))
    return drawn


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((6, 3, 122, 128))


CHANGES = {
    "jpeg": (jpeg, "recompressed"),
    "paler": (lambda image: image.point(lambda grey: 0.7 * grey + 60), "recompressed"),
    "gamma": (lambda image: image.point(lambda grey: 255 * (grey / 255) ** 2), "recompressed"),
    "equalised": (ImageOps.equalize, "recompressed"),
    "half the size": (lambda image: image.resize((64, 64)), "recompressed"),
    "another aspect": (lambda image: image.resize((160, 100)), "recompressed"),
    "cropped": (cropped, "cropped"),
    "framed": (lambda image: ImageOps.expand(image, 12, fill=255), "framed"),
    "padded": (lambda image: ImageOps.expand(image, (0, 0, 12, 0)), "framed"),
    "turned": (lambda image: image.rotate(5, Image.Resampling.BILINEAR), "turned"),
    "mirrored": (ImageOps.mirror, "mirrored"),
    "inverted": (ImageOps.invert, "inverted"),
    "labelled": (labelled, "annotated"),
    "cropped, turned": (lambda image: cropped(image).rotate(-4, Image.Resampling.BILINEAR), "turned"),
    "mirrored, inverted": (lambda image: ImageOps.invert(ImageOps.mirror(image)), "mirrored"),
    "framed, labelled": (lambda image: labelled(ImageOps.expand(image, 8)), "framed"),
    "inverted, cropped": (lambda image: cropped(ImageOps.invert(image)), "inverted"),
}


@pytest.fixture(scope="module")
def chests(tmp_path_factory) -> list[Image.Image]:
    """Synthetic radiographs of 24 patients."""
    rows = phantom(tmp_path_factory.mktemp("chests"), images=64, size=SIDE, seed=3).drop_duplicates("patient_id")
    return [Image.open(path).convert("L") for path in rows["path"].head(24)]


@pytest.mark.parametrize("name", CHANGES)
def test_copies_are_found_with_what_was_done_to_them_and_nothing_else(name, manifest_of, chests):
    change, kind = CHANGES[name]
    pairs = find_duplicates(searched([*chests, *map(change, chests)]), manifest_of("a" * 48))
    assert found_in(pairs) == [(i, i + 24) for i in range(24)]
    assert pairs["kind"].eq(kind).sum() >= 23, pairs["kind"].value_counts()
    assert pairs["mirrored"].eq("mirrored" in name).all()
    assert pairs["inverted"].eq("inverted" in name).all()
    assert pairs["correlation"].min() > evidence.CORRELATION


def test_the_evidence_says_by_how_much(manifest_of, chests):
    turned = [image.rotate(4, Image.Resampling.BILINEAR) for image in chests]
    pairs = find_duplicates(searched([*chests, *turned]), manifest_of("a" * 48))
    assert pairs["angle"].abs().to_numpy() == pytest.approx(4, abs=0.5)
    assert pairs["angle"].mul(pairs["angle"][0]).gt(0).all()
    assert pairs["scale"].to_numpy() == pytest.approx(1, abs=0.02)
    larger = [image.crop((0, 0, 116, 116)) for image in chests]
    pairs = find_duplicates(searched([*chests, *larger]), manifest_of("a" * 48))
    assert pairs["scale"].to_numpy() == pytest.approx(128 / 116, abs=0.02)
    assert pairs["shift_x"].to_numpy() == pytest.approx(0.05, abs=0.01)
    assert pairs["shift_y"].to_numpy() == pytest.approx(0.05, abs=0.01)
    assert set(KINDS) >= set(pairs["kind"])


def test_symmetric_chests_are_no_mirrored_copies_of_each_other_or_of_themselves(manifest_of, chests):
    symmetric = []
    for image in chests:
        grey = np.asarray(image, float)
        symmetric.append(Image.fromarray((0.45 * (grey + grey[:, ::-1]) + 0.1 * grey).astype(np.uint8)))
    copies = [jpeg(image, 60) for image in symmetric[:5]]
    pairs = find_duplicates(searched([*symmetric, *copies]), manifest_of("a" * 29))
    assert found_in(pairs) == [(i, i + 24) for i in range(5)]
    assert not pairs[["mirrored", "inverted"]].any(axis=None)


def test_same_file_carries_splits_and_labels(manifest_of):
    manifest = manifest_of("abcd", sha256=["x", "y", "x", None], split=["train", "train", "test", None])
    order = [3, 2, 1, 0]  # ids are in order whatever the order of the rows
    (pair,) = find_duplicates(pictures(4)[[0, 1, 0, 2]][order], manifest.iloc[order]).itertuples(index=False)
    assert pair.kind == "same file"
    assert (pair.image_id_a, pair.split_a, pair.label_a) == ("0000.png", "train", "a")
    assert (pair.image_id_b, pair.split_b, pair.label_b) == ("0002.png", "test", "c")
    assert (pair.correlation, pair.scale, pair.angle, pair.covered) == (1, 1, 0, 0)


def test_no_pairs_is_an_empty_table_that_can_be_used(manifest_of):
    manifest = manifest_of("a" * 6, split=["train", "test"] * 3)
    pairs = find_duplicates(np.concatenate([pictures(3), np.zeros((3, *SEARCH_SIZE), np.uint8)]), manifest)
    assert len(pairs) == 0  # constant images are no near-duplicates
    assert group_duplicates(pairs, manifest)["group_id"].isna().all()


def test_groups_join_chains_and_groups_that_are_there_already(manifest_of):
    manifest = manifest_of("a" * 6, group_id=[None, None, None, "g", "g", None])
    groups = group_duplicates(find_duplicates(pictures(6)[[0, 0, 0, 1, 2, 1]], manifest), manifest)["group_id"]
    assert groups.tolist() == ["0000.png"] * 3 + ["0003.png"] * 3


def test_every_pair_of_a_group_is_listed_and_copies_of_one_file_with_it(manifest_of, chests):
    first = chests[0]
    group = [first, jpeg(first, 60), cropped(first), ImageOps.mirror(first), first.rotate(3), ImageOps.invert(first)]
    images = searched([*group, first, *chests[1:]])
    manifest = manifest_of("a" * 30, sha256=["x", *"bcdef", "x", *(f"{i}" for i in range(23))])
    pairs = find_duplicates(images, manifest)
    assert found_in(pairs) == [(a, b) for a in range(7) for b in range(a + 1, 7)]
    kinds = dict(zip(found_in(pairs), pairs["kind"], strict=True))
    assert (kinds[0, 6], kinds[3, 6], kinds[5, 6]) == ("same file", "mirrored", "inverted")


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
    images[3] = np.asarray(jpeg(Image.fromarray(images[3]), 90))
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
    assert (pair.kind, pair.split_a, pair.split_b, pair.label_a, pair.label_b) == (
        "same file",
        "test",
        "test",
        "6",
        "3",
    )


@pytest.mark.parametrize("rule", ["CORRELATION", "STRAIN", "STRAIN_MORE", "COVERED", "COMMON", "SCALE", "ANGLE"])
def test_another_way_to_search_searches_anew(tmp_path, monkeypatch, six, rule):
    before = rules()
    monkeypatch.setattr(evidence, rule, getattr(evidence, rule) * 0.5)
    assert rules() != before
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
    names = ("0100.jpeg", "0112.jpg", "COVID-00003b.jpg", "COVID-00012.jpg", "COVID-00022.jpg", "COVID-00033.jpg")
    names += ("COVID-00037.jpg", "auntminnie-2020_01_31_20_24_2322_2020_01_31_x-ray_coronavirus_US.jpg")
    names += ("radiopaedia-2019-novel-coronavirus-infected-pneumonia.jpg",)
    leaked = pairs[(pairs["split_a"] == "test") & (pairs["split_b"] == "train")]
    assert sorted(set(leaked["image_id_a"])) == sorted(f"test/Covid/{name}" for name in names)
    inside = pairs[(pairs["split_a"] == "train") & (pairs["split_b"] == "train")]
    assert inside[["image_id_a", "image_id_b", "kind"]].to_numpy().tolist() == [
        ["train/Covid/057.jpeg", "train/Covid/078.jpeg", "recompressed"],
        ["train/Covid/068.jpg", "train/Covid/076.jpg", "framed"],  # looked at: one picture, with a black border or not
        ["train/Covid/COVID-00033.jpg", "train/Covid/COVID-00037.jpg", "recompressed"],
        ["train/Normal/019.jpeg", "train/Normal/020.jpeg", "same file"],
        ["train/Normal/093.jpeg", "train/Normal/094.jpeg", "same file"],
        ["train/Viral Pneumonia/019.jpeg", "train/Viral Pneumonia/020.jpeg", "same file"],
    ]
    assert (pairs["kind"] == "same file").sum() == 10
    assert (pairs["label_a"] == pairs["label_b"]).all()

    carved = leaks(carve_validation(group_duplicates(pairs, manifest), 0.2, 0))
    assert carved["val"].any == 0
    assert carved["test"].duplicates == 9


@pytest.mark.shared
def test_two_radiographs_of_one_patient_are_no_copies(shared):
    rows = covid19_radiography(shared / "data" / "covid19_radiography", ["COVID", "Normal"], partial=True)
    apart = [("Normal", 1934, 7602), ("Normal", 2464, 9609), ("Normal", 7449, 9088), ("COVID", 2804, 2813)]
    names = [f"{label}-{number}.png" for label, *numbers in apart for number in numbers]
    names += ["COVID-1564.png", "COVID-1567.png"]  # one picture and its mirror
    manifest, images = load_images(
        rows[rows["path"].str.endswith(tuple(f"/{n}" for n in names))], SEARCH_SIZE, "stretch", "fail"
    )
    (pair,) = find_duplicates(images, manifest).itertuples(index=False)
    assert (pair.image_id_a[-9:], pair.image_id_b[-9:], pair.kind) == ("-1564.png", "-1567.png", "mirrored")


def test_planted_duplicates_are_found_and_nothing_else(tmp_path):
    manifest = phantom(tmp_path, images=40, size=128, seed=1, duplicates=6)
    others = phantom(tmp_path, images=40, size=128, seed=2)
    others = others.assign(image_id="other " + others["image_id"], patient_id="other " + others["patient_id"])
    manifest = pd.concat([manifest, others], ignore_index=True)
    manifest, small = load_images(manifest, SEARCH_SIZE, "stretch", "fail")
    pairs = find_duplicates(small, manifest)
    (faults,) = tmp_path.glob("*seed1*/faults.csv")
    planted = pd.read_csv(faults)
    found = {frozenset(pair) for pair in pairs[["image_id_a", "image_id_b"]].to_numpy()}
    copies = {frozenset(pair) for pair in planted[["image_id", "detail"]].to_numpy()}
    assert found >= copies
    # Two exposures of one synthetic patient may differ by less than a copy does; of two patients they don't.
    patient = manifest.set_index("image_id")["patient_id"]
    assert all(patient[min(pair)] == patient[max(pair)] for pair in found - copies)
