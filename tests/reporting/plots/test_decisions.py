from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

from cxrnet.evaluation.bootstrap import Clusters, Resampling
from cxrnet.evaluation.prevalence import decision_band, decision_curve
from cxrnet.evaluation.selective_prediction import area_under_risk_coverage, risk_coverage, risk_with_band
from cxrnet.reporting.plots.decisions import decision_plot, risk_coverage_plot
from cxrnet.reporting.plots.style import save


@pytest.fixture
def outcomes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=200)
    return confidence, rng.uniform(size=200) < confidence


@pytest.fixture
def resampling() -> Resampling:
    return Resampling(Clusters(np.arange(200), np.zeros(200, int), "image"), 100, 0, 0.95)


def _texts(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(mpl.text.Text)}


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
