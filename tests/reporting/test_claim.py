import copy
import dataclasses

from cxrnet.reporting.model_card import claim_items


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
