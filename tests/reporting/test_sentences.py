import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import Temperature
from cxrnet.evaluation.prevalence import predictive_table
from cxrnet.evaluation.prior import Mix
from cxrnet.evaluation.selective_prediction import risk_coverage
from cxrnet.evaluation.threshold_selection import choose_thresholds
from cxrnet.reporting.sentences import (
    cases,
    deferral_text,
    offset_text,
    threshold_sentences,
    triage_text,
    weighing_sentences,
)

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
    assert "after a negative prediction 12 of 1000 are Covid, without a prediction 50 of 1000" in text[1]
    assert "right in 89 of 100 cases; after a negative prediction 18 of 100 are Covid, without" in text[2]
    assert text[3].startswith("Below a prevalence of 11 %")
    assert "above a prevalence of 4.3 %" in text[4]


def test_intervals_stand_in_the_text() -> None:
    sensitivity, specificity = SENSITIVITY | {"interval": [0.7, 0.9]}, SPECIFICITY | {"interval": [0.85, 0.95]}
    table = predictive_table(sensitivity, specificity, [0.2])
    (low, high), (least, most) = table.loc[0, "ppv"]["interval"], table.loc[0, "npv"]["interval"]
    text = triage_text("Covid", sensitivity, specificity, table, 0.01, 0.95)
    assert f"right in 67 of 100 cases (95 % CI {100 * low:.0f} to {100 * high:.0f});" in text[1]
    assert f"53 of 1000 are Covid (95 % CI {1000 * (1 - most):.0f} to {1000 * (1 - least):.0f}), without" in text[1]


def test_a_perfect_metric_is_doubted() -> None:
    perfect = {"value": 1.0, "n": 40}, {"value": 1.0, "n": 80}
    text = triage_text("Covid", *perfect, predictive_table(*perfect, [0.05]), 0.01, 0.95)
    assert "None of 80 images without Covid was predicted as Covid, which a specificity of 0.954" in text[2]
    assert "below a prevalence of 4.4 %" in text[2]
    assert "None of 40 images of Covid was missed, which a sensitivity of 0.912" in text[3]
    assert "more than 1 % of the negative predictions are Covid above a prevalence of 10 %" in text[3]
    known = tuple(metric | {"interval": [low, 1.0]} for metric, low in zip(perfect, (0.8, 0.9), strict=True))
    text = triage_text("Covid", *known, predictive_table(*known, [0.05]), 0.01, 0.95)
    assert "a specificity of 0.900" in text[2]
    assert "a sensitivity of 0.800" in text[3]


def test_the_level_of_the_intervals_is_said() -> None:
    perfect = {"value": 1.0, "n": 40}, {"value": 1.0, "n": 80}
    text = triage_text("Covid", *perfect, predictive_table(*perfect, [0.05]), 0.01, 0.975)
    assert "a specificity of 0.941 would also explain (97.5 % CI)" in text[2]
    assert "a sensitivity of 0.888 would also explain (97.5 % CI)" in text[3]
    sensitivity, specificity = SENSITIVITY | {"interval": [0.7, 0.9]}, SPECIFICITY | {"interval": [0.85, 0.95]}
    table = predictive_table(sensitivity, specificity, [0.2])
    assert triage_text("Covid", sensitivity, specificity, table, 0.01, 0.999)[1].count("(99.9 % CI ") == 2


def test_a_prediction_that_says_nothing_and_one_that_is_unknown() -> None:
    chance = {"value": 0.3, "n": 10}, {"value": 0.7, "n": 10}
    assert (
        "says nothing, at any prevalence"
        in triage_text("Covid", *chance, predictive_table(*chance, [0.05]), 0.01, 0.95)[1]
    )
    absent = {"value": None, "n": 0, "reason": "no image is labelled Covid"}
    table = predictive_table(absent, SPECIFICITY, [0.05])
    assert table.loc[0, "ppv"] == absent
    assert triage_text("Covid", absent, SPECIFICITY, table, 0.01, 0.95) == [
        "The predictive values of Covid can't be computed: no image is labelled Covid."
    ]


def test_a_share_is_not_rounded_to_none_or_all() -> None:
    assert cases(0.62, 100) == "62 of 100"
    assert cases(0.001, 100) == "fewer than 1 of 100"
    assert cases(0.999, 100) == "more than 99 of 100"
    assert [cases(0.0, 100), cases(1.0, 100)] == ["0 of 100", "100 of 100"]


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


def test_a_share_that_is_a_whole_number_of_images_is_taken_exactly() -> None:
    curve = risk_coverage(np.arange(1, 101) / 100, np.ones(100, bool)).assign(low=np.nan, high=np.nan)
    for share, left in ((0.1, 90), (0.3, 70), (0.7, 30), (0.9, 10)):
        assert f"(0 of {left})" in deferral_text(curve, [share], 0.95)[0]


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
    assert offset_text(fitted, ("Covid", "Normal")) == "the logits less an offset of Covid 0.5, Normal -0.5"
    assert "too few" in offset_text(Temperature(2.0, 60, 0.6, 0.5, None, (), "too few"), ("Covid", "Normal"))
    assert offset_text(Temperature(2.0, 60, 0.6, 0.5, None), ("Covid", "Normal")) == ""


def test_class_weights_are_said() -> None:
    two = {"Covid": 4.0, "Normal": 1.0}
    *_, said = weighing_sentences("class weights balanced", Mix(), two, {"Covid": 0.7})
    assert "largest weight" not in said
    assert "have no effect" in said
    assert weighing_sentences("", Mix(), None, ()) == []
    assert "all weigh the same" in weighing_sentences("class weights balanced", Mix(), None, ())[0]


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(CxrnetError, match="shares: 10 is no share of the images"):
        deferral_text(CURVE, [10], 0.95)
