import copy
import html
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import DecisionRule
from cxrnet.reporting.model_card import (
    CARD,
    NOT_VALIDATED,
    Section,
    claim_answers,
    make_card,
    read_card,
    with_external,
    write_card,
)
from cxrnet.reporting.wording import interval_text, metric_text


def text_of(page):
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.split("<body>")[1])))


@pytest.fixture
def card(facts, tmp_path):
    return [file.read_text(encoding="utf-8") for file in write_card(make_card(facts), tmp_path)]


def test_both_cards_say_the_same(card, facts):
    markdown, page = text_of(f"<body>{MarkdownIt('commonmark').enable('table').render(card[0])}"), text_of(card[1])
    for words in (
        *facts.warnings,
        *facts.known_issues,
        "Must not be used to diagnose",
        NOT_VALIDATED,
        "Covid is predicted from a probability of 0.375 on (specificity >= 0.99)",
        "OPEN: for a person to write",
        facts.command,
    ):
        assert words in markdown
        assert words in page
    result = facts.results.metrics["test"]
    for metric in (result["accuracy"], facts.results.without_leaked["accuracy"], result["ece"], result["brier"]):
        assert metric_text(metric) in markdown
        assert interval_text(metric) in page


def test_data_without_documented_issues_are_told_from_data_without_faults(facts, tmp_path):
    unknown = replace(facts, known_issues=[], warnings=["3 images are duplicates."])
    sections = {section.title: section for section in make_card(unknown).sections}
    assert sections["Known issues of the data"].sentences == ["None are documented."]
    assert "3 images are duplicates." in sections["Found by the checks of this program"].sentences


def test_the_page_asks_for_nothing_and_fits_a_phone(card, phone, check_standalone):
    check_standalone(card[1])
    assert phone(card[1]) == "hidden 0 px, seen 0 of 0"


def test_external_results_take_the_place_of_the_warning(facts, tmp_path):
    external = Section("External data", ["AUC 0.71 on 500 images elsewhere."], [["", "AUC"], ["elsewhere", "0.71"]])
    write_card(make_card(facts), tmp_path / "run")
    for file in write_card(with_external(read_card(tmp_path / "run"), external), tmp_path / "evaluation"):
        text = file.read_text(encoding="utf-8")
        assert "NOT EXTERNALLY VALIDATED" not in text
        assert text.count("AUC 0.71 on 500 images elsewhere.") == 2  # in its section and in the checklist


def test_what_a_user_wrote_is_text(facts, tmp_path):
    named = replace(facts, title="<b>a|b</b>", environment={"folder": "a|b"})
    markdown, page, _ = (file.read_text(encoding="utf-8") for file in write_card(make_card(named), tmp_path))
    assert "<b>a|b" not in page
    assert "| folder | a\\|b |" in markdown
    assert "# Model card: &lt;b>a\\|b&lt;/b>" in markdown


def test_a_damaged_card_is_said_and_a_missing_one_is_none(tmp_path):
    assert read_card(tmp_path) is None
    for text in ("{", "[]", '{"title": "x"}'):
        (tmp_path / CARD).write_text(text)
        with pytest.raises(CxrnetError, match=r"model_card\.json' is no model card; delete it to evaluate without one"):
            read_card(tmp_path)


def test_the_run_answers_the_items_it_knows_and_leaves_the_rest_open(facts):
    answers = claim_answers(facts)
    assert answers[7] == f"covid19_image; known issues: {facts.known_issues[0]}"
    assert "Brier score" in answers[28]
    assert "Covid from 0.375 on (specificity >= 0.99)" in answers[22]
    assert answers[33] == "not done"
    assert answers[35].startswith("images: train 1273")
    # What only a person knows: ethics, the reference standard, funding; and what these data don't tell.
    assert not set(answers) & {5, 14, 16, 36, 40, 44}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            DecisionRule({}, {"Covid": 3.0, "Normal": 1.0}, 0.36),
            "where its share in the sum of weight x probability is",
        ),
        (DecisionRule(defer_below=0.6), " Predicted is the most probable class; deferred to a reader where its"),
        (DecisionRule({"Covid": 0.375}), "predicted is the most probable class of those without a threshold."),
    ],
)
def test_the_decision_of_the_checklist_is_that_of_the_model(facts, rule, said):
    assert said in claim_answers(replace(facts, rule=rule, deferred_share=0.2))[22]


def test_the_way_to_intervals_is_that_of_the_data(facts):
    assert claim_answers(facts)[29].startswith("95 % confidence intervals (CI): bootstrap of patients, within strata")
    one = copy.deepcopy(facts.results.metrics["test"])
    del one["log_loss"]["interval"]
    one["log_loss"]["interval_reason"] = "it is 0 in every resample"
    analyses = {"test": replace(facts.results.analyses["test"], cluster="image")}
    results = replace(facts.results, analyses=analyses, metrics={"test": one})
    answer = claim_answers(replace(facts, results=results))[29]
    assert "bootstrap of images" in answer
    assert re.search(r"No confidence interval: [^.]*Log loss \(lower is better\) \(Network\): it is 0 in every", answer)
