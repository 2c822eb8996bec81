"""Every option of every group composes, names what exists, and builds what it says."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from cxrnet.cli.app import compose_config, config_folder
from cxrnet.core.schema import build
from cxrnet.errors import CxrnetError
from cxrnet.models.freezing import set_trainable
from cxrnet.models.network import Network, count_parameters
from cxrnet.models.settings import NetworkConfig
from cxrnet.training.schedule import Schedule, check_finetune, enabled_phases
from cxrnet.workflows.settings import Train

GROUPS = sorted(path.name for path in config_folder().iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((config_folder() / group).glob("*.yaml"))
    if not path.stem.startswith("_")
]
MODELS = [option for group, option in OPTIONS if group == "model"]


def composed(*overrides: str, name: str = "train") -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        config = compose(name, list(overrides))
    return OmegaConf.to_container(config, resolve=True, enum_to_str=True)


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Every part of a config that is a call."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="=".join)
def test_every_option_names_arguments_that_exist(group, option):
    added = "+" if group == "search" else ""  # which nothing is by default
    config = composed(f"{added}{group}={option}", "data.root=somewhere")
    config["data"].pop("root")  # taken by the source, through an interpolation
    calls = list(targets(config))
    assert calls
    for call in calls:
        function = get_method(call["_target_"]) if "." in call["_target_"] else None
        arguments = {name: value for name, value in call.items() if not name.startswith("_")}
        signature = inspect.signature(function)
        (signature.bind_partial if call.get("_partial_") else signature.bind)(**arguments)


@pytest.mark.parametrize("group", ["model", "schedule"])
def test_the_options_of_a_group_have_the_same_keys(group):
    options = [composed(f"{group}={option}")[group] for kind, option in OPTIONS if kind == group]
    assert all(option.keys() == options[0].keys() for option in options)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_its_head_and_then_more_of_it(model):
    backbone = ["model.backbone=timm/resnet18"] if model == "timm" else []
    config = composed(f"model={model}", *backbone, "finetune=true")
    settings = {name: value for name, value in config["model"].items() if name != "weights"}
    network = Network(NetworkConfig.from_dict({**settings, "classes": ("a", "b"), "size": (32, 32)}))
    trained = []
    for phase in enabled_phases(build(Schedule, config["schedule"]), pretrained=True):
        set_trainable(network, phase.trainable)
        trained.append(count_parameters(network).trainable)
    assert 0 < trained[0] < trained[1] <= count_parameters(network).total


def test_finetune_enables_the_phases_after_the_head():
    for overrides, names in (
        ((), ["head"]),
        (("finetune=true",), ["head", "finetune"]),
        (("+finetune=true",), ["head", "finetune"]),
        (("finetune=false",), ["head"]),
    ):
        schedule = build(Schedule, composed(*overrides)["schedule"])
        assert isinstance(schedule, Schedule)
        assert [phase.name for phase in enabled_phases(schedule, pretrained=True)] == names


def test_every_schedule_can_be_run_without_pretrained_weights():
    for group, option in OPTIONS:
        if group == "schedule":
            schedule = build(Schedule, composed(f"schedule={option}", "finetune=true")["schedule"])
            assert all(phase.trainable == "all" for phase in enabled_phases(schedule, pretrained=False))


@pytest.mark.parametrize(
    ("option", "pretrained", "random"),
    [
        ("head", ["head"], ["scratch"]),
        ("transfer", ["head", "finetune"], ["scratch", "finetune"]),
        ("gradual", ["head", "one_stage", "two_stages", "all"], ["scratch", "all"]),
        ("full", ["full"], ["full"]),
    ],
)
def test_the_phases_of_a_schedule(option, pretrained, random):
    finetune = ["finetune=true"] if option == "transfer" else []
    schedule = build(Schedule, composed(f"schedule={option}", *finetune)["schedule"])
    for has_weights, names in ((True, pretrained), (False, random)):
        phases = enabled_phases(schedule, has_weights)
        assert [phase.name for phase in phases] == names
        rates = [phase.lr for phase in phases]
        assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "schedule"])
def test_finetune_is_for_schedules_that_wait_for_it(option):
    config = compose_config(Train, [f"schedule={option}", "finetune=true"])
    if option == "transfer":
        check_finetune(config.finetune, config.schedule)
    else:
        with pytest.raises(CxrnetError, match="finetune=true: no phase of this schedule"):
            check_finetune(config.finetune, config.schedule)


@pytest.mark.parametrize("loss", [option for group, option in OPTIONS if group == "loss"])
def test_every_loss_can_be_made_and_takes_weights_by_name(loss):
    for overrides in ([], ["loss.class_weights={Covid: 2.0}"]):
        made = instantiate(composed(f"loss={loss}", *overrides)["loss"])(classes=("Covid", "Normal"), counts=(5, 9))
        assert made(torch.zeros(3, 2), torch.tensor([0, 1, 1])).isfinite()


def test_costs_can_be_given_on_the_command_line():
    config = composed("loss=cost_sensitive", "loss.costs={Covid: {Normal: 4.0}}")["loss"]
    assert instantiate(config)(classes=("Covid", "Normal"), counts=(5, 9)).costs.tolist() == [[0, 4], [1, 0]]


@pytest.mark.parametrize("trainer", [option for group, option in OPTIONS if group == "trainer"])
def test_a_trainer_changes_nothing_but_the_trainer_unless_it_is_for_debugging(trainer):
    usual, config = composed(), composed(f"trainer={trainer}")
    changed = {name for name in usual if usual[name] != config[name]} - {"trainer"}
    assert changed == ({"data", "schedule", "evaluation"} if trainer == "debug" else set())


def test_every_public_source_names_its_known_issues():
    faults = {
        option: composed(f"data={option}", "data.root=x")["data"]["known_issues"]
        for group, option in OPTIONS
        if group == "data"
    }
    for source in ("covid19_image", "covid_chestxray", "covid19_radiography"):
        assert list(faults[source]) == [source]
        assert len(faults[source][source]) >= 4
    assert faults["merged"] == faults["covid_chestxray"] | faults["covid19_radiography"]
    assert faults["folder"] == faults["manifest"] == {}


def test_one_seed_reaches_everything_that_is_drawn():
    config = composed("seed=7")
    assert config["data"]["seed"] == config["data"]["split"]["seed"] == 7
