from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrnet.data.images.decode import read_image
from cxrnet.data.images.reader import Images
from cxrnet.data.manifest import make_manifest
from cxrnet.reporting.plots.dataset import (
    augmented_sheet,
    class_distribution,
    contact_sheet,
    distribution_chart,
    image_sizes,
    samples_sheet,
    sizes_chart,
)
from cxrnet.reporting.plots.style import save

CLASSES = ["Viral Pneumonia", "Covid"]


@pytest.fixture
def manifest() -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "label": ["Covid"] * 5 + ["Viral Pneumonia"] * 3,
            "split": ["train", "train", "train", "val", "test", "train", "train", "test"],
            "patient_id": ["p1", "p1", "p2", "p3", "p4", None, None, None],
            "width": [100, 100, 100, 100, 80, 50, 50, 50],
            "height": [90, 90, 90, 100, 80, 50, 50, 50],
            "source": "invented",
        }
    )
    rows["image_id"] = rows["path"] = [f"{i}.png" for i in range(8)]
    return make_manifest(rows, "invented")


def words(figure) -> list[str]:
    return [text.get_text().strip() for axes in figure.axes for text in axes.texts]


def test_every_class_is_counted_in_every_split_and_all_at_the_end(manifest):
    rows = class_distribution(manifest, CLASSES).set_index(["class", "split"])
    assert list(dict.fromkeys(rows.index.get_level_values("class"))) == [*CLASSES, "all"]
    assert rows.loc["Viral Pneumonia", "images"].tolist() == [2, 0, 1]
    assert rows.loc["Viral Pneumonia", "patients"].isna().all()
    assert rows.loc["Covid", "patients"].tolist() == [2, 1, 1]
    assert rows.loc["all", "images"].tolist() == [5, 1, 2]


def test_bars_carry_their_numbers(manifest):
    distribution = class_distribution(manifest, CLASSES)
    figure = distribution_chart(distribution)
    assert words(figure) == ["2", "3  (2 patients)", "0", "1  (1 patient)", "1", "1  (1 patient)"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["train", "val", "test"]


def test_sizes_are_counted_by_class_the_most_frequent_first(manifest):
    assert image_sizes(manifest).to_numpy().tolist() == [
        ["Covid", 100, 90, 3],
        ["Covid", 80, 80, 1],
        ["Covid", 100, 100, 1],
        ["Viral Pneumonia", 50, 50, 3],
    ]


def test_one_size_and_many_sizes_can_be_drawn(manifest, tmp_path):
    rng = np.random.default_rng(0)
    many = pd.DataFrame({"label": "Covid", "width": rng.integers(200, 4000, 500), "height": 900, "images": 1})
    one = pd.DataFrame({"label": ["Viral Pneumonia"], "width": [299], "height": [299], "images": [1345]})
    figure = sizes_chart(pd.concat([many, one]), CLASSES)
    assert words(figure)[0] == "1 size\n299 × 299 (1345 of 1345)"
    assert words(figure)[1].startswith("500 sizes, most often\n")
    assert save(figure, tmp_path / "sizes.png").stat().st_size > 0


GREY = 128


def drawn(figure) -> list[list[np.ndarray]]:
    """The images of a sheet, row by row; empty cells are left out."""
    rows: dict[float, list[np.ndarray]] = {}
    for axes in figure.axes:
        rows.setdefault(round(-axes.get_position().y0, 4), []).extend(np.asarray(i.get_array()) for i in axes.images)
    return [rows[place] for place in sorted(rows)]


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


def test_augmented_views_stand_beside_their_original():
    images = Images.all_of(np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 30, 40)]))
    manifest = pd.DataFrame({"label": ["a", "b", "b"]}, index=[0, 2, 3])
    figure = augmented_sheet(images, manifest, ["b", "a"], lambda batch: 255 - batch, per_class=2, views=2)
    values = [[int(image[0, 0]) for image in row] for row in drawn(figure)]
    assert values == [[30, 225, 225], [40, 215, 215], [10, 245, 245]]
    assert words(figure) == ["b", "b", "a"]
