"""The presets of the published recipes build what was published."""

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cxrnet.cli.app import config_folder
from cxrnet.core.schema import build
from cxrnet.models.freezing import set_trainable
from cxrnet.models.losses import weights_of
from cxrnet.models.network import Network, count_parameters
from cxrnet.models.settings import NetworkConfig
from cxrnet.training.schedule import Phase, Schedule, enabled_phases

RADIOGRAPHY = {"COVID": 3616, "Lung_Opacity": 6012, "Normal": 10192, "Viral Pneumonia": 1345}


def recipe(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"experiment={name}", *overrides])
    return OmegaConf.to_container(config, resolve=True)


def phases_of(config: dict[str, Any]) -> tuple[Phase, ...]:
    return enabled_phases(build(Schedule, config["schedule"]), pretrained=True)


def network_of(config: dict[str, Any], classes: tuple[str, ...]) -> Network:
    architecture = {name: value for name, value in config["model"].items() if name != "weights"}
    return Network(NetworkConfig.from_dict({**architecture, "classes": classes, "size": tuple(config["data"]["size"])}))


def test_the_triage_network_trains_a_head_of_three_classes_on_values_from_0_to_1():
    config = recipe("triage_mobilenet_v2")
    network = network_of(config, ("COVID", "Normal", "Viral Pneumonia"))
    (phase,) = phases_of(config)
    set_trainable(network, phase.trainable)
    assert count_parameters(network).trainable == 1280 * 3 + 3
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    assert network.normalise(black_and_white).unique().tolist() == [0, 1]
    assert config["augment"]["flip"] == 0


def test_its_follow_up_makes_a_missed_covid_dear_and_then_trains_deeper_layers():
    config = recipe("triage_mobilenet_v2_sensitive")
    loss = instantiate(config["loss"])(classes=("COVID", "Normal", "Viral Pneumonia"), counts=(300, 800, 100))
    assert loss.costs.tolist() == [[0, 4, 1], [1, 0, 1], [1, 1, 0]]
    network = network_of(config, ("COVID", "Normal", "Viral Pneumonia"))
    head, finetune = phases_of(config)
    set_trainable(network, finetune.trainable)
    assert head.trainable == "head"
    assert 0.5 < count_parameters(network).trainable / count_parameters(network).total < 1
    assert config["data"]["manifest"]["classes"] == ["COVID", "Normal", "Viral Pneumonia"]


def test_the_binary_recipe_says_which_class_its_sigmoid_is_of():
    config = recipe("binary_resnet50")
    assert config["data"]["classes"] == ["non_covid", "covid"]
    network = network_of(config, ("non_covid", "covid"))
    assert count_parameters(network.head).total == 2048 + 1
    assert [phase.trainable for phase in phases_of(config)] == ["head", "all"]
    assert phases_of(config)[1].lr == 1e-5


def test_the_four_class_recipe_has_the_published_parameters():
    config = recipe("radiography_resnet50")
    network = network_of(config, tuple(RADIOGRAPHY))
    head, finetune = phases_of(config)
    set_trainable(network, head.trainable)
    counts = count_parameters(network)
    # Keras also counts the biases of ResNet50's convolutions, one for each of its 26,560 channels, and the running
    # means and variances of all batch norms: 2 x 26,560 in the backbone, 2 x (2,048 + 256) in the head.
    assert counts.statistics == 2 * 26_560 + 2 * (2_048 + 256)
    assert counts.total + 26_560 + counts.statistics == 24_122_500
    assert counts.trainable == 530_180
    assert finetune.trainable == {"last": 100}
    assert finetune.lr == pytest.approx(head.lr / 10)
    weights = weights_of(config["loss"]["class_weights"], tuple(RADIOGRAPHY), tuple(RADIOGRAPHY.values()))
    assert weights.tolist() == pytest.approx([10192 / n for n in RADIOGRAPHY.values()])


def test_the_detector_has_the_published_parameters_and_threshold():
    config = recipe("detector_vgg19")
    network = network_of(config, ("normal", "covid"))
    (phase,) = phases_of(config)
    set_trainable(network, phase.trainable)
    counts = count_parameters(network)
    assert (counts.total, counts.trainable) == (20_286_785, 4_982_017)
    assert config["operating_points"] == {"covid": 0.7}
    assert config["data"]["manifest"]["per_class"] == "equal"


def test_the_comparison_trains_its_three_backbones_by_itself():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", ["experiment=compare_backbones"], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
    assert config.hydra.mode.name == "MULTIRUN"
    assert config.hydra.sweeper.params == {"model": "custom_cnn,vgg16,resnet50"}


def test_the_vgg16_of_the_comparison_has_the_published_parameters():
    config = recipe("compare_backbones", "model=vgg16")
    network = network_of(config, ("Covid", "Normal", "Viral Pneumonia"))
    set_trainable(network, "head")
    counts = count_parameters(network)
    assert (counts.total, counts.trainable) == (14_912_579, 197_891)
