"""What is told of folds and seeds before anything is trained; tests/integration/test_repeats.py trains."""

from functools import partial

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from cxrnet.cli.app import config_folder
from cxrnet.core.config import plain_config
from cxrnet.data.splits import carve_validation, split_manifest
from cxrnet.errors import CxrnetError
from cxrnet.workflows.folds_and_seeds import Repeat, check_repeats, config_of, resplit_for


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", ["trainer=cpu", *words])


def repeats(*words: str) -> list[Repeat]:
    return check_repeats(plain_config(composed(*words)))


# --- what is asked for


def test_nothing_is_repeated_unless_asked_for():
    assert repeats() == []


@pytest.mark.parametrize("word", ["folds=3", "+folds=3"])
def test_folds_take_the_seed_of_the_run(word):
    assert [repeat.name for repeat in repeats(word, "seed=7")] == ["seed7_fold1of3", "seed7_fold2of3", "seed7_fold3of3"]


@pytest.mark.parametrize("word", ["seeds=[4,0]", "+seeds=[4,0]"])
def test_seeds_keep_the_split_of_the_configuration(word):
    assert repeats(word) == [Repeat(4, None, None), Repeat(0, None, None)]
    assert [repeat.name for repeat in repeats(word)] == ["seed4", "seed0"]


def test_both_are_every_fold_of_every_seed():
    found = [(repeat.seed, repeat.fold) for repeat in repeats("folds=3", "seeds=[0,1]")]
    assert found == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize("folds", ["2", "0", "-3"])
def test_no_number_of_folds(folds):
    with pytest.raises(CxrnetError, match=r"^folds: .*; give a whole number from 3 on \(one part is test, one val"):
        repeats(f"folds={folds}")


@pytest.mark.parametrize("seeds", ["[]", "[0,0]", "[0,-1]", "[0,2147483648]"])
def test_no_seeds(seeds):
    with pytest.raises(CxrnetError, match=r"^seeds: .*; give a list of different whole numbers from 0 on, as \[0,1,2"):
        repeats(f"seeds={seeds}")


@pytest.mark.parametrize(
    "words", [["trainer=ddp"], ["trainer.devices=2"], ["trainer.devices=-1"], ["trainer.devices=[0,1]"]]
)
@pytest.mark.parametrize("repeated", ["folds=3", "seeds=[0,1]"])
def test_one_device(words, repeated):
    with pytest.raises(CxrnetError, match=r"^trainer: folds and seeds can't train on several devices; give trainer.de"):
        repeats(*words, repeated)
    assert repeats(*words) == []


def test_one_of_several_devices_may_be_chosen():
    assert len(repeats("folds=3", "trainer=gpu", "trainer.devices=[1]")) == 3


# --- what each run gets


def test_the_seed_goes_everywhere_but_into_the_choice_of_images():
    config = config_of(composed("seeds=[0,5]", "data=merged"), Repeat(5, None, None))
    assert (config["seed"], config["data"]["seed"], config["data"]["split"]["seed"]) == (5, 5, 5)
    assert config["data"]["manifest"]["seed"] == 0


def test_the_configuration_of_a_run_says_which_fold_it_is():
    config = config_of(composed("folds=4"), Repeat(0, 2, 4))
    assert (config["fold"], config["folds"]) == (2, 4)
    assert "resume" not in config


def members(data, split: str) -> set[str]:
    return set(data.rows(split)["image_id"])


def test_each_image_is_in_the_test_split_of_one_fold(make_data):
    data = make_data()
    parts = [resplit_for(data, repeat, {"folds_by": "patient"}) for repeat in repeats("folds=3")]
    tested = pd.concat([part.rows("test") for part in parts])["image_id"]
    assert sorted(tested) == sorted(data.manifest["image_id"])
    for part, following in zip(parts, [*parts[1:], parts[0]], strict=True):
        assert members(part, "val") == members(following, "test")
        assert members(part, "train").isdisjoint(members(part, "val") | members(part, "test"))


def splits(data, word: str, settings: dict):
    config = composed(word)
    return [
        resplit_for(data, repeat, {"data": {"split": {**settings, "_partial_": True, "seed": repeat.seed}}})
        for repeat in check_repeats(plain_config(config))
    ]


def test_another_seed_is_another_split_and_another_order(make_data):
    fractions = {"train": 0.5, "val": 0.25, "test": 0.25}
    settings = {"_target_": "cxrnet.data.splits.split_manifest", "fractions": fractions}
    zero, one = splits(make_data(), "seeds=[0,1]", settings)
    assert members(zero, "test") == members(make_data(), "test")  # as of a single run with seed=0
    assert members(zero, "test") != members(one, "test")
    assert (zero.seed, one.seed) == (0, 1)


def published(xrays) -> pd.DataFrame:
    from cxrnet.data.sources.folder import folder

    whole = split_manifest(folder(xrays), {"train": 0.7, "test": 0.3}, 3)
    return whole.reset_index(drop=True)


def test_a_published_test_split_stays_for_every_seed(make_data, xrays):
    data = make_data(manifest=published(xrays), split=partial(carve_validation, fraction=0.3, seed=0))
    settings = {"_target_": "cxrnet.data.splits.carve_validation", "fraction": 0.3}
    zero, one = splits(data, "seeds=[0,1]", settings)
    assert members(zero, "test") == members(one, "test") == members(data, "test")
    assert members(zero, "val") != members(one, "val")


def test_seeds_need_a_test_split(make_data):
    settings = {"_target_": "cxrnet.data.splits.split_manifest", "fractions": {"train": 0.5, "val": 0.5}}
    with pytest.raises(CxrnetError, match=r"^seeds: the data have no test images to compare runs on; give data.split"):
        splits(make_data(), "seeds=[0,1]", settings)


def test_folds_of_a_handful_of_images(make_data):
    # As trainer=debug limits them.
    data = make_data(limit=2)
    parts = [resplit_for(data, repeat, {"folds_by": "patient"}) for repeat in repeats("folds=3")]
    assert [part.counts("test") for part in parts] == [[2, 2, 2]] * 3
    with pytest.raises(CxrnetError, match=r"class 'Covid' has 6 images in 6 groups .* too few for 7 splits"):
        [resplit_for(data, repeat, {"folds_by": "patient"}) for repeat in repeats("folds=7")]
