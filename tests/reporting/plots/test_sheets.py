from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.augment import geometric
from cxrnet.data.images.decode import read_image
from cxrnet.data.images.resize import Images
from cxrnet.reporting.plots.dataset import augmented_sheet, contact_sheet, samples_sheet
from cxrnet.reporting.plots.style import save

GREY = 128


def drawn(figure) -> list[list[np.ndarray]]:
    """The images of a sheet, row by row; empty cells are left out."""
    rows: dict[float, list[np.ndarray]] = {}
    for axes in figure.axes:
        rows.setdefault(round(-axes.get_position().y0, 4), []).extend(np.asarray(i.get_array()) for i in axes.images)
    return [rows[place] for place in sorted(rows)]


def words(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_no_image_is_stretched(tmp_path):
    wide, tall = np.full((20, 40), GREY, np.uint8), np.full((60, 20), GREY, np.uint8)
    path = save(contact_sheet([[wide, tall]], ["a"], ()), tmp_path / "sheet.png")
    heights = (np.asarray(Image.open(path).convert("L")) == GREY).sum(axis=0)
    heights = heights[np.argmax(heights > 50) :]  # the name stands before the images
    end = np.argmin(heights > 50)
    for part, ratio in ((heights[:end], 0.5), (heights[end:], 3)):
        assert part.max() / (part > 50).sum() == pytest.approx(ratio, rel=0.03)


def test_rows_follow_the_order_given_and_may_be_short():
    images = [np.full((8, 8), value, np.uint8) for value in (10, 20, 30)]
    figure = contact_sheet([images[:2], images[2:]], ["b", "a"], ["first"])
    assert [[image[0, 0] for image in row] for row in drawn(figure)] == [[10, 20], [30]]
    assert words(figure) == ["b", "a"]
    assert figure.axes[0].get_title() == "first"


def test_samples_come_from_all_over_a_class_in_their_own_aspect_ratio(make_data):
    data = make_data()
    figure = samples_sheet(data.manifest, ["Normal", "Covid"], per_class=4)
    normal = data.manifest[data.manifest["label"] == "Normal"]["path"].tolist()
    rows = drawn(figure)
    assert [len(row) for row in rows] == [4, 4]
    assert rows[0][0].shape == (225, 188)  # of 48 x 40
    for image, path in ((rows[0][0], normal[0]), (rows[0][3], normal[-1])):
        assert abs(image.mean() - read_image(Path(path).read_bytes(), path).mean()) < 2


def test_a_small_class_shows_what_it_has(make_data):
    few = make_data().manifest.groupby("label").head(2)
    assert [len(row) for row in drawn(samples_sheet(few, ["Covid", "Normal"], per_class=5))] == [2, 2]


def test_augmented_views_stand_beside_their_original():
    images = Images.all_of(np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 30, 40)]))
    manifest = pd.DataFrame({"label": ["a", "b", "b"]}, index=[0, 2, 3])
    figure = augmented_sheet(images, manifest, ["b", "a"], lambda batch: 255 - batch, per_class=2, views=2)
    values = [[int(image[0, 0]) for image in row] for row in drawn(figure)]
    assert values == [[30, 225, 225], [40, 215, 215], [10, 245, 245]]
    assert words(figure) == ["b", "b", "a"]


def test_every_view_is_augmented_by_itself():
    images = Images.all_of(np.random.default_rng(0).integers(0, 256, (1, 8, 8), np.uint8))
    manifest = pd.DataFrame({"label": ["a"]})
    shift = geometric(flip=0, degrees=0, translate=0.5, shear=0, zoom=0, distortion=0)
    (row,) = drawn(augmented_sheet(images, manifest, ["a"], shift, per_class=1, views=4))
    assert len({image.tobytes() for image in row}) == 5
