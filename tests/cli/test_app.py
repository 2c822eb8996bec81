"""A command of a few lines around real Hydra stands for every entry point."""

import importlib
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cxrnet.cli.app import entry_point, help_text
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import COMMANDS, Train

BACKBONE = "cxrnet.models.backbones.registry.backbone_spec"


def task(config):
    match config.data.limit:
        case 13:
            raise CxrnetError("data.limit: 13 brings bad luck; take another")
        case 15:
            instantiate({"_target_": BACKBONE, "name": "alexnet"})
        case 16:
            instantiate({"_target_": f"{BACKBONE}s"})
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    print("done", config.data.limit, config.finetune)


def called(monkeypatch, capsys, main, *arguments: str) -> SimpleNamespace:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    status = 0
    try:
        main()
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr()
    return SimpleNamespace(status=status, out=said.out, err=said.err)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: called(monkeypatch, capsys, entry_point(Train)(task), *arguments)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("data.limit=13", "data.limit: 13 brings bad luck; take another"),
        ("data.limit=15", "model.backbone: 'alexnet' is not known; choose one of mobilenet_v2"),  # inside Hydra
        ("data.limit=16", f"config: Error locating target '{BACKBONE}s'"),
        ("data.limit=0", "data.limit: 0 is out of range; give a whole number from 1 on, or null"),
        ("+data.limits=0", "data.limits: no such key; did you mean data.limit?"),
        ("data.classes.0=a", "data.classes.0: data.classes is null here; give all of it, as data.classes=[a]"),
        ("data=folder", "data.root: no value is set; give data.root=<value>"),
        ("loss=_base", "loss=_base: there is no such option; choose one of cost_sensitive, "),
        ("outputs=", "outputs: '' is no folder"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2_and_leaves_no_folder(command, word, line, tmp_path):
    done = command(word)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error: {line}")
    assert done.err.count("\n") == 1
    assert not list(tmp_path.glob("outputs/runs/*"))


@pytest.mark.parametrize("also", [(), ("-m",), ("-m", "seed=1,2"), ("--help",), ("--cfg", "job")])
def test_a_mistake_on_the_command_line_is_one_line_and_status_2(command, also):
    done = command(*also, "data.batchsize=3")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: data.batchsize: no such key; did you mean data.batch_size?\n"


def test_an_added_key_at_the_top_is_said_and_taken(command, caplog):
    done = command("+mine=3", "seed=${mine}", "data.limit=${mine}")
    assert (done.status, done.out) == (0, "done 3 None\n")
    assert "mine: no such key" in caplog.text


def test_no_job_of_a_sweep_begins_when_one_has_a_mistake(command):
    done = command("-m", "model=vgg16,resnet999")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: model=resnet999: there is no such option; choose one of custom_cnn, ")


@pytest.mark.parametrize("module", ["train", "evaluate", "predict", "prepare", "compare", "sign", "sync"])
def test_every_command_refuses_in_one_line(module, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = called(monkeypatch, capsys, importlib.import_module(f"cxrnet.{module}").main, "hydra.no_such=1")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: hydra.no_such: no such key; --help shows all\n"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("metrics=[]", "metrics: by is taken from it"),
        ("experiment=two", "experiment=two: no such key; did you mean mlflow_experiment=two?"),
    ],
)
def test_what_a_comparison_refuses(tmp_path, monkeypatch, capsys, word, line):
    monkeypatch.chdir(tmp_path)
    done = called(monkeypatch, capsys, importlib.import_module("cxrnet.compare").main, word)
    assert done.err.startswith(f"error: {line}")


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
        (["cxrnet.train", "seed=-1"], 2, "error: seed: -1 is out of range; give "),
        (["cxrnet.train", "+schedule.mode=max"], 2, "error: schedule.mode: no such key"),
        (["cxrnet.train", "folds=2"], 2, "error: folds: 2; give a whole number from 3 on"),
        (["cxrnet.train", "finetune=true", "schedule=head"], 2, "error: finetune=true: no phase of this schedule is"),
        (["cxrnet.predict"], 2, "error: bundle: no value is set; give bundle=<value>\n"),
        (["cxrnet.evaluate"], 2, "error: bundle: no value is set; give bundle=<value>\n"),
    ],
)
def test_nobody_waits_for_heavy_imports_to_be_helped_or_refused(line, status, said, tmp_path):
    command = [sys.executable, "-c", HEAVY, *line]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr.startswith(said)
    assert "imported" not in done.stderr
    assert done.returncode == status


DEFECT = """
from cxrnet.cli.app import entry_point
from cxrnet.workflows.settings import Train

def task(config):
    raise RuntimeError("a defect")

entry_point(Train)(task)()
"""


def test_a_defect_keeps_its_traceback(tmp_path):
    """In a process of its own: where coverage is measured, Hydra takes its tracer for a debugger and prints nothing."""
    command = [sys.executable, "-c", DEFECT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RuntimeError: a defect" in done.stderr


def test_a_failing_job_does_not_stop_the_others(command, tmp_path):
    done = command("-m", "data.limit=1,13,2,15,3", "hydra/sweeper=basic")
    assert done.status == 1
    results = [line for line in done.out.splitlines() if line.startswith("done")]
    assert results == ["done 1 None", "done 2 None", "done 3 None"]
    errors = done.err.splitlines()
    assert [line.partition(":")[0] for line in errors] == ["error", "error"]
    reasons = [file.read_text() for file in sorted(tmp_path.glob("outputs/sweeps/*/*/error.txt"))]
    assert reasons == [f"{line.removeprefix('error: ')}\n" for line in errors]


@pytest.mark.parametrize("spelling", ["finetune=true", "+finetune=true", "++finetune=true"])
def test_every_spelling_of_finetune(command, spelling):
    assert command(spelling).out == "done None True\n"


def test_a_command_may_rewrite_its_arguments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def arguments(given):
        if "13" in given[0]:
            raise CxrnetError("unlucky")
        return [*given, "finetune=true"]

    main = entry_point(Train, arguments)(task)
    assert called(monkeypatch, capsys, main, "data.limit=1").out == "done 1 True\n"
    refused = called(monkeypatch, capsys, main, "data.limit=13")
    assert (refused.status, refused.out, refused.err) == (2, "", "error: unlucky\n")


@pytest.mark.parametrize("name", [command.__name__.lower() for command in COMMANDS])
def test_every_command_shows_its_keys_as_yaml(name):
    assert yaml.safe_load(help_text(name, []).partition("(key=value):\n\n")[2])


def test_help_has_the_values_of_the_command_line_options_and_comments():
    shown = help_text("train", ["model=vgg16", "data.limit=7"])
    assert "\nlogger: csv, none, tensorboard\n" in shown
    assert "_complete_split" not in shown.partition("Values")[0]
    keys = shown.partition("(key=value):\n\n")[2]
    assert yaml.safe_load(keys)["data"]["limit"] == 7
    lines = keys.splitlines()
    assert lines[lines.index("  hidden:") - 1].startswith("  # widths of the dense layers")
    assert lines[lines.index("  batch_size: 32") - 1].lstrip().startswith("# ")  # of a class that is inherited from


def test_no_key_of_a_data_class_of_ours_goes_without_a_word():
    lines = help_text("train", []).splitlines()
    bare = [now for last, now in pairwise(lines) if now[:1].isalpha() and not last.startswith("#")]
    groups = ("data", "model", "augment", "schedule", "loss", "optimizer", "trainer", "callbacks", "logger")
    assert [line.partition(":")[0] for line in bare[bare.index("data:") :]] == [
        *groups,
        "evaluation",
        "report",
        "tracking",
    ]
