import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.duplicates import SEARCH_SIZE
from cxrnet.data.external import find_overlap, load_known, remove_duplicates
from cxrnet.data.images.store import load_images
from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.covid19_radiography import covid19_radiography
from cxrnet.data.sources.folder import folder
from cxrnet.errors import CxrnetError
from cxrnet.reporting.external import data_facts, data_warnings, known_issues, origin_warnings


@pytest.fixture
def manifest(own_manifest):
    """The first image of a class was for training, the second for testing, and so on."""
    return own_manifest(lambda number: number % 2 == 0)


@pytest.fixture
def north(tmp_path, xrays, draw):
    """Class folders under other names, with two duplicates of images of the bundle's run and one of an own image."""
    root = draw(tmp_path / "north", classes=("sick", "well", "odd"), images=4, seed=5)
    shutil.copy(xrays / "Covid" / "00.png", root / "sick" / "train.png")
    shutil.copy(xrays / "Normal" / "01.png", root / "well" / "test.png")
    shutil.copy(root / "well" / "02.png", root / "well" / "twice.png")
    return root


NAMES = {"sick": "Covid", "well": "Normal", "odd": None}


def test_a_data_set_is_read_as_the_bundle_wants_it(read_external, north):
    each = read_external(north, **NAMES)
    assert (each.images.shape, each.small.shape) == ((11, 40, 32), (11, 64, 64))
    assert each.manifest["label"].value_counts().to_dict() == {"Normal": 6, "Covid": 5}
    assert set(each.manifest["split"]) == {"test"}
    assert (each.listed, each.left_out, each.published, each.lacking) == (15, {"odd": 4}, False, ["Viral Pneumonia"])
    assert known_issues(each) == {"known issues": "north: it is small."}


def test_a_published_split_counts_for_nothing(read_external, draw, tmp_path):
    for split in ("train", "test"):
        draw(tmp_path / "split" / split, images=2)
    each = read_external(tmp_path / "split")
    assert (set(each.manifest["split"]), each.published) == ({"test"}, True)
    assert data_facts(each)["images"] == "12 listed, their published split ignored"


@pytest.mark.parametrize("gone", [False, True])
def test_duplicates_are_removed_and_own_duplicates_stay_together(read_external, north, manifest, gone):
    known = load_known(manifest.assign(path="/nowhere/" + manifest["image_id"]) if gone else manifest)
    (each,), removed = remove_duplicates([read_external(north, **NAMES)], known)
    assert each.duplicates == {"train": 1, "test": 1}
    assert removed.to_dict("records") == [
        {"data": "north", "image_id": f"{a}.png", "kind": "same file", "duplicate_of": f"{b}.png", "split": split}
        for a, b, split in (("sick/train", "Covid/00", "train"), ("well/test", "Normal/01", "test"))
    ]
    assert len(each.manifest) == len(each.images) == 9
    assert each.manifest.dropna(subset="group_id")["image_id"].tolist() == ["well/02.png", "well/twice.png"]
    facts = data_facts(each)
    assert facts["duplicates"] == "2 removed (1 of train, 1 of test)"
    assert facts["read as"] == "sick as Covid, well as Normal"
    assert facts["left out"] == "odd 4: no class of the bundle"
    assert facts["evaluated"] == "9 images: Covid 4, Normal 5"
    assert any("36 of 36 images" in text for text in origin_warnings(known, 0, 9)) == gone


def test_without_the_images_of_the_run_this_is_said(read_external, north):
    (each,), removed = remove_duplicates([read_external(north, **NAMES)], None)
    assert (len(each.manifest), len(removed), each.duplicates) == (11, 0, None)
    assert data_facts(each)["duplicates"].startswith("not searched for")
    first, second = origin_warnings(None, 0, 0)
    assert "can't be searched for duplicates" in first
    assert "no internal test result" in second
    (third,) = data_warnings([each])
    assert third.startswith("north: no image is labelled Viral Pneumonia; metrics that need one are n/a")


def test_what_is_wrong_within_and_between_data_sets_is_said(read_external, north, draw, tmp_path):
    south = draw(tmp_path / "south", classes=("Covid", "Normal"), images=3, seed=9)
    shutil.copy(north / "sick" / "03.png", south / "Covid" / "from north.png")
    shutil.copy(north / "sick" / "02.png", north / "well" / "not sick.png")
    sets, _ = remove_duplicates([read_external(north, **NAMES), read_external(south, "south")], None)
    assert [each.shared for each in sets] == [{"south": 1}, {"north": 1}]
    said = data_warnings(sets)
    assert "south: 1 images are in north too; the two results are not independent" in said
    assert any("(sick/02.png (Covid) = well/not sick.png (Normal))" in text for text in said)


def test_a_patient_of_a_removed_duplicate_is_known_by_the_number_in_the_external_data(read_external, north, manifest):
    each = read_external(north, **NAMES)  # sick/train.png is a duplicate of an image of the run
    numbers = {"sick/train.png": "x", "sick/00.png": "x", "sick/01.png": "y", "well/00.png": "2"}
    each.manifest["patient_id"] = each.manifest["image_id"].map(numbers).astype("string")
    (left,), _ = remove_duplicates([each], load_known(manifest.assign(patient_id="2")))
    assert left.same_patients == 1
    assert "north: 1 images are of patients of whom the bundle's run has other images" in data_warnings([left])


def test_unreadable_images_are_counted(read_external, north):
    (north / "sick" / "broken.png").write_bytes(b"no image")
    with pytest.raises(CxrnetError, match=r"1 of 12 files give no image.*set sets\.north\.on_error=skip"):
        read_external(north, key="sets.north", **NAMES)
    with pytest.raises(CxrnetError, match=r"north: sets.north.root: '.*gone' is not a folder"):
        read_external(north / "gone", key="sets.north", **NAMES)
    with pytest.raises(CxrnetError, match=r"classes\.north: leaves out every image; map a label to a class"):
        read_external(north, **dict.fromkeys(NAMES))
    each = read_external(north, on_error="skip", **NAMES)
    assert (each.unreadable, data_facts(each)["unreadable"]) == (1, "1")
    assert [note.split(" (")[0] for note in each.notes] == ["left out: 1 of 12 files give no image"]


def test_clipped_outliers_are_kept_for_the_page(read_external, north):
    deep = np.random.default_rng(0).integers(0, 4096, (48, 40)).astype(np.uint16)
    deep[3, 3] = 65535
    Image.fromarray(deep).save(north / "well" / "hot.png")
    (told,) = [text for text in data_warnings([read_external(north, **NAMES)]) if "clip" in text]
    assert told.startswith("north: ")
    assert told.endswith("well/hot.png")


def test_a_data_set_without_images_is_refused_alone_and_a_gap_beside_others(read_external, xrays, north, manifest):
    gap = "no image is left (36 of 36 images are duplicates of images of the bundle's run)"
    own, known = read_external(xrays, "own"), load_known(manifest)
    with pytest.raises(CxrnetError, match=r"own: no image is left \(36 of 36"):
        remove_duplicates([own], known)
    sets, removed = remove_duplicates([own, read_external(north, **NAMES)], known)
    assert [each.gap for each in sets] == [gap, ""]
    assert (len(removed), len(sets[1].manifest)) == (38, 9)
    assert data_facts(sets[0])["evaluated"] == f"nothing: {gap}"
    assert f"own: not evaluated, for {gap}" in data_warnings(sets)


@pytest.fixture
def places(tmp_path, draw):
    """A known folder, and two others that hold duplicates of its images and of each other's."""
    known = draw(tmp_path / "known", classes=("a", "b"), images=4)
    first = draw(tmp_path / "first", classes=("a", "b"), images=4, seed=1)
    second = draw(tmp_path / "second", classes=("a", "b"), images=4, seed=2)
    shutil.copy(known / "a" / "00.png", first / "a" / "same file.png")
    with Image.open(known / "b" / "01.png") as image:
        image.resize((60, 72)).save(first / "b" / "same picture.png")
    shutil.copy(first / "a" / "02.png", second / "b" / "of first.png")
    shutil.copy(second / "a" / "03.png", second / "a" / "of itself.png")
    return known, first, second


def read(place) -> tuple[pd.DataFrame, np.ndarray]:
    return load_images(folder(place), SEARCH_SIZE, "stretch", "fail")


def found(pairs: pd.DataFrame) -> set[tuple]:
    return set(pairs[["set_a", "image_id_a", "set_b", "image_id_b", "kind"]].itertuples(index=False, name=None))


def test_duplicates_are_found_across_the_sets_and_within_the_new_ones(places):
    known, *others = places
    shutil.copy(known / "a" / "02.png", known / "a" / "known twice.png")
    pairs = find_overlap(load_known(read(known)[0]), [read(other) for other in others])
    assert found(pairs) == {
        (0, "a/00.png", 1, "a/same file.png", "same file"),
        (0, "b/01.png", 1, "b/same picture.png", "recompressed"),
        (1, "a/02.png", 2, "b/of first.png", "same file"),
        (2, "a/03.png", 2, "a/of itself.png", "same file"),
    }


@pytest.mark.slow
@pytest.mark.shared
def test_public_collections_hold_each_others_images(shared):
    known = load_known(covid19_radiography(shared / "data" / "covid19_radiography", ["COVID", "Normal"], partial=True))
    files = sorted((shared / "data" / "covid_chestxray" / "images").iterdir())
    rows = {"image_id": [file.name for file in files], "path": map(str, files), "label": "any", "source": "collection"}
    collection = make_manifest(pd.DataFrame(rows), "covid_chestxray")
    sets = [
        load_images(collection, SEARCH_SIZE, "stretch", "fail"),
        read(shared / "data" / "covid19_image" / "Covid19-dataset"),
    ]
    pairs = find_overlap(known, sets)
    taken = [pairs[(pairs["set_a"] == 0) & (pairs["set_b"] == number)]["image_id_a"].nunique() for number in (1, 2)]
    assert taken == [99, 26]  # the search of the data's README found 80 and 24
