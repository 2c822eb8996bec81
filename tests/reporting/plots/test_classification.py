import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cxrnet.evaluation.metrics import evaluate
from cxrnet.reporting.plots.classification import (
    confusion_matrix,
    pr_curves,
    recall_per_class,
    roc_curves,
    save_plots,
)

NAMES = ("confusion_matrix", "recall_per_class", "roc_curves", "pr_curves")
LONG = ("Viral Pneumonia of an unusually long name", "Covid", "Normal")


def save(table, folder, suffix=""):
    return save_plots(table, evaluate(table), folder, suffix)


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


def test_plots_of_a_split_are_written(make_table, tmp_path):
    paths = save(make_table(), tmp_path / "run", "_val")
    assert paths == {f"{name}_val": tmp_path / "run" / f"{name}_val.png" for name in NAMES}
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(p.name for p in paths.values())
    with Image.open(paths["confusion_matrix_val"]) as image:
        assert image.format == "PNG"
        assert round(image.info["dpi"][0]) == 150


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_with_long_class_names(make_table, tmp_path, name):
    path = save(make_table(classes=LONG), tmp_path)[name]
    pixels = np.asarray(Image.open(path).convert("L"))
    edge = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()])
    assert edge.min() == 255


def test_confusion_matrix_says_counts_and_shares(make_table):
    texts = _texts(confusion_matrix(make_table(labels=["Covid"] * 4 + ["Normal"] * 2, strength=100.0)))
    assert {"4", "2", "1.00", "–"} <= set(texts)
    assert "test, n = 6" in texts


def test_auc_and_absent_class_stand_in_the_legend(make_table):
    table = make_table(labels=["Covid", "Normal"] * 5, strength=100.0)
    assert {"Covid  AUC 1.000", "Viral Pneumonia  n/a", "chance"} <= set(_texts(roc_curves(table, evaluate(table))))
    assert {"Covid  AP 1.000", "Viral Pneumonia  n/a"} <= set(_texts(pr_curves(table, evaluate(table))))
    assert {"1.000  (5/5)", "no image"} <= set(_texts(recall_per_class(table, evaluate(table))))


def test_settings_of_matplotlib_are_left_alone(make_table: pd.DataFrame):
    before = dict(mpl.rcParams)
    confusion_matrix(make_table())
    assert dict(mpl.rcParams) == before
