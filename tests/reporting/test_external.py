import html

import pandas as pd
import pytest

from cxrnet.evaluation.generalisation import generalisation_table
from cxrnet.evaluation.metrics import evaluate
from cxrnet.reporting.analysis import analyse
from cxrnet.reporting.external import printed_baselines, write_generalisation
from cxrnet.reporting.results import save_analysis
from cxrnet.reporting.wording import number_text


@pytest.fixture
def written(make_table, settings, tmp_path):
    """The three files, and the analysis that they hold."""
    own, other = make_table(60, strength=3.0), make_table(60, seed=1)
    table = generalisation_table(
        {"north": evaluate(own, 100)}, {"north": evaluate(other, 100)}, {"north": [""] * 3}, {}
    )
    other["view"] = pd.array(["PA", "AP"] * 30, dtype="string")
    analysis = analyse(other, evaluate(other, 100), settings, 1.0)
    (tmp_path / "north data").mkdir()
    files = write_generalisation(
        table,
        0.95,
        tmp_path,
        title="a <model> on north",
        warnings=["north: 3 images are copies", "the images are not known"],
        data_sets={"north": {"copies": "3 taken out (2 of train, 1 of test)"}},
        analyses={"north": analysis},
        figures={"north": save_analysis(analysis, tmp_path / "north data")},
        baselines=printed_baselines(
            {"north": evaluate(other)}, {"north": {"majority": evaluate(own)}}, "no thumbnails, as 3 images are lost"
        ),
        command="python -m cxrnet.evaluate bundle=<x>",
        environment={"seed": "0"},
    )
    return files, analysis


def test_everything_is_in_the_three_files(written, tmp_path):
    files, analysis = written
    assert [file.name for file in files] == [f"generalisation.{end}" for end in ("csv", "md", "html")]
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == sorted(file.name for file in files)
    table = pd.read_csv(files[0], keep_default_na=False, na_values=[""])
    assert table["change"].notna().all()
    assert {"internal_low", "external_high", "change_low", "external_n"} <= set(table)
    markdown, page = (file.read_text(encoding="utf-8") for file in files[1:])
    for text in (markdown, page):
        assert "north: 3 images are copies." in text
        assert "The images are not known." in text
        assert "3 taken out (2 of train, 1 of test)" in text
        assert "ROC-AUC, macro falls by" in text
        assert "view PA" in text
        assert "north: view AP: only " in text
        assert "no thumbnails, as 3 images are lost" in text
        for sentence in (part for sentences in analysis.triage.values() for part in sentences):
            assert html.escape(sentence) in text if text == page else sentence in text
    assert "false positives, per patient. Shaded: the confidence interval of each point by itself." in markdown
    assert f"| Covid | 20 % | {number_text(analysis.predictive['Covid'].loc[1, 'ppv'])}" in markdown
    assert "![Net benefit, Covid](north%20data/decision_1.png)" in markdown
    assert page.count("data:image/png;base64,") == 3
    assert "| north | ROC-AUC, macro | 0.9" in markdown
    assert "a &lt;model&gt; on north" in page
    assert "bundle=&lt;x&gt;" in page


def test_the_page_asks_for_nothing_and_fits_a_phone(written, phone, check_standalone):
    page = written[0][2].read_text(encoding="utf-8")
    check_standalone(page)
    assert phone(page) == "hidden 0 px, seen 3 of 3"
