import dataclasses
import html
import re

import pytest

from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.report import render_report, thumbnail_verdict
from cxrnet.evaluation.temperature import Temperature

# Two curves of the training, four figures of each split, its reliability, a decision curve a class, the referral.
SHOWN = 2 + 2 * 4 + 2 + 3 + 1


@pytest.fixture
def page(facts, tmp_path):
    render_report(facts, tmp_path / "out/report.html")
    return (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_page_says_what_matters(page, facts):
    test = facts.metrics["test"]
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.split("<body>")[1])))
    n = test["accuracy"]["n"]
    assert f"{round(test['accuracy']['value'] * n)} of {n} test images right" in text
    for sentence in (facts.title, facts.summary, *facts.warnings, facts.command, "Research use only"):
        assert sentence in text
    assert f"ROC-AUC, macro {test['roc_auc_macro']['value']:.3f}" in text
    assert "finetune last 100 1 863 683 4 7 0.182 val_loss 3 min 12 s each epoch kept" in text
    assert "Covid 1 200 1 200 1 200 3 600" in text
    assert page.count("data:image/png;base64,") == SHOWN


def test_page_answers_what_a_radiologist_asks(page, facts):
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.split("<body>")[1])))
    analysis = facts.analyses["test"]
    asked = [
        "Result",
        "9 of 60 test images were seen before",
        "Operating points",
        "Covid 0.375 specificity >= 0.99",
        "What a call is worth",
        analysis.triage["Covid"][0],
        "Whether the probabilities can be believed",
        "divided by a temperature of 1.5, fitted on the 60 validation images",
        "Who is sent to a reader",
        analysis.referral[0],
        "For whom it holds",
        "View PA",
        "View PA: only",
        "Training",
        "How to reproduce this run",
    ]
    places = [text.find(words) for words in asked]
    assert -1 not in places, asked[places.index(-1)]
    assert places == sorted(places)
    low, high = facts.metrics["test"]["accuracy"]["interval"]
    assert f"{low:.2f} to {high:.2f}" in text
    # The class with a threshold comes first, but every class is weighed.
    assert text.find(analysis.triage["Covid"][0]) < text.find(analysis.triage["Normal"][0])


def test_page_says_why_there_is_no_threshold_temperature_or_group(facts, tmp_path):
    one = dataclasses.replace(facts.analyses["test"], subgroups=facts.analyses["test"].subgroups.iloc[:0], warnings=[])
    plain = dataclasses.replace(
        facts,
        points={},
        chosen=[],
        unseen=None,
        temperature=Temperature(1.0, 60, 0.5, 0.5, "2 of 60 validation images are wrong"),
        analyses={**facts.analyses, "test": one},
    )
    render_report(plain, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No threshold was asked for" in page
    assert "at a temperature of 1: 2 of 60 validation images are wrong." in page
    assert "The data tell of no groups" in page
    assert "seen before" not in page
    assert html.escape(plain.analyses["test"].triage["Normal"][0], quote=False) in page.replace("&#39;", "'")


def test_page_needs_nothing_from_outside(page):
    sources = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'>]*)""", page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"url\(|@import|<script|<link|<iframe", page)
    assert "default-src 'none'; img-src data:;" in page


def test_what_a_user_wrote_is_text(facts, tmp_path):
    named = dataclasses.replace(facts, title="<script>alert(1)</script>", warnings=["a < b & c"])
    render_report(named, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "a &lt; b &amp; c" in page


def test_gaps_are_shown_with_their_reason(facts, make_table, tmp_path):
    absent = evaluate(make_table(labels=["Covid", "Normal"] * 5))
    render_report(dataclasses.replace(facts, metrics={"test": absent}), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<abbr title="no image is labelled Viral Pneumonia">n/a</abbr>' in page
    assert "n/a: no image is labelled Viral Pneumonia." in page
    assert "nan" not in re.sub('base64,[^"]*', "", page)


def test_page_says_how_intervals_are_made_and_why_a_figure_has_none(facts, make_table, tmp_path):
    table = make_table(labels=["Covid", *["Normal", "Viral Pneumonia"] * 10])  # one image of Covid
    metrics = evaluate(table, resamples=100)
    render_report(dataclasses.replace(facts, metrics={"test": metrics}), tmp_path / "report.html")
    page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "95 % intervals: bootstrap of patients, within strata of labels; where resamples say nothing, Wils" in page
    assert re.search(r"No interval: [^<]*PR-AUC of Covid: all images labelled Covid are of one patient", page)
    assert re.search(r"No interval: [^<]*PR-AUC, macro \(Network\)[^<]*: all images labelled Covid are of one", page)


def test_without_test_images_the_page_says_so(facts, tmp_path):
    render_report(dataclasses.replace(facts, metrics={"val": facts.metrics["val"]}), tmp_path / "report.html")
    assert "There are no test images" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_losing_to_thumbnails_is_said(facts, make_table, tmp_path):
    weak, strong = evaluate(make_table(strength=0.5)), evaluate(make_table(strength=5.0))
    assert thumbnail_verdict(strong, weak) is None
    assert "does not beat a linear model on 8 × 8 thumbnails" in thumbnail_verdict(weak, strong)
    assert "macro ROC-AUC" in thumbnail_verdict(weak, weak)
    absent = evaluate(make_table(labels=["Covid", "Normal"] * 5))
    assert "(accuracy " in thumbnail_verdict(absent, absent)
    render_report(dataclasses.replace(facts, baselines={"majority": weak, "thumbnail": strong}), tmp_path / "r.html")
    assert "it may have learned little more than brightness" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_phone_does_not_scroll_sideways_and_figures_are_seen(page, browser, tmp_path):
    # The report in a frame as wide as a phone; `srcdoc` lets the page around it measure.
    (tmp_path / "phone.html").write_text(
        f'<iframe style="width:390px;height:800px;border:0" srcdoc="{html.escape(page)}"></iframe><pre></pre>'
        "<script>onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "const seen = [...page.images].filter(image => image.naturalWidth > 0).length;"
        "document.querySelector('pre').textContent ="
        "`hidden ${page.documentElement.scrollWidth - page.documentElement.clientWidth} px,"
        " seen ${seen} of ${page.images.length}` }</script>",
        encoding="utf-8",
    )
    measured = browser("--dump-dom", (tmp_path / "phone.html").as_uri())
    assert f"<pre>hidden 0 px, seen {SHOWN} of {SHOWN}</pre>" in measured


def test_page_prints(page, browser, tmp_path):
    browser(f"--print-to-pdf={tmp_path / 'report.pdf'}", (tmp_path / "out/report.html").as_uri())
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert 5 <= pages <= 12
