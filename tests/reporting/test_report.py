import html
import re
from dataclasses import replace

import numpy as np
import pytest

from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.decision import DecisionRule, Mix
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import classes_of, logits_of, make_predictions
from cxrnet.reporting.model_card import make_card, markdown_card
from cxrnet.reporting.pictures import PictureGroup, Pictures, figure
from cxrnet.reporting.report import render_repeats, render_report, thumbnail_verdict
from cxrnet.reporting.results import analyse
from cxrnet.reporting.run_pictures import pictures_elsewhere
from cxrnet.reporting.wording import weighing_sentences

# Two curves of the training, four plots of each split, its reliability, a decision curve a class, the deferral.
SHOWN = 2 + 2 * 4 + 2 + 3 + 1


def text_of(page: str) -> str:
    """Return the text that a reader sees."""
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.split("<body>")[1])))


@pytest.fixture
def render(tmp_path):
    def call(facts):
        path = tmp_path / "out/report.html"
        render_report(facts, path)
        return path.read_text(encoding="utf-8")

    return call


@pytest.fixture
def page(facts, render):
    return render(facts)


def with_results(facts, **changes):
    return replace(facts, results=replace(facts.results, **changes))


def test_page_says_what_matters(page, facts):
    test = facts.results.metrics["test"]
    text = text_of(page)
    n = test["accuracy"]["n"]
    assert f"{round(test['accuracy']['value'] * n)} of {n} test images right" in text
    for sentence in (facts.title, facts.summary, *facts.warnings, facts.command, "Research use only"):
        assert sentence in text
    assert f"ROC-AUC, macro {test['roc_auc_macro']['value']:.3f}" in text
    assert "finetune last 100 each epoch kept 1 863 683 4 7 best 0.182 val/loss 3 min 12 s" in text
    assert "Covid 1 200 1 200 1 200 3 600" in text
    assert page.count("data:image/png;base64,") == SHOWN


def test_page_answers_what_a_radiologist_asks(page, facts):
    text = text_of(page)
    analysis = facts.results.analyses["test"]
    asked = [
        "Result",
        "9 of 60 test images leaked into training",
        "Operating points",
        "Covid 0.375 specificity >= 0.99",
        "Predictive values at a prevalence",
        analysis.triage["Covid"][0],
        "Calibration",
        "divided by a temperature of 1.5, fitted on the 60 validation images",
        "Selective prediction: deferral to a reader",
        analysis.deferral_sentences[0],
        "Subgroups",
        "View PA Viral Pneumonia",
        "view PA: only",
        "Training",
        "How to reproduce this run",
    ]
    places = [text.find(words) for words in asked]
    assert -1 not in places, asked[places.index(-1)]
    assert places == sorted(places)
    low, high = facts.results.metrics["test"]["accuracy"]["interval"]
    assert f"{low:.2f} to {high:.2f}" in text
    # The class with a threshold comes first, but every class is weighed.
    assert text.find(analysis.triage["Covid"][0]) < text.find(analysis.triage["Normal"][0])


def test_page_says_why_there_is_no_threshold_temperature_or_group(facts, render):
    test = facts.results.analyses["test"]
    analyses = {**facts.results.analyses, "test": replace(test, subgroups=test.subgroups.iloc[:0], warnings=[])}
    plain = replace(
        with_results(facts, analyses=analyses, without_leaked=None),
        rule=DecisionRule(),
        chosen=[],
        temperature=Temperature(1.0, 60, 0.5, 0.5, "2 of 60 validation images are wrong"),
    )
    page = render(plain)
    assert "No threshold was asked for" in page
    assert "at a temperature of 1: 2 of 60 validation images are wrong." in page
    assert "No subgroups can be formed" in page
    assert "leaked into training" not in page


def test_gaps_are_shown_with_their_reason(facts, make_table, render):
    absent = evaluate(make_table(labels=["Covid", "Normal"] * 5))
    page = render(with_results(facts, metrics={"test": absent}))
    assert '<td class="gap">n/a</td>' in page
    assert re.search(r"n/a: [^<]*NPV of Viral Pneumonia[^<]*: no image is labelled Viral Pneumonia\.", page)
    assert "nan" not in re.sub('base64,[^"]*', "", page)


def test_page_says_how_intervals_are_made_and_why_a_metric_has_none(facts, make_table, render):
    table = make_table(labels=["Covid", *["Normal", "Viral Pneumonia"] * 10])  # one image of Covid
    page = html.unescape(render(with_results(facts, metrics={"test": evaluate(table, resamples=100)})))
    assert "95 % confidence intervals (CI): bootstrap of patients, within strata of labels." in page
    for words in (r"PR-AUC of Covid: all images labelled", r"PR-AUC, macro \(Network\)[^<]*: all images labelled"):
        assert re.search(f"No confidence interval: [^<]*{words} Covid are of one", page)


def test_predictive_values_and_subgroups_say_what_is_missing(facts, make_table, settings, render):
    table = make_table(labels=["Covid", *["Normal"] * 20])  # one image of Covid, and none of Viral Pneumonia
    table["view"] = ["AP", *["PA"] * 20]
    metrics = evaluate(table, resamples=100)
    changed = with_results(facts, metrics={"test": metrics}, analyses={"test": analyse(table, metrics, settings, 1)})
    text = text_of(render(changed))
    predictive, groups = text.split("Negative predictive value (NPV)", 1)[1].split("Subgroups")
    assert re.search(r"n/a: [^:]* of Viral Pneumonia: no image is labelled Viral Pneumonia\.", predictive)
    assert re.search(r"n/a: [^.]*Sensitivity of Covid \(view PA\)[^.]*: no image is labelled Covid", groups)
    assert "Shaded: the confidence interval of each point by itself." in text
    bare = analyse(table, metrics, {**settings, "resamples": 0}, 1)
    without = text_of(render(with_results(changed, analyses={"test": bare})))
    assert "Shaded" not in without
    assert "No confidence interval" not in without.split("Selective prediction")[1]


def test_decision_weights_are_said_where_there_are_some(facts, page, render):
    assert "weight x probability" not in page
    mix = Mix({"Viral Pneumonia": 0.1, "Covid": 0.2, "Normal": 0.7})
    weights = {"Viral Pneumonia": 7.0, "Covid": 3.5, "Normal": 1.0}
    sentences = weighing_sentences("class weights balanced", mix, weights, ())
    weighed = replace(facts, rule=DecisionRule(weights=weights), chosen=[], weighing=sentences)
    for said in (render(weighed), markdown_card(make_card(weighed))):
        assert "class weights balanced" in said
        assert "for the training prevalences (Viral Pneumonia 0.1, Covid 0.2, Normal 0.7)" in said
        assert "weights: Viral Pneumonia 7, Covid 3.5, Normal 1" in said
        assert "the most probable class is predicted" not in said.lower()


def test_deferral_stands_with_its_interval(facts, make_table, settings, render):
    made, metrics, rule = make_table(strength=4.0), facts.results.metrics["test"], DecisionRule(defer_below=0.8)
    table = make_predictions(made, classes_of(made), logits_of(made), rule)
    analysis = analyse(table, metrics, settings, 1.5)
    one = with_results(facts, metrics={"test": metrics}, analyses={"test": analysis})
    text, count = text_of(render(replace(one, rule=rule, deferred_share=0.125))), int(table["deferred"].sum())
    assert 0 < count < 60
    assert "below 0.8, the threshold that defers 12 % of the validation images" in text
    low, high = analysis.deferral.deferred["interval"]
    kept = analysis.deferral.kept["accuracy"]["value"]
    assert f"Test 60 {count / 60:.3f} {low:.2f} to {high:.2f} {count}/60 {kept:.3f}" in text


def test_a_run_over_seeds_has_the_page_of_a_run_with_the_spread_instead_of_the_training(repeats_facts, tmp_path):
    render_repeats(repeats_facts, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    text = text_of(page)
    moments = repeats_facts.moments["accuracy"]
    asked = [
        repeats_facts.warnings[0],
        f"Over the runs {repeats_facts.meaning}",
        f"Accuracy {moments.mean:.3f} {moments.sd:.3f} {moments.lowest:.3f} {moments.highest:.3f} "
        f"{moments.interval[0]:.3f} to {moments.interval[1]:.3f} 2",
        "The 95 % confidence interval of a mean is over seeds (Student's t, n = 2)",
        "Result",
        "Operating points",
        "seed1 0.5",
        repeats_facts.results.analyses["test"].triage["Covid"][0],
        "divided by its own temperature",
        "Selective prediction: deferral to a reader",
        "Subgroups",
        repeats_facts.command,
    ]
    places = [text.find(words) for words in asked]
    assert -1 not in places, asked[places.index(-1)]
    assert places == sorted(places)
    assert "Best epoch" not in text
    assert "Validation images" not in text.split("How to reproduce")[0].split("Result")[1]
    assert all(source.startswith("data:image/png") for source in re.findall(r'(?:src|href)\s*=\s*"([^"]*)', page))


def test_x_rays_stand_on_the_page_of_a_run_and_fit_into_a_mail(facts, render, phone):
    noise = np.random.default_rng(0).integers(0, 256, (192, 192)).astype(np.uint8)
    shown = [figure(f"Covid/<{place}>.png", noise, [f"Covid/<{place}>.png", "label Covid"]) for place in range(12)]
    heavy = Pictures([PictureGroup("Covid: errors", shown * 40), PictureGroup("Covid: hits", shown)], "As seen.")
    page = render(replace(facts, pictures=heavy))
    assert len(page) < 8_000_000
    assert "X-rays As seen. Covid: errors" in text_of(page)
    assert re.search(r"\d+ more are left out, so that the page can be mailed\.", page)
    assert "Covid/<wbr>&lt;0&gt;.png" in page
    hidden, _, seen = phone(page).partition(", seen ")
    assert hidden == "hidden 0 px"
    count = page.count("<img ")
    assert seen == f"{count} of {count}"
    assert count > SHOWN + 12


def test_a_run_over_seeds_says_where_its_x_rays_are(repeats_facts, tmp_path):
    render_repeats(replace(repeats_facts, pictures=pictures_elsewhere(6)), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "X-rays are shown in the report of each run" in page
    assert "report.images=0" in pictures_elsewhere(0).note


def test_losing_to_thumbnails_is_said(facts, make_table):
    weak, strong = evaluate(make_table(strength=0.5)), evaluate(make_table(strength=5.0))
    assert thumbnail_verdict(strong, weak) is None
    assert "does not beat a linear model on 8 × 8 thumbnails" in thumbnail_verdict(weak, strong)
    assert "macro ROC-AUC" in thumbnail_verdict(weak, weak)
    absent = evaluate(make_table(labels=["Covid", "Normal"] * 5))
    assert "(accuracy " in thumbnail_verdict(absent, absent)
    lost = with_results(facts, baselines={"majority": weak, "thumbnail": strong})
    assert "it may have learned little more than brightness" in lost.all_warnings[-1]


def test_phone_does_not_scroll_sideways_and_plots_are_seen(page, phone):
    assert phone(page) == f"hidden 0 px, seen {SHOWN} of {SHOWN}"


def test_page_prints(page, browser, tmp_path):
    browser(f"--print-to-pdf={tmp_path / 'report.pdf'}", (tmp_path / "out/report.html").as_uri())
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert 5 <= pages <= 12
