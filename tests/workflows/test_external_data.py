import shutil

import numpy as np
import pytest
from PIL import Image

from cxrnet.data.duplicates.overlap import load_known
from cxrnet.errors import CxrnetError
from cxrnet.workflows.bundle_origin import Origin
from cxrnet.workflows.external_data import data_facts, documented_issues, statement, take_out_copies


@pytest.fixture
def manifest(own_manifest):
    """The first image of a class was for training, the second for testing, and so on."""
    return own_manifest(lambda number: number % 2 == 0)


@pytest.fixture
def north(tmp_path, xrays, draw):
    """Class folders under other names, with two copies of images of the bundle's run and one of an own image."""
    root = draw(tmp_path / "north", classes=("sick", "well", "odd"), images=4, seed=5)
    shutil.copy(xrays / "Covid" / "00.png", root / "sick" / "train.png")
    shutil.copy(xrays / "Normal" / "01.png", root / "well" / "test.png")
    shutil.copy(root / "well" / "02.png", root / "well" / "twice.png")
    return root


NAMES = {"sick": "Covid", "well": "Normal", "odd": None}


def test_a_data_set_is_read_as_the_bundle_wants_it(read_external, north):
    each = read_external(north, **NAMES)
    assert each.images.shape == (11, 40, 32)
    assert each.small.shape == (11, 64, 64)
    assert each.manifest["label"].value_counts().to_dict() == {"Normal": 6, "Covid": 5}
    assert set(each.manifest["split"]) == {"test"}
    assert (each.listed, each.left_out, each.published) == (15, {"odd": 4}, False)
    assert documented_issues(each) == {"known issues": "north: it is small."}


def test_a_published_split_counts_for_nothing(read_external, draw, tmp_path):
    for split in ("train", "test"):
        draw(tmp_path / "split" / split, images=2)
    each = read_external(tmp_path / "split")
    assert set(each.manifest["split"]) == {"test"}
    assert each.published
    assert data_facts(each)["images"] == "12 listed, their published split ignored"


def test_copies_are_taken_out_and_own_copies_stay_together(read_external, north, manifest):
    (each,), copies = take_out_copies([read_external(north, **NAMES)], load_known(manifest))
    assert each.copies == {"train": 1, "test": 1}
    assert copies.to_dict("records") == [
        {"data": "north", "image_id": f"{a}.png", "kind": "exact", "copy_of": f"{b}.png", "split": split}
        for a, b, split in (("sick/train", "Covid/00", "train"), ("well/test", "Normal/01", "test"))
    ]
    assert len(each.manifest) == len(each.images) == 9
    grouped = each.manifest.dropna(subset="group_id")
    assert grouped["image_id"].tolist() == ["well/02.png", "well/twice.png"]
    facts = data_facts(each)
    assert facts["copies"] == "2 taken out (1 of train, 1 of test)"
    assert facts["read as"] == "sick as Covid, well as Normal"
    assert facts["left out"] == "odd 4: no class of the bundle"
    assert facts["evaluated"] == "9 images: Covid 4, Normal 5"


def test_without_the_images_of_the_run_this_is_said(read_external, north, bundle):
    (each,), copies = take_out_copies([read_external(north, **NAMES)], None)
    assert (len(each.manifest), len(copies), each.copies) == (11, 0, None)
    assert data_facts(each)["copies"].startswith("not looked for")
    (first, second, third) = statement(Origin(bundle, "x", None, None, None, None, 0), None, [each])
    assert "the data can't be checked for copies of them" in first
    assert "no internal test result lies beside the bundle" in second
    assert third == (
        "north: no image is labelled Viral Pneumonia; figures that need one are n/a, and means are over the other "
        "classes alone"
    )


def test_images_of_the_run_that_are_gone_are_told_by_their_bytes(read_external, north, manifest, bundle):
    gone = manifest.assign(path="/nowhere/" + manifest["image_id"])
    known = load_known(gone)
    (each,), _ = take_out_copies([read_external(north, **NAMES)], known)
    assert each.copies == {"train": 1, "test": 1}
    sentences = statement(Origin(bundle, "x", None, gone, None, None, 0), known, [each])
    assert any("36 of 36 images that the bundle was made with can't be read any more" in text for text in sentences)
    assert any(text.startswith("north: 2 images are copies of images that the bundle was made") for text in sentences)


def test_duplicates_with_different_labels_are_told(read_external, north, bundle):
    shutil.copy(north / "sick" / "02.png", north / "well" / "not sick.png")
    sets, _ = take_out_copies([read_external(north, **NAMES)], None)
    said = statement(Origin(bundle, "x", None, None, None, None, 0), None, sets)
    told = "2 images are duplicates that carry different labels (sick/02.png (Covid) = well/not sick.png (Normal))"
    assert any(text.startswith(f"north: {told}") for text in said)


def test_images_in_two_external_sets_are_counted(read_external, north, draw, tmp_path, bundle):
    south = draw(tmp_path / "south", classes=("Covid", "Normal"), images=3, seed=9)
    shutil.copy(north / "sick" / "03.png", south / "Covid" / "from north.png")
    sets, _ = take_out_copies([read_external(north, **NAMES), read_external(south, "south")], None)
    assert [each.shared for each in sets] == [{"south": 1}, {"north": 1}]
    assert "south: 1 images are in north too; the two results are not independent" in statement(
        Origin(bundle, "x", None, None, None, None, 0), None, sets
    )


SAME = "images are of patients of whom the bundle's run has other images"
ALIKE = "images bear a source and a patient number that images of the bundle's run bear too; whether these are the same"


@pytest.fixture
def of_patients(bundle):
    """What is said of a data set of a source, with these patients by image."""

    def said(each, known, numbers, source="hospital"):
        each.manifest["source"] = source
        each.manifest["patient_id"] = each.manifest["image_id"].map(numbers).astype("string")
        (left,), _ = take_out_copies([each], load_known(known))
        return statement(Origin(bundle, "x", None, known, None, None, 0), load_known(known), [left])

    return said


@pytest.fixture
def whose(manifest):
    """The run's images, Covid/00.png of patient 1, and all others of patient 2."""
    numbers = manifest["image_id"].map(lambda name: "1" if name == "Covid/00.png" else "2").astype("string")
    return manifest.assign(source="hospital", patient_id=numbers)


def test_a_patient_with_an_image_in_both_is_the_same_whatever_the_number(read_external, north, whose, of_patients):
    # sick/train.png is a copy of Covid/00.png; here its patient is called x, and has another image.
    numbers = {"sick/train.png": "x", "sick/00.png": "x", "sick/01.png": "y", "well/00.png": "2"}
    sentences = of_patients(read_external(north, **NAMES), whose, numbers, "somewhere")
    assert [text for text in sentences if SAME in text] == [f"north: 1 {SAME}"]
    assert not any(ALIKE in text for text in sentences)


def test_numbers_mean_the_same_where_images_in_both_bear_the_same(read_external, north, whose, of_patients):
    numbers = {"sick/train.png": "1", "well/00.png": "2", "well/01.png": "2", "well/03.png": "3"}
    sentences = of_patients(read_external(north, **NAMES), whose, numbers)
    assert [text for text in sentences if SAME in text] == [f"north: 2 {SAME}"]


def test_a_number_alone_is_no_patient(read_external, draw, tmp_path, whose, of_patients):
    # As of two sets of phantoms: the same source, the same numbers, no image in both.
    south = read_external(draw(tmp_path / "south", images=2, seed=9), "south")
    sentences = of_patients(south, whose, dict.fromkeys(south.manifest["image_id"], "2"))
    assert not any(SAME in text for text in sentences)
    assert sum(text.startswith(f"south: 6 {ALIKE}") for text in sentences) == 1
    south = read_external(draw(tmp_path / "east", images=2, seed=9), "east")
    sentences = of_patients(south, whose, dict.fromkeys(south.manifest["image_id"], "2"), "another hospital")
    assert not any(SAME in text or ALIKE in text for text in sentences)


def test_unreadable_images_are_counted(read_external, north, bundle):
    (north / "sick" / "broken.png").write_bytes(b"no image")
    with pytest.raises(CxrnetError, match="1 of 12 files give no image"):
        read_external(north, **NAMES)
    with pytest.raises(CxrnetError, match=r"set sets\.north\.on_error=skip"):
        read_external(north, key="sets.north", **NAMES)
    with pytest.raises(CxrnetError, match=r"north: sets.north.root: '.*gone' is not a folder"):
        read_external(north / "gone", key="sets.north", **NAMES)
    each = read_external(north, on_error="skip", **NAMES)
    assert (each.unreadable, data_facts(each)["unreadable"]) == (1, "1")
    assert [note.split(" (")[0] for note in each.notes] == ["left out: 1 of 12 files give no image"]


def test_clipped_outliers_are_kept_for_the_page(read_external, north, bundle):
    deep = np.random.default_rng(0).integers(0, 4096, (48, 40)).astype(np.uint16)
    deep[3, 3] = 65535
    Image.fromarray(deep).save(north / "well" / "hot.png")
    each = read_external(north, **NAMES)
    told = [text for text in statement(Origin(bundle, "x", None, None, None, None, 0), None, [each]) if "clip" in text]
    assert [text.partition(":")[0] for text in told] == ["north"]
    assert told[0].endswith("well/hot.png")


def test_the_data_of_the_run_itself_leave_nothing(read_external, xrays, manifest):
    with pytest.raises(
        CxrnetError, match=r"north: no image is left \(36 of 36 images are copies of images of the bundle"
    ):
        take_out_copies([read_external(xrays)], load_known(manifest))


def test_one_class_is_enough_and_what_it_lacks_is_said(read_external, north, bundle):
    (each,), _ = take_out_copies([read_external(north, **(NAMES | {"well": None}))], None)
    assert (each.gap, set(each.manifest["label"])) == ("", {"Covid"})
    said = statement(Origin(bundle, "x", None, None, None, None, 0), None, [each])
    assert any(text.startswith("north: no image is labelled Normal, Viral Pneumonia; figures that") for text in said)


def test_a_mapping_that_leaves_out_everything(read_external, north):
    with pytest.raises(CxrnetError, match=r"classes\.north: leaves out every image; map a label to a class"):
        read_external(north, **dict.fromkeys(NAMES))


def test_a_data_set_without_images_is_a_gap_beside_others(read_external, xrays, north, manifest, bundle):
    sets, copies = take_out_copies(
        [read_external(xrays, "own"), read_external(north, **NAMES)], known := load_known(manifest)
    )
    assert [each.name for each in sets if each.gap] == ["own"]
    assert (len(copies), len(sets[1].manifest)) == (38, 9)
    gap = "no image is left (36 of 36 images are copies of images of the bundle's run)"
    assert data_facts(sets[0])["evaluated"] == f"nothing: {gap}"
    assert f"own: not evaluated, for {gap}" in statement(
        Origin(bundle, "x", None, manifest, None, None, 0), known, sets
    )


def test_internal_images_that_were_seen_are_told(read_external, north, bundle):
    each = read_external(north, **NAMES)
    said = statement(Origin(bundle, "x", None, None, each.manifest, None, 9), None, [each])
    assert not any("no fall to state" in text for text in said)
    assert any(text.startswith("9 of 20 internal test images were seen before") for text in said)
    said = statement(Origin(bundle, "x", None, None, None, None, 9), None, [each])
    assert "no unseen test images were left, so there is no fall to state" in said
