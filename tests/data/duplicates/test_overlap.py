import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.duplicates.overlap import find_overlap, load_known
from cxrnet.data.duplicates.search import SEARCH_SIZE
from cxrnet.data.images.store import load_images
from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.covid19_radiography import covid19_radiography
from cxrnet.data.sources.folder import folder


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
        (0, "a/00.png", 1, "a/same file.png", "exact"),
        (0, "b/01.png", 1, "b/same picture.png", "near"),
        (1, "a/02.png", 2, "b/of first.png", "exact"),
        (2, "a/03.png", 2, "a/of itself.png", "exact"),
    }


@pytest.mark.parametrize(
    ("gone", "lost", "left"),
    [(("a", "b"), 8, {"a/00.png": "exact"}), (("a/00.png",), 1, {"a/00.png": "exact", "b/01.png": "near"})],
)
def test_of_known_images_that_are_gone_the_same_file_is_still_found(places, gone, lost, left):
    known, first, _ = places
    manifest = read(known)[0]
    for name in gone:
        shutil.rmtree(known / name) if (known / name).is_dir() else (known / name).unlink()
    images = load_known(manifest)
    assert (images.lost, len(images.images)) == (lost, 8 - lost)
    assert {pair[1]: pair[4] for pair in found(find_overlap(images, [read(first)]))} == left


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
    assert taken == [80, 22]  # by the looser rule of the data's README 80 and 24
