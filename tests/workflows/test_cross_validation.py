"""The splits of runs over folds and seeds; tests/integration/test_repeats.py trains on them."""

from functools import partial

import pandas as pd
import pytest

from cxrnet.data.sources.folder import folder
from cxrnet.data.splits import carve_validation, split_manifest
from cxrnet.errors import CxrnetError
from cxrnet.workflows.cross_validation import resplit


def members(data, split: str) -> set[str]:
    return set(data.rows(split)["image_id"])


def folds_of(data, folds: int) -> list:
    config = {"folds": folds, "folds_by": "patient", "seed": 0}
    return [resplit(data, {**config, "fold": fold}) for fold in range(1, folds + 1)]


def seeds_of(data, function: str, **settings) -> list:
    target = {"_target_": f"cxrnet.data.splits.{function}", "_partial_": True, **settings}
    return [resplit(data, {"fold": None, "seed": seed, "data": {"split": {**target, "seed": seed}}}) for seed in (0, 1)]


def test_each_image_is_in_the_test_split_of_one_fold(make_data):
    data = make_data()
    parts = folds_of(data, 3)
    tested = pd.concat([part.rows("test") for part in parts])["image_id"]
    assert sorted(tested) == sorted(data.manifest["image_id"])
    for part, following in zip(parts, [*parts[1:], parts[0]], strict=True):
        assert members(part, "val") == members(following, "test")
        assert members(part, "train").isdisjoint(members(part, "val") | members(part, "test"))


def test_another_seed_is_another_split_and_another_order(make_data):
    zero, one = seeds_of(make_data(), "split_manifest", fractions={"train": 0.5, "val": 0.25, "test": 0.25})
    assert members(zero, "test") == members(make_data(), "test")  # as of a single run with seed=0
    assert members(zero, "test") != members(one, "test")
    assert (zero.seed, one.seed) == (0, 1)


def test_a_published_test_split_stays_for_every_seed(make_data, xrays):
    published = split_manifest(folder(xrays), {"train": 0.7, "test": 0.3}, 3).reset_index(drop=True)
    data = make_data(manifest=published, split=partial(carve_validation, fraction=0.3, seed=0))
    zero, one = seeds_of(data, "carve_validation", fraction=0.3)
    assert members(zero, "test") == members(one, "test") == members(data, "test")
    assert members(zero, "val") != members(one, "val")


def test_seeds_need_a_test_split(make_data):
    with pytest.raises(CxrnetError, match=r"^seeds: the data have no test images"):
        seeds_of(make_data(), "split_manifest", fractions={"train": 0.5, "val": 0.5})


def test_folds_of_a_handful_of_images(make_data):
    data = make_data(limit=2)  # as trainer=debug limits them
    assert [part.counts("test") for part in folds_of(data, 3)] == [[2, 2, 2]] * 3
    with pytest.raises(CxrnetError, match=r"class 'Covid' has 6 images in 6 clusters .* too few for 7 splits"):
        folds_of(data, 7)
