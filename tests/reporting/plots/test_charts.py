import numpy as np
import pandas as pd
import pytest

from cxrnet.data.manifest import make_manifest
from cxrnet.reporting.plots.dataset import class_distribution, distribution_chart, image_sizes, sizes_chart
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


def test_a_class_may_be_called_all(manifest):
    renamed = manifest.assign(label=manifest["label"].replace("Covid", "all").astype("string"))
    assert class_distribution(renamed, ["all", "Viral Pneumonia"])["images"].tolist() == [3, 1, 1, 2, 0, 1, 5, 1, 2]


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


def test_every_class_has_a_panel_of_the_same_scale(manifest):
    sizes = pd.concat([image_sizes(manifest).assign(label=f"class {i}") for i in range(6)])
    figure = sizes_chart(sizes, [f"class {i}" for i in range(6)])
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in panels] == [f"class {i}" for i in range(6)]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in panels}) == 1
