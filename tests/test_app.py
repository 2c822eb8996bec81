"""A command of three lines around real Hydra stands for every entry point."""

import subprocess
import sys

import pytest

from cxrnet.app import config_folder

COMMAND = """
import sys
from hydra.utils import instantiate
from omegaconf import OmegaConf
from cxrnet.app import entry_point
from cxrnet.errors import CxrnetError

@entry_point("train")
def main(config):
    if config.data.limit == 13:
        raise CxrnetError("data.limit: 13 brings bad luck; take another")
    if config.data.limit == 14:
        raise RuntimeError("a defect")
    if config.data.limit == 15:
        instantiate({"_target_": "cxrnet.models.backbones.backbone_spec", "name": "alexnet"})
    if config.data.limit == 16:
        instantiate({"_target_": "cxrnet.models.backbones.no_such_thing"})
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    print("done", config.data.limit, config.finetune)

main()
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "command.py", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def test_a_users_mistake_is_one_line_and_status_2(command):
    done = command("data.limit=13")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: data.limit: 13 brings bad luck; take another\n"


def test_a_mistake_inside_hydra_is_told_in_our_words(command):
    done = command("data.limit=15")
    assert done.returncode == 2
    assert done.stderr.startswith("error: model.backbone: 'alexnet' is not known; choose one of mobilenet_v2")
    assert done.stderr.count("\n") == 1


def test_what_hydra_cannot_find_is_one_line(command):
    done = command("data.limit=16")
    assert done.returncode == 2
    assert done.stderr.startswith("error: config: Error locating target 'cxrnet.models.backbones.no_such_thing'")
    assert done.stderr.count("\n") == 1


def test_a_missing_value_is_named_with_what_to_type(command):
    done = command("data=folder")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: data.root: no value is set; give data.root=<value>\n"


@pytest.mark.parametrize("arguments", ["modle=resnet50", "model.foo=1", "model=resnet51", "data.size=[1"])
def test_a_mistake_on_the_command_line_has_no_traceback(command, arguments):
    done = command(arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert arguments.split("=")[-1].strip("[") in done.stderr


def test_a_defect_keeps_its_traceback(command):
    done = command("data.limit=14")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a defect" in done.stderr


def test_a_failing_job_does_not_stop_the_others(command):
    done = command("-m", "data.limit=1,13,2,15,3")
    assert done.returncode != 0
    assert [line for line in done.stdout.splitlines() if line.startswith("done")] == [
        "done 1 None",
        "done 2 None",
        "done 3 None",
    ]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("spelling", ["finetune=true", "+finetune=true", "++finetune=true"])
def test_every_spelling_of_finetune(command, spelling):
    assert command(spelling).stdout == "done None True\n"


def test_the_configs_are_where_the_command_looks():
    assert (config_folder() / "train.yaml").is_file()
    assert (config_folder() / "predict.yaml").is_file()


def test_a_command_may_rewrite_its_arguments(tmp_path):
    (tmp_path / "command.py").write_text(
        COMMAND.replace('@entry_point("train")', """def arguments(given):
    if "13" in given[0]:
        raise CxrnetError("unlucky")
    return [*given, "finetune=true"]

@entry_point("train", arguments)""")
    )  # fmt: skip

    def call(word):
        line = [sys.executable, "command.py", word]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert call("data.limit=1").stdout == "done 1 True\n"
    refused = call("data.limit=13")
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", "error: unlucky\n")
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 1
