import dataclasses
import html
import re

import pytest
from markdown_it import MarkdownIt

from cxrnet.errors import CxrnetError
from cxrnet.reporting.model_card import CARD, NOT_VALIDATED, Section, make_card, read_card, with_external, write_card
from cxrnet.reporting.wording import interval_text, metric_text, number_text


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
    result = facts.metrics["test"]
    for metric in (result["accuracy"], facts.without_leaked["accuracy"], result["ece"], result["brier"]):
        assert metric_text(metric) in markdown
        assert f"{number_text(metric)} {interval_text(metric)}" in page


def test_data_without_documented_issues_are_told_from_data_without_faults(facts, tmp_path):
    unknown = dataclasses.replace(facts, known_issues=[], warnings=["3 images are duplicates."])
    sections = {section.title: section for section in make_card(unknown).sections}
    assert sections["Known issues of the data"].sentences == ["None are documented."]
    assert "3 images are duplicates." in sections["Found by the checks of this program"].sentences


def test_the_page_asks_for_nothing_and_fits_a_phone(card, phone, check_standalone):
    check_standalone(card[1])
    assert phone(card[1]) == "hidden 0 px, seen 0 of 0"


def test_tables_of_the_markdown_are_tables(card):
    for block in re.findall(r"(?:^\|.*\n?)+", card[0], flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_external_results_take_the_place_of_the_warning(facts, tmp_path):
    external = Section("External data", ["AUC 0.71 on 500 images elsewhere."], [["", "AUC"], ["elsewhere", "0.71"]])
    write_card(make_card(facts), tmp_path / "run")
    for file in write_card(with_external(read_card(tmp_path / "run"), external), tmp_path / "evaluation"):
        text = file.read_text(encoding="utf-8")
        assert "NOT EXTERNALLY VALIDATED" not in text
        assert text.count("AUC 0.71 on 500 images elsewhere.") == 2  # in its section and in the checklist


def test_what_a_user_wrote_is_text(facts, tmp_path):
    named = dataclasses.replace(facts, title="<b>a|b</b>", environment={"folder": "a|b"})
    markdown, page, _ = (file.read_text(encoding="utf-8") for file in write_card(make_card(named), tmp_path))
    assert "<b>a|b" not in page
    assert "| folder | a\\|b |" in markdown
    assert "# Model card: &lt;b>a\\|b&lt;/b>" in markdown


def test_the_command_is_printed_as_it_is_typed(facts, tmp_path):
    command = "python -m cxrnet.train 'model.head.units=[32,32]' 'loss.class_weights={COVID: 3.0}'"
    markdown, *_ = write_card(make_card(dataclasses.replace(facts, command=command)), tmp_path)
    assert f"\n`{command}`\n" in markdown.read_text(encoding="utf-8")


def test_a_damaged_card_is_said_and_a_missing_one_is_none(tmp_path):
    assert read_card(tmp_path) is None
    for text in ("{", "[]", '{"title": "x"}'):
        (tmp_path / CARD).write_text(text)
        with pytest.raises(CxrnetError, match=r"model_card\.json' is no model card; delete it to evaluate without one"):
            read_card(tmp_path)
