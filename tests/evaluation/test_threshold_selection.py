import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import decide
from cxrnet.evaluation.predictions import probabilities_of
from cxrnet.evaluation.threshold_selection import check_policy, choose_thresholds

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


def rates(table: pd.DataFrame, points: dict[str, float], name: str) -> tuple[float, float]:
    """Sensitivity and specificity of a class, as the thresholds predict."""
    positive = (table["label"] == name).to_numpy(bool)
    predicted = decide(probabilities_of(table), CLASSES, points) == CLASSES.index(name)
    return predicted[positive].mean(), 1 - predicted[~positive].mean()


def every_threshold(table: pd.DataFrame, name: str) -> np.ndarray:
    """A grid that parts the probabilities in every way there is."""
    values = np.unique(table[f"prob_{name}"])
    grid = np.concatenate([[0.0], values, [1.0]])
    return np.unique(np.concatenate([values, (grid[:-1] + grid[1:]) / 2]).clip(1e-12, 1))


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Few distinct probabilities, so that many images are equal."""
    for name in CLASSES[:2]:
        table[f"prob_{name}"] = table[f"prob_{name}"].round(1) / 2
    table["prob_Normal"] = 1 - table["prob_Covid"] - table["prob_Viral Pneumonia"]
    return table


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rule", [{"specificity": 0.9}, {"sensitivity": 0.9}, {"specificity": 1.0}, {"youden": True}])
def test_rule_is_met_and_no_threshold_is_better(make_table, seed, ties, rule) -> None:
    table = make_table(n=80, seed=seed, split="val")
    table = rounded(table) if ties else table
    first = choose_thresholds(table, {"Covid": 0.3})
    for before in ({}, first):  # alone, and after another class
        name = "Viral Pneumonia" if before else "Covid"
        pairs = [rates(table, {**before, name: t}, name) for t in every_threshold(table, name)]
        ((metric, least),) = rule.items()
        place = 0 if metric == "sensitivity" else 1
        if metric != "youden" and max(pair[place] for pair in pairs) < least:
            with pytest.raises(CxrnetError, match="out of reach on the 80 validation images"):
                choose_thresholds(table, {**before, name: rule})
            continue
        pair = rates(table, choose_thresholds(table, {**before, name: rule}), name)
        if metric == "youden":
            assert sum(pair) == pytest.approx(max(map(sum, pairs)), abs=1e-12)
        else:
            good = [pair for pair in pairs if pair[place] >= least]
            assert pair == pytest.approx(max(good, key=lambda pair: (pair[1 - place], pair[place])), abs=1e-12)


def two_classes(probabilities: list[float], labels: str) -> pd.DataFrame:
    """A table of sick (s) and well (w) images."""
    names = {"s": "sick", "w": "well"}
    rows = {"split": "val", "label": [names[x] for x in labels], "prob_sick": probabilities}
    return pd.DataFrame(rows).assign(prob_well=lambda t: 1 - t["prob_sick"])


def test_threshold_lies_halfway_between_neighbours() -> None:
    table = two_classes([0.1, 0.2, 0.6, 0.9], "wwss")
    for rule in ({"specificity": 0.5}, {"sensitivity": 0.5}, {"youden": True}):
        assert choose_thresholds(table, {"sick": rule}) == {"sick": pytest.approx(0.4)}
    assert choose_thresholds(two_classes([0.9, 0.2, 0.6], "wss"), {"sick": {"specificity": 1}})["sick"] == 0.95
    assert choose_thresholds(two_classes([0.9, 0.2, 0.6], "wss"), {"sick": {"sensitivity": 1}})["sick"] == 0.1


def test_neighbouring_floats_are_parted() -> None:
    low = 0.7
    high = np.nextafter(low, 1)
    table = two_classes([low, high], "ws")
    points = choose_thresholds(table, {"sick": {"specificity": 1}})
    assert decide(probabilities_of(table), ("sick", "well"), points).tolist() == [1, 0]


def test_a_plain_threshold_needs_no_validation_images(make_table) -> None:
    assert choose_thresholds(make_table().iloc[:0], {"Covid": 0.7}) == {"Covid": 0.7}
    assert choose_thresholds(make_table(), {}) == {}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"specificity": 1.5}, "operating_points.Covid: {'specificity': 1.5} is no rule; give one of {specificity"),
        ({"sensitivity": 0}, "is no rule"),
        ({"sensitivity": True}, "is no rule"),
        ({"sensitivity": "high"}, "is no rule"),
        ({"precision": 0.9}, "is no rule"),
        ({"youden": False}, "is no rule"),
        ({"youden": True, "specificity": 0.9}, "is no rule"),
        ({}, "is no rule"),
        ("precision >= 0.9", "'precision >= 0.9' is no rule; give one of .* 'specificity >= 0.99'"),
        ("specificity >= 1.5", "is no rule"),
        ("specificity >= e-e", "is no rule"),
        ("specificity > 0.9", "is no rule"),
        (0, "operating_points.Covid: 0 is no threshold"),
        (None, "operating_points.Covid: None is no threshold"),
    ],
)
def test_what_is_no_rule_is_refused(rule, message) -> None:
    with pytest.raises(CxrnetError, match=message):
        check_policy({"Covid": rule}, CLASSES)


def test_a_rule_in_words_is_the_same_rule() -> None:
    for metric in ("sensitivity", "specificity"):
        for words in (f"{metric} >= 0.99", f" {metric}>=.99 "):
            assert check_policy({"Covid": words}, CLASSES) == check_policy({"Covid": {metric: 0.99}}, CLASSES)


def test_a_policy_for_unknown_or_all_classes_is_refused() -> None:
    with pytest.raises(CxrnetError, match="'COVID' is no class"):
        check_policy({"COVID": {"youden": True}}, CLASSES)
    with pytest.raises(CxrnetError, match="every class has a threshold"):
        check_policy({name: {"youden": True} for name in CLASSES}, CLASSES)


def test_what_is_out_of_reach_is_said_and_not_replaced() -> None:
    # Nothing lies above a probability of 1 or below one of 0.
    with pytest.raises(
        CxrnetError, match=r"sick: specificity >= 0.99 is out of reach on the 4 validation .* 0.5 is the"
    ):
        choose_thresholds(two_classes([1.0, 0.2, 1.0, 0.6], "wwss"), {"sick": {"specificity": 0.99}})
    with pytest.raises(CxrnetError, match=r"sensitivity >= 0.9 is out of reach .* 0.5 is the most; demand less"):
        choose_thresholds(two_classes([0.1, 0.2, 0.0, 0.6], "wwss"), {"sick": {"sensitivity": 0.9}})


def test_a_class_needs_images_of_both_sides() -> None:
    with pytest.raises(CxrnetError, match="no validation image is labelled sick, so the largest sensitivity"):
        choose_thresholds(two_classes([0.1, 0.2], "ww"), {"sick": {"youden": True}})
    with pytest.raises(CxrnetError, match=r"every validation image is labelled sick, so specificity >= 0.9 can't"):
        choose_thresholds(two_classes([0.1, 0.2], "ss"), {"sick": {"specificity": 0.9}})


def test_test_images_are_never_looked_at(make_table) -> None:
    with pytest.raises(CxrnetError, match="operating_points: 60 of 60 images are of split test; it is chosen on val"):
        choose_thresholds(make_table(), {"Covid": {"youden": True}})
