import html
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest

from cxrnet.evaluation.generalisation import Sides
from cxrnet.evaluation.metrics import evaluate
from cxrnet.reporting.external import ExternalFacts, external_section, say_external, write_external
from cxrnet.reporting.results import analyse, save_analysis


@pytest.fixture
def facts(make_table, settings, read_external, xrays, tmp_path):
    """A result on which the network loses against the thumbnails."""
    own, other = make_table(60, strength=3.0), make_table(60, seed=1)
    other["view"] = pd.array(["PA", "AP"] * 30, dtype="string")
    (tmp_path / "north data").mkdir()
    analysis = analyse(other, evaluate(other, 100), settings, 1.0)
    results = SimpleNamespace(analyses={"test": analysis}, plots=save_analysis(analysis, tmp_path / "north data"))
    classes = ["Viral Pneumonia", "Covid", "Normal"]
    sides = Sides(evaluate(other, 100), evaluate(own, 100), classes, {"thumbnail": evaluate(own)})
    return ExternalFacts(
        title="a <model> on north",
        sets=[read_external(xrays)],
        results={"north": results},
        sides={"north": sides},
        baseline_gap="no majority, for a reason",
        level=0.95,
        warnings=["north: 3 images are duplicates", "the images are not known"],
        command="python -m cxrnet.evaluate bundle=<x>",
        environment={"seed": "0"},
    )


def test_everything_is_in_the_table_and_on_the_page(facts, tmp_path, phone, check_standalone):
    table, page = write_external(facts, tmp_path)
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {table.name, page.name}
    rows = pd.read_csv(table, keep_default_na=False, na_values=[""])
    assert rows[["change", "thumbnail"]].notna().all(axis=None)
    assert rows["majority"].isna().all()
    assert {"internal_low", "external_high", "change_low", "external_n", "thumbnail_low"} <= set(rows)
    text, analysis = page.read_text(encoding="utf-8"), facts.analyses["north"]
    for words in (
        "north: 3 images are duplicates.",
        "The images are not known.",
        "north: The network does not beat a linear model on 8 × 8 thumbnails (balanced accuracy",
        "ROC-AUC, macro drops by",
        "view PA",
        "north: view AP: only ",
        "no majority, for a reason",
        "north: it is small.",
        "Shaded: the confidence interval of each point by itself.",
        "a &lt;model&gt; on north",
        "bundle=&lt;x&gt;",
        *(html.escape(sentence) for sentences in analysis.triage.values() for sentence in sentences),
    ):
        assert words in text
    check_standalone(text)
    assert phone(text) == "hidden 0 px, seen 3 of 3"


def test_the_card_and_the_console_say_the_same(facts, capsys):
    section, said = external_section(facts), partial(say_external, facts)
    assert section.sentences[0].startswith("north: ROC-AUC, macro drops by")
    assert [row[1] for row in section.rows[:3]] == ["Metric", "ROC-AUC, macro", "Accuracy"]
    said()
    printed = capsys.readouterr().out
    assert section.sentences[0].rstrip(".") in printed
    assert "does not beat a linear model" in printed
