"""The audit's numbers: findings where there is something, none by chance, and intervals where they can be had."""

import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.audit import (
    BORDER,
    LUNGS_OUT,
    THUMBNAIL,
    WHOLE,
    Sampling,
    change_table,
    corrected_level,
    findings,
    planted_looks,
    region_looks,
)
from cxrnet.evaluation.predictions import make_predictions

SAMPLING = Sampling(200, 0, 0.95)
CLASSES = ("covid", "normal")


def table(strength: float, seed: int, n: int = 160, classes=CLASSES, **columns) -> pd.DataFrame:
    """Predictions that know the class by some strength; two images a patient."""
    random = np.random.default_rng(seed)
    labels = [classes[row // 2 % len(classes)] for row in range(n)]
    logits = random.normal(size=(n, len(classes))).astype(np.float32)
    logits[np.arange(n), [classes.index(label) for label in labels]] += strength
    names = [f"{row}.png" for row in range(n)]
    rows = {"image_id": names, "path": names, "label": labels, "split": "test", "source": "s"}
    patients = [f"p{row // 2}" for row in range(n)]
    return make_predictions(pd.DataFrame({**rows, "patient_id": patients, **columns}), classes, logits)


def named(looks) -> list[tuple[str, str]]:
    return [(look.name, look.label) for look in looks]


def test_a_region_that_tells_most_is_found_and_one_that_tells_a_little_is_not():
    whole = table(3.0, 0)
    regions = {LUNGS_OUT: table(2.5, 1), BORDER: table(0.5, 2), THUMBNAIL: table(3.0, 3)}
    looks = region_looks("data", whole, regions, SAMPLING)
    assert named(findings(looks, 0.95)) == [(LUNGS_OUT, "normal")]  # the thumbnail may be the disease
    by_name = {look.name: look for look in looks}
    assert list(by_name) == [WHOLE, LUNGS_OUT, BORDER, THUMBNAIL]
    out = by_name[LUNGS_OUT]
    assert out.low < out.value < out.high
    assert out.share == pytest.approx((out.value - 0.5) / (by_name[WHOLE].value - 0.5))
    assert by_name[BORDER].low > 0.5  # it tells something, but not most


def test_of_three_classes_each_has_its_look():
    classes = ("a", "b", "c")
    whole, region = (table(2.0, seed, classes=classes) for seed in (0, 1))
    one = region.copy()  # knows a alone
    random = np.random.default_rng(5).normal(size=(len(one), 3)).astype(np.float32)
    random[(one["label"] == "a").to_numpy(), 0] += 4
    looks = region_looks("data", whole, {BORDER: make_predictions(one, classes, random)}, SAMPLING)
    assert named(findings(looks, 0.95)) == [(BORDER, "a")]


def test_a_region_that_tells_everything_is_a_finding_without_a_bootstrap_error():
    whole = table(50.0, 0)
    (_, look) = region_looks("data", whole, {BORDER: table(50.0, 1)}, SAMPLING)
    assert look.value == 1.0
    assert findings([look], 0.95) == [look]


@pytest.mark.parametrize("seed", range(12))
def test_chance_finds_nothing(seed):
    whole = table(2.0, seed)
    regions = {name: table(0.0, 100 + 10 * seed + place) for place, name in enumerate((LUNGS_OUT, BORDER, "source"))}
    looks = region_looks("data", whole, regions, SAMPLING)
    random = np.random.default_rng(seed)
    own, foreign = (random.choice(CLASSES, len(whole)).astype(object) for _ in range(2))
    looks += planted_looks("corners", whole, {"covid": foreign}, own, SAMPLING)
    assert not findings(looks, 0.95)


def test_the_level_is_of_all_looks_together():
    looks = region_looks("data", table(2.0, 0), {BORDER: table(0.0, 1), "source": table(0.0, 2)}, SAMPLING)
    assert corrected_level(looks, 0.95) == pytest.approx(1 - 0.05 / 2)
    assert corrected_level(looks * 4, 0.95) == pytest.approx(1 - 0.05 / 8)
    assert corrected_level([], 0.95) == 0.95


def test_predictions_that_follow_a_planted_region_are_told_from_what_the_cut_does():
    whole = table(2.0, 0)
    everywhere = np.full(len(whole), "covid", object)
    (same,) = planted_looks("corners", whole, {"covid": everywhere}, everywhere, SAMPLING)  # the cut alone does it
    own = whole["label"].to_numpy(object)
    (followed,) = planted_looks("corners", whole, {"covid": everywhere}, own, SAMPLING)
    assert (same.value, same.whole) == (1.0, 1.0)
    assert (followed.value, followed.whole, followed.n) == (1.0, 0.0, 80)
    assert findings([same, followed], 0.95) == [followed]
    assert followed.low < 1  # Wilson's: no resample differs


def test_one_patient_gives_no_finding_and_a_reason():
    whole = table(3.0, 0).assign(patient_id="p")
    looks = region_looks("data", whole, {BORDER: table(3.0, 1).assign(patient_id="p")}, SAMPLING)
    looks += planted_looks("corners", whole, {"covid": np.full(160, "covid", object)}, np.full(160, "x"), SAMPLING)
    assert not findings(looks, 0.95)
    assert all("of one patient" in look.reason for look in looks)
    assert not any(look.counts for look in looks)


def test_one_class_gives_a_reason():
    whole = table(3.0, 0)
    whole = whole[whole["label"] == "covid"].reset_index(drop=True)
    (look, _) = region_looks("data", whole, {BORDER: whole}, SAMPLING)
    assert np.isnan(look.value)
    assert look.reason == "no image is labelled normal"


def test_changes_are_paired_and_of_the_same_images():
    before = table(2.0, 0)
    after = before.copy()
    lost = (after["label"] == "covid") & (np.arange(160) % 8 < 4)
    after.loc[lost, "predicted"] = "normal"
    some = before.iloc[:40].reset_index(drop=True)
    changes = change_table(before, {"blur": after, "lungs out": some, "none": before}, SAMPLING).set_index(
        ["intervention", "class", "metric"]
    )
    fell = changes.loc[("blur", "covid", "sensitivity")]
    assert fell["change"] == pytest.approx(fell["after"] - fell["before"])
    assert fell["high"] < 0
    same = changes.loc[("none", "covid", "sensitivity")]
    assert same["change"] == 0
    assert np.isnan(same["low"])
    assert "no interval" in same["reason"]
    assert changes.loc[("lungs out", "covid", "sensitivity"), "n"] == 20
    of_some = (some["predicted"] == "covid")[some["label"] == "covid"].mean()
    assert changes.loc[("lungs out", "covid", "sensitivity"), "before"] == pytest.approx(of_some)
