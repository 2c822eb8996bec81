"""A command of three lines around real Hydra stands for every entry point."""

import os
import subprocess
import sys

import pytest

from cxrnet.cli.app import config_folder
from cxrnet.compare import main as compare

COMMAND = """
import sys
from hydra.utils import instantiate
from omegaconf import OmegaConf
from cxrnet.cli.app import entry_point
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Train

@entry_point(Train)
def main(config):
    if config.data.limit == 13:
        raise CxrnetError("data.limit: 13 brings bad luck; take another")
    if config.data.limit == 14:
        raise RuntimeError("a defect")
    if config.data.limit == 15:
        instantiate({"_target_": "cxrnet.models.backbones.registry.backbone_spec", "name": "alexnet"})
    if config.data.limit == 16:
        instantiate({"_target_": "cxrnet.models.backbones.registry.no_such_thing"})
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    print("done", config.data.limit, config.finetune)

main()
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        line, environment = [sys.executable, "command.py", *arguments], {**os.environ, **variables}
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)

    return call


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("data.limit=13", "data.limit: 13 brings bad luck; take another"),
        ("data.limit=15", "model.backbone: 'alexnet' is not known; choose one of mobilenet_v2"),  # inside Hydra
        ("data.limit=16", "config: Error locating target 'cxrnet.models.backbones.registry.no_such_thing'"),
        ("data.limit=0", "data.limit: 0 is out of range; give a whole number from 1 on, or null"),
        ("+data.limits=0", "data.limits: no such key; did you mean data.limit?"),
        ("data.classes.0=a", "data.classes.0: data.classes is null here; give all of it, as data.classes=[a]"),
        ("data=folder", "data.root: no value is set; give data.root=<value>"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(command, word, line):
    done = command(word)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("also", [(), ("-m",), ("-m", "seed=1,2"), ("--help",), ("--cfg", "job")])
def test_a_mistake_on_the_command_line_is_one_line_and_status_2(command, also):
    done = command(*also, "data.batchsize=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("error: data.batchsize: no such key; did you mean data.batch_size?\n")


def test_an_added_key_at_the_top_is_said_and_taken(command):
    done = command("+mine=3", "seed=${mine}", "data.limit=${mine}")
    assert (done.returncode, done.stdout) == (0, "done 3 None\n")
    assert "mine: no such key" in done.stderr


def test_a_list_that_another_value_is_taken_from_is_empty(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", "metrics=[]"])
    with pytest.raises(SystemExit):
        compare()
    assert capsys.readouterr().err.startswith("error: metrics: by is taken from it")


def test_an_empty_name_of_outputs_is_refused(command):
    done = command("outputs=")
    assert done.returncode == 2
    assert done.stderr.startswith("error: outputs: '' is no folder")


def test_no_job_of_a_sweep_begins_when_one_has_a_mistake(command):
    done = command("-m", "model=vgg16,resnet999")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: model=resnet999: there is no such option; choose one of custom_cnn, ")
    assert done.stderr.count("\n") == 1


def test_who_asks_hydra_for_the_full_error_gets_it(command):
    done = command("data.batchsize=3", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigCompositionException" in done.stderr


@pytest.mark.parametrize("module", ["train", "evaluate", "predict", "prepare", "compare", "sign"])
def test_every_command_refuses_in_one_line(module, tmp_path):
    line = [sys.executable, "-m", f"cxrnet.{module}", "hydra.no_such=1"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: hydra.no_such: no such key; --help shows all\n"


HEAVY = """
import importlib, sys
sys.argv = ["command", *sys.argv[1:]]
module = importlib.import_module(sys.argv[1])
del sys.argv[1]
try:
    if hasattr(module, "main"):
        module.main()
finally:
    heavy = {"torch", "lightning", "mlflow", "pandas", "numpy", "sklearn", "scipy", "matplotlib"} & set(sys.modules)
    if heavy:
        sys.exit(f"imported: {heavy}")
"""


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (["cxrnet"], 0, ""),
        (["cxrnet.train", "--help"], 0, ""),
        (["cxrnet.evaluate", "--help"], 0, ""),
        (["cxrnet.train", "seed=-1"], 2, "error: seed: -1 is out of range; give "),
        (["cxrnet.train", "folds=2"], 2, "error: folds: 2; give a whole number from 3 on"),
        (["cxrnet.train", "finetune=true", "schedule=head"], 2, "error: finetune=true: no phase of this schedule is"),
        (["cxrnet.train", "data=folder"], 2, "error: data.root: no value is set; give data.root=<value>\n"),
        (["cxrnet.predict"], 2, "error: bundle: no value is set; give bundle=<value>\n"),
        (["cxrnet.evaluate"], 2, "error: bundle: no value is set; give bundle=<value>\n"),
    ],
)
def test_nobody_waits_for_heavy_imports_to_be_helped_or_refused(line, status, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith(said)
    assert "imported" not in done.stderr
    assert done.returncode == status


def test_a_defect_keeps_its_traceback(command):
    done = command("data.limit=14")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a defect" in done.stderr


def test_a_failing_job_does_not_stop_the_others(command, tmp_path):
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
    reasons = [file.read_text() for file in sorted(tmp_path.glob("outputs/sweeps/*/*/error.txt"))]
    assert reasons == [f"{line.removeprefix('error: ')}\n" for line in errors]


@pytest.mark.parametrize("spelling", ["finetune=true", "+finetune=true", "++finetune=true"])
def test_every_spelling_of_finetune(command, spelling):
    assert command(spelling).stdout == "done None True\n"


def test_the_configs_are_where_the_command_looks():
    assert (config_folder() / "train.yaml").is_file()
    assert (config_folder() / "predict.yaml").is_file()


def test_a_command_may_rewrite_its_arguments(tmp_path):
    (tmp_path / "command.py").write_text(
        COMMAND.replace('@entry_point(Train)', """def arguments(given):
    if "13" in given[0]:
        raise CxrnetError("unlucky")
    return [*given, "finetune=true"]

@entry_point(Train, arguments)""")
    )  # fmt: skip

    def call(word):
        line = [sys.executable, "command.py", word]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert call("data.limit=1").stdout == "done 1 True\n"
    refused = call("data.limit=13")
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", "error: unlucky\n")
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 1
