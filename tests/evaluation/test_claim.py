from cxrnet.evaluation.claim import claim_items


def test_the_run_answers_what_it_knows_and_leaves_the_rest_open(facts):
    items = {item.number: item for item in claim_items(facts, None)}
    assert list(items) == list(range(1, 45))
    assert items[7].answer == "covid19_image"
    assert "Covid from 0.375 on (specificity >= 0.99)" in items[22].answer
    assert items[33].answer == "not done"
    assert items[35].answer.startswith("images: train 1273")
    # What only a person knows: ethics, the reference standard, funding; and what these data don't tell.
    assert all(items[number].answer is None for number in (5, 14, 16, 36, 40, 44))


def test_external_results_answer_their_item(facts):
    assert claim_items(facts, "AUC 0.71 on another hospital")[32].answer == "AUC 0.71 on another hospital"
