from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cxrnet.evaluation.calibration import reliability_table
from cxrnet.evaluation.confidence_intervals import Clusters, Resampling
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.prevalence import decision_band, decision_curve
from cxrnet.evaluation.selective_prediction import area_under_risk_coverage, risk_coverage, risk_with_band
from cxrnet.reporting.plots.classification import (
    confusion_matrix,
    decision_plot,
    l2_choice,
    pr_curves,
    reliability_diagram,
    risk_coverage_plot,
    roc_curves,
    save_curves,
    save_plots,
    sensitivity_per_class,
    training_curve,
)
from cxrnet.reporting.plots.style import save

NAMES = ("confusion_matrix", "sensitivity_per_class", "roc_curves", "pr_curves")
LONG = ("Viral Pneumonia of an unusually long name", "Covid", "Normal")


def save_all(table, folder, suffix=""):
    return save_plots(table, evaluate(table), folder, suffix)


def _texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(mpl.text.Text)}


def test_plots_of_a_split_are_written(make_table, tmp_path):
    paths = save_all(make_table(), tmp_path / "run", "_val")
    assert paths == {f"{name}_val": tmp_path / "run" / f"{name}_val.png" for name in NAMES}
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(p.name for p in paths.values())
    with Image.open(paths["confusion_matrix_val"]) as image:
        assert image.format == "PNG"
        assert round(image.info["dpi"][0]) == 150


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_with_long_class_names(make_table, tmp_path, name):
    path = save_all(make_table(classes=LONG), tmp_path)[name]
    pixels = np.asarray(Image.open(path).convert("L"))
    edge = np.concatenate([pixels[:3].ravel(), pixels[-3:].ravel(), pixels[:, :3].ravel(), pixels[:, -3:].ravel()])
    assert edge.min() == 255


def test_confusion_matrix_says_counts_and_shares(make_table):
    texts = _texts(confusion_matrix(make_table(labels=["Covid"] * 4 + ["Normal"] * 2, strength=100.0)))
    assert {"4", "2", "1.00", "–"} <= set(texts)
    assert "test, n = 6" in texts


def test_auc_and_absent_class_stand_in_the_legend(make_table):
    table = make_table(labels=["Covid", "Normal"] * 5, strength=100.0)
    assert {"Covid  ROC-AUC 1.000", "Viral Pneumonia  n/a", "chance"} <= set(_texts(roc_curves(table, evaluate(table))))
    assert {"Covid  PR-AUC 1.000", "Viral Pneumonia  n/a"} <= set(_texts(pr_curves(table, evaluate(table))))
    assert {"1.000  (5/5)", "no image"} <= set(_texts(sensitivity_per_class(table, evaluate(table))))


def test_settings_of_matplotlib_are_left_alone(make_table: pd.DataFrame):
    before = dict(mpl.rcParams)
    confusion_matrix(make_table())
    assert dict(mpl.rcParams) == before


def test_curves_are_written(history, tmp_path):
    assert sorted(save_curves(history, 7, tmp_path)) == ["accuracy_curve", "loss_curve"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["accuracy_curve.png", "loss_curve.png"]


def test_curves_mark_phases_and_kept_epoch(history):
    for figure in (training_curve(history, metric, 7) for metric in ("accuracy", "loss")):
        assert {"head", "finetune", "kept (epoch 7)"} <= set(_texts(figure))


def test_the_choice_of_an_l2_is_marked():
    figure = l2_choice({"head": (1.0, ((10.0, 0.6), (1.0, 0.4), (0.1, 0.5)))})
    assert {"head", "chosen (1)", "10", "1", "0.1"} <= set(_texts(figure))


@pytest.mark.parametrize("kind", ["equal_width", "equal_mass"])
def test_diagram_shows_error_and_images(tmp_path, kind) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 200)
    correct = rng.uniform(size=200) < confidence**2
    tables = {
        "as trained": reliability_table(confidence, correct, 10, kind),
        "temperature 1.5": reliability_table(confidence**2, correct, 10, kind),
    }
    figure = reliability_diagram(tables)
    texts = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    error = np.average(
        (tables["as trained"]["accuracy"] - tables["as trained"]["confidence"]).abs(), weights=tables["as trained"]["n"]
    )
    assert {f"as trained  ECE {error:.3f}", "confidence = accuracy", "n = 200"} <= set(texts)
    assert any(text.startswith("temperature 1.5  ECE ") for text in texts)
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    assert sum(heights) == 400
    assert save(figure, tmp_path / "reliability.png").stat().st_size > 1000


@pytest.fixture
def outcomes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=200)
    return confidence, rng.uniform(size=200) < confidence


@pytest.fixture
def resampling() -> Resampling:
    return Resampling(Clusters(np.arange(200), np.zeros(200, int), "image"), 100, 0, 0.95)


def test_decision_plot_compares_model_all_and_none(outcomes, resampling, tmp_path) -> None:
    curve = decision_band(decision_curve(*outcomes, np.arange(1, 100) / 100, 0.05), *outcomes, resampling)
    figure = decision_plot(curve, "Covid")
    assert {
        "by the model",
        "confidence band",
        "all",
        "none",
        "prevalence 5 %",
        "probability of Covid from which on to act",
    } <= _texts(figure)
    low, high = figure.axes[0].get_ylim()
    assert low < 0
    assert high >= curve["model"].max()
    save(figure, tmp_path / "decision.png")


def test_risk_coverage_plot_says_its_area(outcomes, resampling, tmp_path) -> None:
    area = area_under_risk_coverage(*outcomes)
    curve = risk_with_band(risk_coverage(*outcomes), *outcomes, resampling, [])
    figure = risk_coverage_plot(curve, area)
    assert {"confidence band", f"AURC {area:.3f}", "none deferred", "n = 200"} <= _texts(figure)
    save(figure, tmp_path / "deferral.png")


def test_without_resamples_nothing_is_shaded(outcomes, resampling) -> None:
    none = replace(resampling, resamples=0)
    curve = decision_band(decision_curve(*outcomes, np.arange(1, 100) / 100, 0.05), *outcomes, none)
    assert "confidence band" not in _texts(decision_plot(curve, "Covid"))
    assert "interval" not in _texts(
        risk_coverage_plot(risk_with_band(risk_coverage(*outcomes), *outcomes, none, []), 0.1)
    )
