import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from cxrnet.reporting.plots.comparison import confusion_matrices, roc_overlay, save_comparison_plots

LONG = ("Viral Pneumonia of an unusually long name", "Covid", "Normal")


@pytest.fixture
def compared(make_table, compare_runs):
    def call(runs, classes=("Viral Pneumonia", "Covid", "Normal"), labels=None):
        labels = labels or [str(label) for label in make_table(classes=classes)["label"]]
        tables = {name: make_table(labels=labels, classes=classes, seed=i) for i, name in enumerate(runs)}
        return compare_runs(tables, "accuracy")

    return call


def _texts(figure):
    return [text.get_text() for text in figure.findobj(mpl.text.Text)]


def test_plots_are_written_with_nothing_cut_off(compared, tmp_path):
    paths = save_comparison_plots(compared(["a run of a very long name " * 3, "b"], LONG), tmp_path)
    assert paths == {name: tmp_path / f"{name}.png" for name in ("confusion_matrices", "roc_overlay")}
    for path in paths.values():
        pixels = np.asarray(Image.open(path).convert("L"))
        edge = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()])
        assert edge.min() == 255


def test_matrices_say_counts_and_shares(compared):
    comparison = compared("ab", labels=["Covid"] * 4 + ["Normal"] * 2)
    texts = _texts(confusion_matrices(comparison))
    table = comparison.tables["a"]
    right = int(((table["label"] == "Covid") & (table["predicted"] == "Covid")).sum())
    assert f"{right}\n{right / 4:.2f}" in texts
    assert "0" in texts  # of a class without images there is no share
    assert {"a", "b", "label", "predicted"} <= set(texts)


def test_overlay_has_a_panel_for_each_class_and_the_auc_of_each_run(compared):
    comparison = compared("ab")
    figure = roc_overlay(comparison)
    assert [axes.get_title() for axes in figure.axes] == comparison.classes
    values = comparison.metrics.set_index(["run", "metric"])["value"]
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == [f"{values[run, 'roc_auc_Covid']:.3f}" for run in comparison.runs]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == comparison.runs


@pytest.mark.parametrize(("draw", "panels"), [(confusion_matrices, 7), (roc_overlay, 3)])
def test_of_many_runs_the_best_seven_are_drawn(compared, draw, panels):
    comparison = compared([f"run {i}" for i in range(9)])
    figure = draw(comparison)
    assert len(figure.axes) == panels
    assert comparison.runs[6] in _texts(figure)
    assert comparison.runs[7] not in _texts(figure)
