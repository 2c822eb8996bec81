from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cxrnet.app import config_folder
from cxrnet.benchmarking.overrides import override, train_overrides
from cxrnet.configuration import plain_config


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
