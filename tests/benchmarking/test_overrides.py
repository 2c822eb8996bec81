from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cxrnet.benchmarking.overrides import check_overrides, override, train_overrides
from cxrnet.cli.app import config_folder
from cxrnet.core.config import plain_config
from cxrnet.errors import CxrnetError


def composed(overrides: list[str]):
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return plain_config(compose("train", overrides))


@pytest.mark.parametrize("trainable", ["head", "all", {"last": 100}])
def test_a_job_is_what_a_user_could_type(make_plan, trainable):
    phase = {"trainable": trainable, "epochs": 3, "lr": 0.01}
    config = composed(
        train_overrides(
            make_plan("overrides=['data.num_workers=3']"), Path("/my x-rays, 'old'"), "resnet50", "none", phase,
            views=2, augment=True, bf16=True, cache=Path("/a b"), steps=5,
        )
    )  # fmt: skip
    assert config["data"]["root"] == "/my x-rays, 'old'"
    assert (config["cache"], config["data"]["size"], config["data"]["batch_size"]) == ("/a b", [32, 32], 8)
    assert config["data"]["num_workers"] == 3
    (made,) = config["schedule"]["phases"]
    assert {name: made[name] for name in phase} == phase
    assert config["schedule"]["views"] == 2
    assert config["model"]["backbone"] == "resnet50"
    assert (config["trainer"]["precision"], config["trainer"]["limit_train_batches"]) == ("bf16-mixed", 5)
    assert config["augment"]["flip"] == 0.5


def test_values_are_quoted_where_they_must_be():
    assert override("a", None) == "a=null"
    assert override("a", 3) == "a=3"
    assert override("a", "x=y") == "a='x=y'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("['cache=/fast']", "'cache=/fast' can't be given; each job has a cache of its own"),
        ("['++data.cache=/fast']", r"'\+\+data.cache=/fast' can't be given"),
        ("data.num_workers", r"""data.num_workers is no list of words; give "overrides=\['data.num_workers=4'\]\""""),
        ("null", "None is no list of words"),
        ("[{seed: 3}]", r"\[{'seed': 3}\] is no list of words"),
        ("['data.num_worker=4']", "data.num_worker: no such key; did you mean data.num_workers?"),
        ("['optimizer=adaw']", "optimizer=adaw: there is no such option; choose one of adam, adamw, sgd"),
        ("['schedule.views=-1']", "schedule.views: -1"),
        ("['model.backbone=???']", "model.backbone: no value is set"),
        ("['data.num_workers=-1']", "data.num_workers: -1"),
    ],
)
def test_a_mistake_in_the_further_words_is_told_before_any_job(small_config, words, message):
    with pytest.raises(CxrnetError, match=f"^overrides: {message}"):
        check_overrides(small_config(f"overrides={words}"), ["train"])


def test_the_further_words_are_for_the_jobs_of_the_groups_that_are_asked_for(small_config):
    augmented, limited = (
        small_config("overrides=['augment.flip=0']"),
        small_config("overrides=['trainer.limit_train_batches=3']"),
    )
    check_overrides(augmented, ["train", "data", "predict"])
    check_overrides(limited, ["train", "data", "predict"])
    for config, refusal in ((augmented, "augment.flip: no such key; "), (limited, "trainer.limit_train_batches: ")):
        with pytest.raises(CxrnetError, match=f"^overrides: {refusal}"):
            check_overrides(config, ["train", "frozen"])  # which has jobs without augmentation, and whole epochs
