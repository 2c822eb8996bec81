import matplotlib as mpl
import numpy as np
import pytest

from cxrnet.evaluation.decision_curve import decision_curve
from cxrnet.evaluation.decision_figures import decision_figure, risk_coverage_figure
from cxrnet.evaluation.referral import area_under_risk_coverage, risk_coverage
from cxrnet.style import save


@pytest.fixture
def outcomes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=200)
    return confidence, rng.uniform(size=200) < confidence


def _texts(figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(mpl.text.Text)}


def test_decision_figure_compares_model_all_and_none(outcomes, tmp_path) -> None:
    curve = decision_curve(*outcomes, np.arange(1, 100) / 100, 0.05)
    figure = decision_figure(curve, "Covid")
    assert {"by the model", "all", "none", "prevalence 5 %", "probability of Covid from which on to act"} <= _texts(
        figure
    )
    low, high = figure.axes[0].get_ylim()
    assert low < 0
    assert high >= curve["model"].max()
    save(figure, tmp_path / "decision.png")


def test_risk_coverage_figure_says_its_area(outcomes, tmp_path) -> None:
    area = area_under_risk_coverage(*outcomes)
    figure = risk_coverage_figure(risk_coverage(*outcomes), area)
    assert {f"AURC {area:.3f}", "none referred", "n = 200"} <= _texts(figure)
    save(figure, tmp_path / "referral.png")
