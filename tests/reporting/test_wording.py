import shlex

import numpy as np
import pandas as pd
import pytest

from cxrnet.cli.command_line import typed_words
from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.decision import Mix
from cxrnet.evaluation.metrics import Metric, evaluate
from cxrnet.evaluation.prevalence import predictive_table
from cxrnet.evaluation.selective_prediction import risk_coverage
from cxrnet.evaluation.threshold_selection import choose_thresholds
from cxrnet.reporting.wording import (
    command_text,
    deferral_text,
    duration,
    interval_gaps,
    interval_method,
    level_text,
    metric_text,
    offset_text,
    threshold_sentences,
    triage_text,
    weighing_sentences,
)


def test_durations_are_read_aloud():
    said = [duration(seconds).replace("\u00a0", " ") for seconds in (0.4, 59.6, 192, 7500)]
    assert said == ["0 s", "1 min 00 s", "3 min 12 s", "2 h 05 min"]


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ({"value": 0.95454, "n": 66, "interval": [0.876, 0.989]}, "0.955 (0.88 to 0.99)"),
        ({"value": 0.9996, "n": 4000, "interval": [0.9986, 1.0]}, "1.000 (0.999 to 1.000)"),  # narrow: a digit more
        ({"value": 1.0, "n": 1, "interval_reason": "there is only one image"}, "1.000"),
        ({"value": None, "n": 0, "reason": "no image is labelled Covid"}, "n/a"),
    ],
)
def test_metrics_are_written_with_their_interval(metric, text):
    assert metric_text(metric) == text


def test_a_level_is_not_rounded():
    assert [level_text(level) for level in (0.9, 0.95, 0.975, 0.999)] == ["90 %", "95 %", "97.5 %", "99.9 %"]


@pytest.mark.parametrize(
    "word",
    ["loss.class_weights={COVID: 3.0}", "loss={class_weights: {COVID: 3.0}}", "loss.class_weights=null", "+a={b: 1}"],
)
def test_a_command_is_written_as_it_was_typed(word):
    typed = ["python", "-m", "cxrnet.train", "data=phantom", word, "defer=0.2"]
    assert command_text(typed_words(typed)) == shlex.join(typed)


def test_how_intervals_are_made_follows_what_was_drawn(make_table) -> None:
    drawn = evaluate(make_table(), resamples=100)
    assert "bootstrap of duplicate groups, as patients aren't known" in interval_method(drawn, 0.9, "duplicate group")
    assert interval_method(drawn, 0.9, "image").startswith(
        "90 % confidence intervals (CI): bootstrap of images, within strata"
    )
    assert interval_method(evaluate(make_table()), 0.95, "patient").startswith(
        "No confidence intervals: none were asked for"
    )


def test_a_missing_interval_says_why_and_each_reason_once() -> None:
    flat: Metric = {"value": 1.0, "n": 9, "interval_reason": "it is 1 in every resample"}
    known: Metric = {"value": 0.5, "n": 9, "interval": [0.2, 0.8]}
    absent: Metric = {"value": None, "n": 0, "reason": "no image is labelled A"}
    named = [("F1", flat), ("NPV", known), ("AUC", flat), ("F1", flat), ("ECE", absent)]
    assert interval_gaps(named) == ["F1, AUC: it is 1 in every resample"]


SENSITIVITY, SPECIFICITY = {"value": 0.8, "n": 50}, {"value": 0.9, "n": 200}
CORRECT = np.array([True, False, True, False])
CURVE = risk_coverage(np.array([0.9, 0.6, 0.8, 0.7]), CORRECT).assign(
    low=[0, 0, 0.1, 0.15], high=[0.8, 0.65, 0.8, 0.85]
)


def two_classes(probabilities: list[float], labels: str) -> pd.DataFrame:
    """A table of sick (s) and well (w) images."""
    names = {"s": "sick", "w": "well"}
    rows = {"split": "val", "label": [names[x] for x in labels], "prob_sick": probabilities}
    return pd.DataFrame(rows).assign(prob_well=lambda t: 1 - t["prob_sick"])


def test_text_states_predictive_values() -> None:
    text = triage_text(
        "Covid", SENSITIVITY, SPECIFICITY, predictive_table(SENSITIVITY, SPECIFICITY, [0.05, 0.5]), 0.01, 0.95
    )
    assert "40 of 50 images of Covid were predicted as Covid, and 20 of 200 others" in text[0]
    assert "At a prevalence of 5 % a positive prediction is right in 30 of 100 cases, so it" in text[1]
    assert "after a negative prediction 12 of 1000 are Covid, compared with 50 of 1000 before it" in text[1]
    assert "right in 89 of 100 cases; after a negative prediction 18 of 100 are Covid, compared" in text[2]
    assert "more often than right below a prevalence of 11 %" in text[3]
    assert "rules Covid out only below a prevalence of 4.3 %, if at most 1 %" in text[4]


def test_intervals_stand_in_the_text() -> None:
    sensitivity, specificity = SENSITIVITY | {"interval": [0.7, 0.9]}, SPECIFICITY | {"interval": [0.85, 0.95]}
    table = predictive_table(sensitivity, specificity, [0.2])
    (low, high), (least, most) = table.loc[0, "ppv"]["interval"], table.loc[0, "npv"]["interval"]
    text = triage_text("Covid", sensitivity, specificity, table, 0.01, 0.95)
    assert f"right in 67 of 100 cases (95 % CI {100 * low:.0f} to {100 * high:.0f});" in text[1]
    assert f"53 of 1000 are Covid (95 % CI {1000 * (1 - most):.0f} to {1000 * (1 - least):.0f}), compared" in text[1]


@pytest.mark.parametrize(("level", "low", "least"), [(0.95, "0.954", "0.912"), (0.975, "0.941", "0.888")])
def test_a_perfect_metric_is_doubted(level, low, least) -> None:
    perfect = {"value": 1.0, "n": 40}, {"value": 1.0, "n": 80}
    text = triage_text("Covid", *perfect, predictive_table(*perfect, [0.05]), 0.01, level)
    assert (
        f"None of 80 images without Covid was predicted as Covid, but the specificity may be as low as {low} ("
        in text[2]
    )
    assert f"None of 40 images of Covid was missed, but the sensitivity may be as low as {least} (" in text[3]
    assert f"({100 * level:g} % CI)" in text[3]
    if level == 0.95:
        assert "more often than right below a prevalence of 4.4 %" in text[2]
        assert "rules Covid out only below a prevalence of 10 %, if at most 1 %" in text[3]
    known = tuple(metric | {"interval": [end, 1.0]} for metric, end in zip(perfect, (0.8, 0.9), strict=True))
    text = triage_text("Covid", *known, predictive_table(*known, [0.05]), 0.01, 0.95)
    assert "as low as 0.900" in text[2]
    assert "as low as 0.800" in text[3]


def test_a_prediction_that_says_nothing_and_one_that_is_unknown() -> None:
    chance = {"value": 0.3, "n": 10}, {"value": 0.7, "n": 10}
    text = triage_text("Covid", *chance, predictive_table(*chance, [0.05]), 0.01, 0.95)
    assert "at no prevalence do the predictions tell anything" in text[1]
    absent = {"value": None, "n": 0, "reason": "no image is labelled Covid"}
    table = predictive_table(absent, SPECIFICITY, [0.05])
    assert table.loc[0, "ppv"] == absent
    assert triage_text("Covid", absent, SPECIFICITY, table, 0.01, 0.95) == [
        "The predictive values of Covid can't be computed: no image is labelled Covid."
    ]


def test_text_says_how_the_error_falls() -> None:
    half, most = deferral_text(CURVE, [0.5, 0.3], 0.95)
    assert half == (
        "With the least certain 50 % of the predictions deferred to a reader, "
        "0.0 % (0 of 2, 95 % CI 0.0 to 65.0 %) of the others are wrong; "
        "without deferral 50.0 % (2 of 4, 95 % CI 15.0 to 85.0 %) of all."
    )
    assert "30 %" in most
    assert "0.0 % (0 of 2," in most
    (tied,) = deferral_text(risk_coverage(np.full(4, 0.9), CORRECT).assign(low=np.nan), [0.1], 0.95)
    assert tied.endswith("no other prediction is left: too many are of equal certainty.")


def test_sentences_say_what_a_threshold_does() -> None:
    table, policy = two_classes([0.1, 0.2, 0.6, 0.3, 0.9], "wwwss"), {"sick": {"specificity": 0.6}}
    (sentence,) = threshold_sentences(table, policy, choose_thresholds(table, policy))
    assert "sick is predicted from a probability of 0.25 on, chosen for specificity >= 0.6" in sentence
    assert "its sensitivity is 1.000 (2 of 2) and its specificity 0.667 (2 of 3)" in sentence
    assert threshold_sentences(table, {"sick": 0.7}, {"sick": 0.7}) == []


def test_a_rule_that_is_met_and_worthless_is_said() -> None:
    table = two_classes([0.9, 0.2, 0.3], "wss")
    for rule, said in (({"specificity": 1}, "no image of sick is found"), ({"sensitivity": 1}, "every other image is")):
        sentences = threshold_sentences(table, {"sick": rule}, choose_thresholds(table, {"sick": rule}))
        assert said in sentences[-1]


def test_an_offset_is_said_or_why_there_is_none() -> None:
    fitted = Temperature(2.0, 60, 0.6, 0.5, None, (0.5, -0.5))
    assert (
        offset_text(fitted, ("Covid", "Normal")) == "class offsets subtracted from the logits: Covid 0.5, Normal -0.5"
    )
    assert "too few" in offset_text(Temperature(2.0, 60, 0.6, 0.5, None, (), "too few"), ("Covid", "Normal"))
    assert offset_text(Temperature(2.0, 60, 0.6, 0.5, None), ("Covid", "Normal")) == ""


def test_class_weights_are_said() -> None:
    two = {"Covid": 4.0, "Normal": 1.0}
    *_, said = weighing_sentences("class weights balanced", Mix(), two, {"Covid": 0.7})
    assert "largest weight" not in said
    assert "have no effect" in said
    assert weighing_sentences("", Mix(), None, ()) == []
    assert "all classes weigh the same" in weighing_sentences("class weights balanced", Mix(), None, ())[0]
