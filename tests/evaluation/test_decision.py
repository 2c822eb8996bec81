import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from cxrnet.core.config import plain_config
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import (
    DecisionRule,
    Mix,
    check_operating_points,
    decide,
    decision_text,
    read_mix,
    threshold_sentence,
)
from cxrnet.evaluation.predictions import classes_of, logits_of, make_predictions, probabilities_of
from cxrnet.reporting.results import analyse, evaluator

LABELS = ("COVID", "Normal", "Pneumonia")


def predict(probabilities: list[float], points: dict[str, float]) -> str:
    return LABELS[decide(np.array([probabilities]), LABELS, points)[0]]


def test_a_class_is_predicted_when_its_probability_reaches_its_threshold() -> None:
    assert predict([0.2, 0.5, 0.3], {"COVID": 0.2}) == "COVID"
    assert predict([0.19, 0.51, 0.3], {"COVID": 0.2}) == "Normal"


def test_below_its_threshold_even_the_most_probable_class_is_not_predicted() -> None:
    assert predict([0.69, 0.11, 0.2], {"COVID": 0.7}) == "Pneumonia"


def test_of_two_thresholds_that_are_reached_the_first_one_counts() -> None:
    assert predict([0.3, 0.3, 0.4], {"Normal": 0.3, "COVID": 0.3}) == "Normal"
    assert predict([0.3, 0.3, 0.4], {"COVID": 0.3, "Normal": 0.3}) == "COVID"


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"covid": 0.5}, "'covid' is no class; the classes are COVID, Normal, Pneumonia"),
        ({"COVID": 0}, "operating_points.COVID: 0 is no threshold"),
        ({"COVID": 1.2}, "operating_points.COVID: 1.2 is no threshold"),
        ({"COVID": float("nan")}, "operating_points.COVID: nan is no threshold"),
        ({"COVID": "high"}, "operating_points.COVID: high is no threshold"),
        ({"COVID": True}, "operating_points.COVID: True is no threshold"),
        (dict.fromkeys(LABELS, 0.3), "every class has a threshold"),
    ],
)
def test_what_is_no_operating_point_is_refused(points: dict[str, float], message: str) -> None:
    with pytest.raises(CxrnetError, match=message):
        check_operating_points(points, LABELS)


TRAINED = {"Viral Pneumonia": 0.3, "Covid": 0.5, "Normal": 0.2}
CLASSES = tuple(TRAINED)


def carried(table: pd.DataFrame, mix: Mix, rule: DecisionRule) -> pd.DataFrame:
    return make_predictions(table, CLASSES, logits_of(table), rule, mix.shift(CLASSES))


def test_classes_that_are_not_named_share_the_rest_as_in_training():
    mix = read_mix({"Covid": 0.05}, TRAINED)
    assert mix.shares == pytest.approx({"Viral Pneumonia": 0.57, "Covid": 0.05, "Normal": 0.38})
    assert list(mix.shares) == list(CLASSES)
    assert read_mix(None, TRAINED).shares == TRAINED
    thirds = read_mix(dict.fromkeys(CLASSES, 0.333), TRAINED)
    assert sum(thirds.shares.values()) == pytest.approx(1, abs=1e-12)


def test_numbers_and_truth_values_name_classes_as_hydra_reads_them():
    assert read_mix({1: 0.1}, {"0": 0.5, "1": 0.5}).shares == pytest.approx({"0": 0.9, "1": 0.1})
    given = plain_config(OmegaConf.create({"prior": {True: 0.1}}))["prior"]
    assert read_mix(given, {"false": 0.5, "true": 0.5}).shares["true"] == 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"COVID": 0.05}, "prior: 'COVID' is no class; the classes are Viral Pneumonia, Covid, Normal"),
        ({"Covid": 5}, "prior.Covid: 5 is no prevalence; give a number above 0, below 1"),
        ({"Covid": 0}, "prior.Covid: 0 is no prevalence"),
        ({"Covid": 1.0}, "prior.Covid: 1.0 is no prevalence"),
        ({"Covid": float("nan")}, "prior.Covid: nan is no prevalence"),
        ({"Covid": True}, "prior.Covid: True is no prevalence"),
        ({"Covid": "5%"}, "prior.Covid: 5% is no prevalence"),
        ({"Covid": 0.6, "Normal": 0.4}, "prior: the prevalences sum to 1, which leaves nothing for Viral Pneumonia"),
        (
            {"Covid": 0.5, "Normal": 0.4, "Viral Pneumonia": 0.2},
            "prior: the prevalences sum to 1.1, not to 1; leave",
        ),
        (0.05, "prior: 0.05 gives no prevalence of a class; give some, as {Viral Pneumonia: 0.05}"),
        ({}, "prior: {} gives no prevalence"),
    ],
)
def test_what_is_no_prior_is_refused_in_one_line(given, message):
    with pytest.raises(CxrnetError) as caught:
        read_mix(given, TRAINED)
    assert str(caught.value).startswith(message)


def test_a_model_that_does_not_know_its_own_mix_takes_no_other():
    with pytest.raises(CxrnetError, match="prior: the bundle is of an older version"):
        read_mix({"Covid": 0.05}, None)
    assert "unknown class prevalences" in str(read_mix(None, None))


def test_the_odds_change_as_the_prior_does(make_table):
    table, mix = make_table(), read_mix({"Covid": 0.05}, TRAINED)
    after, before = probabilities_of(carried(table, mix, DecisionRule())), probabilities_of(table)
    times = np.array([mix.shares[name] / TRAINED[name] for name in CLASSES])
    expected = before * times / (before * times).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after, expected, rtol=1e-5)
    # The table holds the logits of its probabilities, and calling the prior of the training by name changes nothing.
    logits = logits_of(carried(table, mix, DecisionRule()))
    np.testing.assert_allclose(logits - logits_of(table), np.tile(np.log(times), (60, 1)), atol=1e-6)
    np.testing.assert_array_equal(probabilities_of(carried(table, read_mix(TRAINED, TRAINED), DecisionRule())), before)


def test_weight_times_probability_decides_at_any_prior(make_table):
    table, weights = make_table(n=300), {"Viral Pneumonia": 1.0, "Covid": 2.5, "Normal": 6.0}
    for mix in (Mix(TRAINED), read_mix({"Covid": 0.05}, TRAINED)):
        made = carried(table, mix, DecisionRule(weights=weights))
        best = (probabilities_of(made) * list(weights.values())).argmax(axis=1)
        assert made["predicted"].tolist() == [CLASSES[index] for index in best]
        assert (best != probabilities_of(made).argmax(axis=1)).any()


def test_thresholds_and_deferred_images_stay_with_the_training_mix(make_table):
    table = make_table(n=300)
    rule = DecisionRule({"Covid": 0.6}, {"Viral Pneumonia": 1.0, "Covid": 9.0, "Normal": 4.0}, defer_below=0.5)
    plain = carried(table, Mix(TRAINED), rule)
    other = carried(table, mix := read_mix({"Covid": 0.05}, TRAINED), rule)
    assert ((plain["predicted"] == "Covid") == (table["prob_Covid"] >= 0.6)).all()
    assert ((other["predicted"] == "Covid") == (plain["predicted"] == "Covid")).all()
    assert (other["deferred"] == plain["deferred"]).all()
    assert other["prob_Covid"].mean() < 0.3 * plain["prob_Covid"].mean()
    # Of two classes, one with a threshold, no prediction changes at all.
    two = make_table(classes=("Covid", "Normal"), n=300)
    kept = [
        make_predictions(two, classes_of(two), logits_of(two), DecisionRule({"Covid": 0.7}), shift)[
            "predicted"
        ].tolist()
        for shift in (None, np.array([-3.0, 0.2]))
    ]
    assert kept[0] == kept[1]
    assert threshold_sentence(mix, rule.points, True).startswith(
        "the threshold of Covid and the deferral threshold were"
    )
    assert threshold_sentence(mix, {}, True).startswith("the deferral threshold was chosen at the training prevalences")
    assert threshold_sentence(Mix(TRAINED), rule.points, True) is None
    assert threshold_sentence(mix, {}, False) is None


def test_what_decides_is_said_as_it_is():
    two, three = {"Covid": 4.0, "Normal": 1.0}, {"Covid": 4.0, "Normal": 1.0, "Viral Pneumonia": 2.0}
    assert decision_text(two, ()) == "the class of the largest weight x probability (weights: Covid 4, Normal 1)"
    assert "of the classes without a threshold" in decision_text(three, {"Covid": 0.7})
    alone = decision_text(two, {"Covid": 0.7})
    assert alone.startswith("Normal where no threshold is reached")
    assert "have no effect" in alone


def test_predictive_values_and_decision_curves_follow_the_prior(make_table, settings):
    table, mix = make_table(n=200), read_mix({"Covid": 0.02}, TRAINED)
    quick = {**settings, "resamples": 0}
    made = carried(table, mix, DecisionRule())
    analysis = analyse(made, evaluator(quick)(made), quick, 2.0, mix)
    assert analysis.predictive["Covid"]["prevalence"].tolist() == [0.02, 0.05, 0.2]
    assert analysis.predictive["Normal"]["prevalence"].tolist() == pytest.approx([0.05, 0.2, 0.392])
    curve = analysis.decisions["Covid"]
    assert (curve["prevalence"] == 0.02).all()
    acted = made["prob_Covid"].to_numpy() >= curve["threshold"].iloc[20]
    covid = (made["label"] == "Covid").to_numpy(bool)
    weight = curve["threshold"].iloc[20] / (1 - curve["threshold"].iloc[20])
    expected = 0.02 * acted[covid].mean() - 0.98 * weight * acted[~covid].mean()
    assert curve["model"].iloc[20] == pytest.approx(expected)
    # Before the temperature, at the same prior.
    cooled = logits_of(table) * 2 + mix.shift(CLASSES)
    confidence = np.exp(cooled - np.logaddexp.reduce(cooled, axis=1, keepdims=True)).max(axis=1)
    first = analysis.reliability["temperature 1"]
    assert np.average(first["confidence"], weights=first["n"]) == pytest.approx(confidence.mean(), rel=1e-4)


def test_a_decision_curve_carries_probabilities_from_the_mix_that_they_are_of(make_table, settings):
    """Not from that of the images, which may be another one: other data hold other shares."""
    table = make_table(n=200)
    fewer = table[(table["label"] != "Covid") | (table.index % 3 == 0)].reset_index(drop=True)
    covid = (fewer["label"] == "Covid").to_numpy(bool)
    assert abs(covid.mean() - TRAINED["Covid"]) > 0.3
    same = {**settings, "resamples": 0, "decision_curve": {"thresholds": [0.0, 0.5], "prevalence": TRAINED["Covid"]}}
    curve = analyse(fewer, evaluator(same)(fewer), same, 1.0, Mix(TRAINED)).decisions["Covid"]
    acted = fewer["prob_Covid"].to_numpy()[:, None] >= curve["threshold"].to_numpy()  # as the probabilities are
    odds = curve["threshold"] / (1 - curve["threshold"])
    expected = 0.5 * acted[covid].mean(axis=0) - 0.5 * odds * acted[~covid].mean(axis=0)
    np.testing.assert_allclose(curve["model"], expected, atol=1e-12)
