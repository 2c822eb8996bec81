"""The beginning of a run, and the runs that folds and seeds ask for."""

import json

import pytest
from hydra import compose, initialize_config_dir
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cxrnet.cli.app import config_folder
from cxrnet.core.config import read_config, write_config
from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.weights import LoadedWeights
from cxrnet.tracking.record import alone_in, read_record, start_of, write_record
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.training.schedule import PhaseResult
from cxrnet.workflows.resume import COMMAND
from cxrnet.workflows.run_context import (
    RUN_FACTS,
    RunContext,
    begin,
    check_one_device,
    opened,
    part_configs,
    part_name,
    read_run_facts,
    write_facts_of_all,
    write_run_facts,
)

TRACKING = {"enabled": False, "uri": None, "experiment": "e", "system_metrics": False}
CONFIG = {"seed": 0, "trainer": {"devices": 1}, "outputs": "o", "tracking": TRACKING}


def begun(folder, mode=RunMode.RUN, resume=None, **changes) -> RunContext:
    folder.mkdir(exist_ok=True)
    runtime = {"output_dir": str(folder), "choices": {"model": "m", "data": "d"}}
    hydra = OmegaConf.create(
        {"runtime": runtime, "overrides": {"task": ["seed=0", "resume=x"]}, "mode": mode}
        | {"sweep": {"dir": str(folder.parent)}, "job": {"num": 3}, "sweeper": {}}
    )
    return begin(OmegaConf.create({**CONFIG, "resume": resume, **changes}), hydra)


def test_a_new_run(tmp_path, capsys):
    run = begun(tmp_path / "run")
    assert (run.config, run.resumed, run.name, run.uri) == (CONFIG, False, "m d seed=0", None)
    assert run.command == (*COMMAND, "seed=0")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "run" / "run.log").exists()


def test_a_run_that_is_open_has_its_configuration_and_its_command_on_disk(tmp_path):
    with opened(begun(tmp_path)) as run:
        assert read_config(tmp_path) == run.config
        assert read_record(tmp_path)["status"] == "RUNNING"
        part = run.part({**CONFIG, "seed": 3, "fold": None})
        with opened(part) as inner:
            assert (inner.folder, inner.name, inner.resumed) == (tmp_path / "seed3", "m d seed=0 seed3", False)
    assert read_record(tmp_path)["command"] == [*COMMAND, "seed=0"]
    assert read_record(tmp_path / "seed3")["command"] == []  # a part alone can't be resumed
    assert run.part({**CONFIG, "seed": 3, "fold": None}).resumed


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path):
    write_record(tmp_path, start_of(["python", "x"]))
    with pytest.raises(CxrnetError, match=r"holds a run already; give another hydra.run.dir"):
        begun(tmp_path)
    assert not (tmp_path / "run.log").exists()


def test_a_resumed_run_says_what_is_new(tmp_path, capsys):
    write_config(tmp_path, CONFIG)
    run = begun(tmp_path, resume="run", trainer={"devices": 2})
    assert run.resumed
    assert run.config == {**CONFIG, "trainer": {"devices": 2}}
    assert "trainer.devices: 1 -> 2" in capsys.readouterr().out


def test_a_job_of_a_sweep_says_its_command(tmp_path, capsys):
    begun(tmp_path / "run", mode=RunMode.MULTIRUN)
    assert capsys.readouterr().out == "\nJob 3: python -m cxrnet.train seed=0\n"


@pytest.mark.parametrize("trainer", [{"strategy": "ddp"}, {"strategy": "fsdp"}, {"devices": 2}, {"num_nodes": 2}])
def test_a_job_of_a_sweep_trains_on_one_device(trainer):
    check_one_device(OmegaConf.create({"trainer": {"devices": 1, "strategy": "auto"}}))
    check_one_device(OmegaConf.create({"other": 1}))  # of a command that trains nothing
    with pytest.raises(
        CxrnetError, match="trainer: a job of a sweep can't train on several devices; give trainer=auto"
    ):
        check_one_device(OmegaConf.create({"trainer": trainer}))


def test_a_run_that_somebody_is_at_work_on_is_not_resumed(tmp_path):
    write_config(tmp_path, CONFIG)
    write_record(tmp_path, start_of(["python", "x"]))
    with alone_in(tmp_path), pytest.raises(CxrnetError, match="is at work on this run; wait for its end"):
        begun(tmp_path, resume="run")
    write_record(tmp_path, {"status": "FINISHED"})
    with pytest.raises(CxrnetError, match="is finished"):
        begun(tmp_path, resume="run")


# --- folds and seeds


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", ["trainer=cpu", *words])


def names(*words: str) -> list[str]:
    return [part_name(config) for config in part_configs(composed(*words))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["+folds=3", "seed=7"], ["seed7_fold1of3", "seed7_fold2of3", "seed7_fold3of3"]),
        (["seeds=[4,0]"], ["seed4", "seed0"]),
        (["folds=3", "seeds=[1,0]"], [f"seed{seed}_fold{fold}of3" for seed in (1, 0) for fold in (1, 2, 3)]),
        (["folds=3", "trainer=gpu", "trainer.devices=[1]"], [f"seed0_fold{fold}of3" for fold in (1, 2, 3)]),
    ],
)
def test_folds_and_seeds_are_several_runs(words, expected):
    assert names(*words) == expected


@pytest.mark.parametrize("folds", ["2", "0", "-3"])
def test_no_number_of_folds(folds):
    with pytest.raises(CxrnetError, match=r"^folds: .*; give a whole number from 3 on"):
        names(f"folds={folds}")


@pytest.mark.parametrize("seeds", ["[]", "[0,0]", "[0,-1]", "[0,2147483648]"])
def test_no_seeds(seeds):
    with pytest.raises(CxrnetError, match=r"^seeds: .*; give a list of different whole numbers"):
        names(f"seeds={seeds}")


@pytest.mark.parametrize(
    "word", ["trainer=ddp", "trainer.num_nodes=2", "trainer.devices=2", "trainer.devices=-1", "trainer.devices=[0,1]"]
)
@pytest.mark.parametrize("repeated", ["folds=3", "seeds=[0,1]"])
def test_folds_and_seeds_train_on_one_device(word, repeated):
    with pytest.raises(CxrnetError, match=r"^trainer: folds and seeds can't train on several devices"):
        names(word, repeated)
    assert names(word) == []


def test_the_seed_goes_everywhere_but_into_the_choice_of_images():
    _, config = part_configs(composed("seeds=[0,5]", "data=merged"))
    assert (config["seed"], config["data"]["seed"], config["data"]["split"]["seed"]) == (5, 5, 5)
    assert config["data"]["manifest"]["seed"] == 0
    assert "resume" not in config


# --- run_facts.json


def write_facts(run: RunContext, network, origin="file", seconds=12.5) -> None:
    phase = PhaseResult("head", "head", 387, 0.001, 2.0, True, 1, 5, "best", 4, "val/loss", 0.25, seconds, kept=True)
    run.folder.mkdir(exist_ok=True)
    write_run_facts(run, sum(p.numel() for p in network.parameters()), LoadedWeights(origin, "x"), [phase])


def test_the_facts_of_a_run_and_of_several(make_network, tmp_path):
    network = make_network()
    run = RunContext({}, tmp_path, ("python", "-m", "x"), "all", False, None, TrackedRun(tmp_path))
    assert read_run_facts(tmp_path) == {}
    for seed, origin, seconds in ((0, "file", 2.0), (1, "random", 3.0)):
        write_facts(run.part({"seed": seed, "fold": None}), network, origin, seconds)
    facts = read_run_facts(tmp_path / "seed0")
    assert (facts["weights"]["origin"], facts["phases"][0]["seconds"]) == ("file", 2.0)
    assert (facts["parameters"], facts["command"]) == (sum(p.numel() for p in network.parameters()), [*run.command])
    write_facts_of_all(tmp_path, [tmp_path / "seed0", tmp_path / "seed1"], run.command)
    both = json.loads((tmp_path / RUN_FACTS).read_text())
    assert both["parameters"] == facts["parameters"]
    assert "weights" not in both
    assert both["runs"] == ["seed0", "seed1"]
    assert [(phase["run"], phase["name"], phase["seconds"]) for phase in both["phases"]] == [
        ("seed0", "head", 2.0),
        ("seed1", "head", 3.0),
    ]
