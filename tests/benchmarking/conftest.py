"""A small plan."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cxrnet.benchmarking.plan import Plan
from cxrnet.cli.app import config_folder
from cxrnet.core.config import Config, plain_config

SMALL = (
    "images=16", "size=[32,32]", "file_size=64", "batch_size=8", "repeats=1", "model.weights=none",
    "model.backbone=mobilenet_v2", "models=[resnet50]", "frozen.epochs=2", "frozen.views=[1,2]", "train.steps=2",
    "predict.images=20", "predict.steps=1", "growth.rows=100", "growth.images=[8,16]",
)  # fmt: skip


@pytest.fixture(scope="session")
def small_config() -> Callable[..., Config]:
    """Makes the configuration of a small benchmark, with further overrides."""

    def make(*overrides: str) -> Config:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            return plain_config(compose("benchmark", [*SMALL, *overrides]))

    return make


@pytest.fixture(scope="session")
def make_plan(small_config, tmp_path_factory) -> Callable[..., Plan]:
    """Makes a plan of a small benchmark; the images are drawn once."""
    drawn = tmp_path_factory.mktemp("drawn")

    def make(*overrides: str, device: str = "cpu") -> Plan:
        return Plan(small_config(*overrides), device, drawn, tmp_path_factory.mktemp("scratch"), "none")

    return make


@pytest.fixture(scope="session")
def images(draw, tmp_path_factory) -> Path:
    """Training and validation images of three classes, as every contender takes them; not to be changed."""
    folder = tmp_path_factory.mktemp("some images")
    for seed, (split, count) in enumerate((("train", 6), ("val", 3))):
        draw(folder / split, images=count, seed=seed)
    return folder
