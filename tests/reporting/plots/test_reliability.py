import matplotlib as mpl
import numpy as np
import pytest

from cxrnet.evaluation.calibration import reliability_table
from cxrnet.reporting.plots.decisions import reliability_diagram
from cxrnet.reporting.plots.style import save


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
