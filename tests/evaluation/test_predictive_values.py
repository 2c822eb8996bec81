import numpy as np
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.confidence_intervals import wilson
from cxrnet.evaluation.predictive_values import (
    break_even_prevalence,
    cases,
    predictive_table,
    predictive_values,
    rule_out_prevalence,
    triage_text,
)

SENSITIVITY, SPECIFICITY = {"value": 0.8, "n": 50}, {"value": 0.9, "n": 200}


def test_predictive_values_are_those_of_a_population_that_is_counted() -> None:
    # 10 000 persons, 500 sick: 400 found, 950 false alarms.
    ppv, npv = predictive_values(0.8, 0.9, 0.05)
    assert ppv == pytest.approx(400 / (400 + 950))
    assert npv == pytest.approx(8550 / (8550 + 100))


def test_arrays_are_taken_element_by_element() -> None:
    ppv, npv = predictive_values(np.array([0.8, 0.5]), np.array([0.9, 1.0]), np.array([[0.05], [0.5]]))
    assert ppv.shape == npv.shape == (2, 2)
    assert ppv[0, 0] == predictive_values(0.8, 0.9, 0.05)[0]
    assert ppv[:, 1].tolist() == [1, 1]


def test_nothing_called_has_no_value() -> None:
    assert np.isnan(predictive_values(0.0, 1.0, 0.1)[0])
    assert np.isnan(predictive_values(1.0, 0.0, 0.1)[1])
    nothing = predictive_table({"value": 0.0, "n": 5}, {"value": 1.0, "n": 9}, [0.1])
    assert nothing.loc[0, "ppv"] == {"value": None, "n": 0, "reason": "no image is called"}
    assert nothing.loc[0, "npv"] == {"value": pytest.approx(0.9), "n": 14}


def test_at_break_even_a_positive_call_is_right_half_the_time() -> None:
    prevalence = break_even_prevalence(0.67, 0.99)
    assert predictive_values(0.67, 0.99, prevalence)[0] == pytest.approx(0.5)
    assert break_even_prevalence(0.67, 1.0) == 0


def test_intervals_are_those_of_a_bootstrap() -> None:
    sensitivity = {"value": 0.8, "n": 500, "interval": [*wilson(400, 500)]}
    specificity = {"value": 0.9, "n": 2000, "interval": [*wilson(1800, 2000)]}
    rng = np.random.default_rng(0)
    drawn = rng.binomial(500, 0.8, 20_000) / 500, rng.binomial(2000, 0.9, 20_000) / 2000
    for row in predictive_table(sensitivity, specificity, [0.005, 0.05, 0.2]).itertuples():
        for metric, values in zip((row.ppv, row.npv), predictive_values(*drawn, row.prevalence), strict=True):
            low, high = np.quantile(values, [0.025, 0.975])
            assert metric["interval"] == pytest.approx([low, high], abs=0.1 * (high - low))
            assert metric["interval"][0] < metric["value"] < metric["interval"][1]
            assert metric["n"] == 2500


def test_interval_holds_the_truth_in_19_of_20_cases() -> None:
    rng, truth, held = np.random.default_rng(0), predictive_values(0.9, 0.98, 0.05)[0], 0
    for hits, passed in zip(rng.binomial(40, 0.9, 1000), rng.binomial(150, 0.98, 1000), strict=True):
        sensitivity = {"value": hits / 40, "n": 40, "interval": [*wilson(hits, 40)]}
        specificity = {"value": passed / 150, "n": 150, "interval": [*wilson(passed, 150)]}
        low, high = predictive_table(sensitivity, specificity, [0.05]).loc[0, "ppv"]["interval"]
        held += low <= truth <= high
    assert 930 <= held <= 980


def test_no_false_alarm_leaves_the_interval_a_width() -> None:
    sensitivity = {"value": 0.9, "n": 40, "interval": [0.77, 0.96]}
    table = predictive_table(sensitivity, {"value": 1.0, "n": 80, "interval": [0.954, 1.0]}, [0.05])
    low, high = table.loc[0, "ppv"]["interval"]
    assert high == 1
    assert predictive_values(0.77, 0.954, 0.05)[0] < low < predictive_values(0.9, 0.954, 0.05)[0] + 1e-12


def test_without_intervals_there_are_none() -> None:
    row = predictive_table(SENSITIVITY, SPECIFICITY, [0.05]).iloc[0]
    assert row["ppv"] == {"value": pytest.approx(400 / 1350), "n": 250}
    assert row["npv"] == {"value": pytest.approx(8550 / 8650), "n": 250}
    alone = {"value": 0.8, "n": 1, "interval_reason": "one patient"}
    assert predictive_table(alone, SPECIFICITY, [0.05]).loc[0, "npv"]["interval_reason"] == "one patient"


@pytest.mark.parametrize("prevalence", [0, 1, 1.5, True, "low", float("nan")])
def test_what_is_no_prevalence_is_refused(prevalence) -> None:
    with pytest.raises(CxrnetError, match=f"prevalences: {prevalence} is no prevalence"):
        predictive_table(SENSITIVITY, SPECIFICITY, [prevalence])


def test_text_says_what_calls_are_worth() -> None:
    text = triage_text("Covid", SENSITIVITY, SPECIFICITY, predictive_table(SENSITIVITY, SPECIFICITY, [0.05, 0.5]), 0.01)
    assert text == [
        "40 of 50 images of Covid were called Covid, and 20 of 200 others (sensitivity 0.800, specificity 0.900).",
        "At a prevalence of 5 % a positive call is right in 30 of 100 cases, so it is more often wrong than right; "
        "after a negative call 12 of 1000 are Covid, before it 50 of 1000.",
        "At a prevalence of 50 % a positive call is right in 89 of 100 cases; after a negative call 18 of 100 are "
        "Covid, before it 50 of 100.",
        "Below a prevalence of 11 % a positive call is wrong more often than right.",
        "With this sensitivity and specificity more than 1 % of the negative calls are Covid above a prevalence of "
        "4.3 %: where no more may be missed (evaluation.missed), a negative call rules Covid out only below it.",
    ]


@pytest.mark.parametrize("missed", [0.001, 0.01, 0.2])
def test_at_the_limit_of_a_negative_call_what_is_tolerated_is_missed(missed) -> None:
    limit = rule_out_prevalence(0.8, 0.9, missed)
    assert 1 - predictive_values(0.8, 0.9, limit)[1] == pytest.approx(missed, abs=1e-12)
    assert rule_out_prevalence(0.5, 0.5, missed) == pytest.approx(missed)  # a call that says nothing rules nothing out


def test_intervals_stand_in_the_text() -> None:
    sensitivity, specificity = SENSITIVITY | {"interval": [0.7, 0.9]}, SPECIFICITY | {"interval": [0.85, 0.95]}
    table = predictive_table(sensitivity, specificity, [0.2])
    (low, high), (least, most) = table.loc[0, "ppv"]["interval"], table.loc[0, "npv"]["interval"]
    text = triage_text("Covid", sensitivity, specificity, table, 0.01)
    assert f"right in 67 of 100 cases (95 % interval {100 * low:.0f} to {100 * high:.0f});" in text[1]
    assert (
        f"53 of 1000 are Covid (95 % interval {1000 * (1 - most):.0f} to {1000 * (1 - least):.0f}), before" in text[1]
    )


def test_a_perfect_figure_is_doubted() -> None:
    perfect = {"value": 1.0, "n": 40}, {"value": 1.0, "n": 80}
    text = triage_text("Covid", *perfect, predictive_table(*perfect, [0.05]), 0.01)
    assert "None of 80 images without Covid was called Covid, which a specificity of 0.954" in text[2]
    assert "below a prevalence of 4.4 %" in text[2]
    assert "None of 40 images of Covid was missed, which a sensitivity of 0.912" in text[3]
    assert "more than 1 % of the negative calls are Covid above a prevalence of 10 %" in text[3]
    known = tuple(figure | {"interval": [low, 1.0]} for figure, low in zip(perfect, (0.8, 0.9), strict=True))
    text = triage_text("Covid", *known, predictive_table(*known, [0.05]), 0.01)
    assert "a specificity of 0.900" in text[2]
    assert "a sensitivity of 0.800" in text[3]


def test_a_call_that_says_nothing_and_one_that_is_unknown() -> None:
    chance = {"value": 0.3, "n": 10}, {"value": 0.7, "n": 10}
    assert (
        "says nothing, at any prevalence" in triage_text("Covid", *chance, predictive_table(*chance, [0.05]), 0.01)[1]
    )
    absent = {"value": None, "n": 0, "reason": "no image is labelled Covid"}
    table = predictive_table(absent, SPECIFICITY, [0.05])
    assert table.loc[0, "ppv"] == absent
    assert triage_text("Covid", absent, SPECIFICITY, table, 0.01) == [
        "What a call of Covid is worth can't be said: no image is labelled Covid."
    ]


def test_an_interval_of_a_predictive_value_ends_at_1_where_the_other_figure_may_be_perfect() -> None:
    # Wilson's interval of 20 of 20, whose upper end misses 1 by rounding.
    sensitivity = {"value": 1.0, "n": 20, "interval": [0.839, 1 - 2**-52]}
    specificity = {"value": 27 / 56, "n": 56, "interval": [0.35, 0.61]}
    for prevalence in (0.005, 0.05, 0.2):
        row = predictive_table(sensitivity, specificity, [prevalence]).iloc[0]
        assert row["npv"]["interval"][1] == pytest.approx(1.0)
        assert 0 < row["ppv"]["interval"][0] < row["ppv"]["value"] < row["ppv"]["interval"][1] < 1


def test_a_share_is_not_rounded_to_none_or_all() -> None:
    assert cases(0.62, 100) == "62 of 100"
    assert cases(0.001, 100) == "fewer than 1 of 100"
    assert cases(0.999, 100) == "more than 99 of 100"
    assert [cases(0.0, 100), cases(1.0, 100)] == ["0 of 100", "100 of 100"]
