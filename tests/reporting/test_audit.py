"""The audit in words: what is a finding, what is none, and where the page and the report have it."""

import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.audit import BORDER, CORNERS, LUNGS_OUT, OUTLINE, THUMBNAIL, WHOLE, Look, Sampling
from cxrnet.reporting.audit import (
    AuditFacts,
    Explained,
    add_to_report,
    audit_metrics,
    audit_section,
    write_audit,
)
from cxrnet.reporting.model_card import AUDIT, make_card, markdown_card, with_audit
from cxrnet.reporting.report import render_report

NAN = float("nan")


def look(name: str, value: float, finds: bool = False, **changes) -> Look:
    """A look at covid, with an interval of 0.1."""
    values = {"kind": "data", "label": "covid", "low": value - 0.05, "high": value + 0.05, "whole": 0.95, "n": 400}
    return Look(name=name, value=value, **{**values, "bound": lambda level: 0.1 if finds else -0.1, **changes})


def facts_of(*looks: Look, **changes) -> AuditFacts:
    row = {"intervention": "blur", "class": "covid", "metric": "sensitivity", "before": 0.9, "after": 0.4}
    rows = [row | {"change": -0.5, "low": -0.7, "high": -0.3, "n": 30, "reason": ""}]
    rows.append(rows[0] | {"metric": "specificity", "change": NAN, "low": NAN, "high": NAN, "reason": "no image"})
    values = {
        "title": "mobilenet_v2 on <north>",
        "classes": ("covid", "flu", "normal"),
        "looks": looks,
        "changes": pd.DataFrame(rows),
        "inside": pd.DataFrame(),
        "explained": [],
        "corner": "",
        "lungs": "masks",
        "gaps": [],
        "sampling": Sampling(100, 0, 0.95),
        "command": "python -m cxrnet.audit bundle=x",
        "environment": {"seed": "0"},
    }
    return AuditFacts(**{**values, **changes})


@pytest.fixture
def found() -> AuditFacts:
    planted = look("corners", 0.8, True, kind="planted", whole=0.1, n=60)
    looks = (look(WHOLE, 0.95), look(LUNGS_OUT, 0.93, True), look(CORNERS, 0.9, True), look(THUMBNAIL, 0.94, True))
    return facts_of(*looks, planted, corner="top right")


def test_a_finding_is_said_with_its_interval_and_the_region_is_named(found):
    gist, *sentences = found.verdict.sentences
    assert gist.startswith("A shortcut was found: covid from what is not in the lungs and the corners")
    assert "(3 looks, 95 % for all of them together)" in gist  # the thumbnail and the whole image don't count
    lungs, corners, planted = sentences
    assert "with the lungs blacked out the ROC-AUC of a linear probe is 0.93 (0.88 to 0.98) of 0.95" in lungs
    assert "most of the signal is not in the lungs" in lungs
    assert "Of the corners the one at the top right tells most." in corners
    assert "a share of 0.80 (0.75 to 0.85) of 60 images of other classes is predicted as covid" in planted
    assert "with those of their own class 0.10" in planted


def test_where_nothing_is_found_it_is_said_how_much_room_is_left():
    gist, undecided, room = facts_of(look(BORDER, 0.58), look(LUNGS_OUT, 0.75)).verdict.sentences
    assert gist == "No shortcut was found: none of 2 looks finds one, at 95 % for all of them together."
    assert undecided.startswith("Undecided")
    assert "with the lungs blacked out 0.75 (0.70 to 0.80) of 0.95" in undecided
    assert "no proof of absence: with the lungs blacked out" in room
    assert "n = 400" in room


def test_where_lungs_lie_is_a_caution_for_the_class_that_it_tells():
    outline = look(OUTLINE, 0.7)
    for name, is_said in ((LUNGS_OUT, True), (BORDER, False)):
        said = " ".join(facts_of(look(name, 0.9, True), outline).verdict.sentences)
        assert ("Where the lungs lie tells covid" in said) == is_said


def test_nothing_to_look_at_is_no_all_clear():
    assert (
        facts_of(gaps=["no probes: only 'covid' has images"]).verdict.gist
        == "There is no verdict: nothing could be looked at."
    )


def test_two_classes_are_told_from_each_other():
    planted = look("border", 0.8, True, kind="planted", whole=0.1)
    facts = facts_of(look(BORDER, 0.9, True), planted, classes=("normal", "covid"))
    assert facts.verdict.gist.startswith("A shortcut was found: normal or covid from the border (2 looks")
    assert "with that of an image of covid" in facts.verdict.details[1]
    assert facts.verdict.details[0].startswith("normal or covid: from the border alone")
    assert list(facts.tables[0].rows.columns)[-1] == "ROC-AUC"


def test_looks_of_the_model_alone_say_little():
    gist = facts_of(look(LUNGS_OUT, 0.6, kind="model"), gaps=["no probes"]).verdict.gist
    assert gist.endswith("; there were no probes, so this says little.")


def test_a_box_is_said():
    said = facts_of(look(LUNGS_OUT, 0.9, True), lungs="box").verdict.details[0]
    assert "with the box for the lungs blacked out" in said


def test_the_page_holds_everything_and_loads_nothing(found, tmp_path, check_standalone, phone):
    image, heat = np.full((40, 50), 90, np.uint8), np.linspace(0, 1, 2000).reshape(40, 50)
    maps = {"Grad-CAM": (heat, ""), "Occlusion": (heat, "FAILS the sanity check: random weights give the same")}
    shown = Explained("north/1.png", "normal", "covid", 0.83, image, maps)
    inside = pd.DataFrame(
        [
            {
                "region": "lungs",
                "map": "Grad-CAM",
                "measure": "energy",
                "value": 0.4,
                "low": 0.3,
                "high": 0.5,
                "area": 0.3,
            }
            | {"excess": 0.1, "excess_low": 0.0, "excess_high": 0.2, "n": 8, "empty": 0}
            | {"method": "Grad-CAM", "fails": 1, "of": 8}
        ]
    )
    facts = AuditFacts(**{**vars(found), "explained": [shown], "inside": inside, "gaps": ["no probe of the view"]})
    page = write_audit(facts, tmp_path).read_text(encoding="utf-8")
    check_standalone(page)
    for text in ("FINDING", "&lt;north&gt;", "No probe of the view.", "0.90 → 0.40", "n/a", "1 of 8 maps fail"):
        assert text in page
    assert phone(page) == "hidden 0 px, seen 2 of 2"


def test_the_report_has_the_last_verdict_once_before_its_headline(found, facts, tmp_path, check_standalone):
    render_report(facts, tmp_path / "report.html")
    before = (tmp_path / "report.html").read_text(encoding="utf-8")
    quiet = facts_of(look(BORDER, 0.5))
    for audit in (found, quiet):
        add_to_report(audit, tmp_path / "report.html")
    after = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_standalone(after)
    assert after.count('<section id="audit">') == 1
    assert quiet.verdict.gist in after
    assert "A shortcut was found" not in after
    assert after.index(quiet.verdict.gist) < after.index('class="cards"')
    start, end = after.index('<section id="audit">'), after.index("</section>") + len("</section>\n")
    assert after[:start] + after[end:].lstrip("\n") == before


def test_the_card_has_it_before_what_the_checks_found_and_in_the_checklist(found, facts):
    card = with_audit(with_audit(make_card(facts), audit_section(facts_of(look(BORDER, 0.5)))), audit_section(found))
    titles = [section.title for section in card.sections]
    assert titles.count(AUDIT) == 1
    assert titles.index(AUDIT) == titles.index("Found by the checks of this program") - 1
    (claim,) = (section for section in card.sections if section.title.startswith("CLAIM"))
    answers = {row[0]: row[2] for row in claim.rows}
    assert answers["30"] == answers["31"] == found.verdict.gist
    assert "A shortcut was found" in markdown_card(card)


def test_mlflow_gets_a_number_for_each_look(found):
    metrics = audit_metrics(found)
    assert metrics["audit/findings"] == 3
    assert metrics["audit/data/lungs out/covid"] == 0.93
    assert metrics["audit/planted/corners/covid/ci_low"] == 0.75
    assert not any(np.isnan(value) for value in metrics.values())
