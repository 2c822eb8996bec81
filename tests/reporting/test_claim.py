import copy
import dataclasses

from cxrnet.evaluation.prior import decision_text
from cxrnet.reporting.model_card import claim_items
from cxrnet.reporting.report_data import DeferralFacts


def test_the_run_answers_what_it_knows_and_leaves_the_rest_open(facts):
    items = {item.number: item for item in claim_items(facts)}
    assert list(items) == list(range(1, 45))
    assert items[7].answer == f"covid19_image; known issues: {facts.known_issues[0]}"
    assert items[28].answer.startswith("Accuracy; ")
    assert "Brier score" in items[28].answer
    assert "Covid from 0.375 on (specificity >= 0.99)" in items[22].answer
    assert items[33].answer == "not done"
    assert items[35].answer.startswith("images: train 1273")
    # What only a person knows: ethics, the reference standard, funding; and what these data don't tell.
    assert all(items[number].answer is None for number in (5, 14, 16, 36, 40, 44))


def test_the_decision_of_the_checklist_is_that_of_the_model(facts):
    def decision(**changed):
        return claim_items(dataclasses.replace(facts, **changed))[21].answer.removeprefix(facts.summary)

    weighed = decision_text({"Covid": 3.0, "Normal": 1.0}, ())
    share = DeferralFacts(0.36, 0.2, "share in the sum of weight x probability")
    assert decision(points={}, decision=weighed, deferral=share) == (
        f" Predicted is {weighed}; deferred to a reader where its share in the sum of weight x probability is "
        "below 0.36."
    )
    assert decision(points={}, deferral=DeferralFacts(0.6, 0.2)) == (
        " Predicted is the most probable class; deferred to a reader where its probability is below 0.6."
    )
    assert decision().endswith(
        "where none is reached, predicted is the most probable class of those without a threshold."
    )


def test_the_way_to_intervals_is_that_of_the_data(facts):
    assert claim_items(facts)[28].answer.startswith(
        "95 % confidence intervals (CI): bootstrap of patients, within strata"
    )
    analyses = {"test": dataclasses.replace(facts.analyses["test"], cluster="image")}
    one = copy.deepcopy(facts.metrics["test"])
    del one["log_loss"]["interval"]
    one["log_loss"]["interval_reason"] = "it is 0 in every resample"
    answer = claim_items(dataclasses.replace(facts, analyses=analyses, metrics={"test": one}))[28].answer
    assert "bootstrap of images" in answer
    assert "; no confidence interval: " in answer
    assert "Log loss (lower is better): it is 0 in every resample" in answer
