import logging

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf

from cxrnet.configuration import write_config
from cxrnet.errors import CxrnetError
from cxrnet.processes import is_main_process
from cxrnet.starting import check_config, start
from cxrnet.tracking.record import start_of, write_record

CONFIG = {"seed": 0, "trainer": {"devices": 1}, "model": {"output": "softmax"}, "data": {"classes": None}}


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers, root.level = handlers, level


def begin(folder, in_sweep=False, resume=None, **changes):
    folder.mkdir(exist_ok=True)
    return start(OmegaConf.create({**CONFIG, "resume": resume, **changes}), folder, ["python", "x"], in_sweep)


def test_a_new_run(tmp_path, capsys):
    assert begin(tmp_path / "run") == (CONFIG, False)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "run" / "run.log").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path):
    write_record(tmp_path, start_of(["python", "x"]))
    with pytest.raises(CxrnetError, match=r"holds a run already; start again a second later or give hydra.run.dir"):
        begin(tmp_path)
    assert not (tmp_path / "run.log").exists()


def test_a_resumed_run_says_what_is_new(tmp_path, capsys):
    write_config(tmp_path, CONFIG)
    plain, resumed = begin(tmp_path, resume="run", trainer={"devices": 2})
    assert resumed
    assert plain == {**CONFIG, "trainer": {"devices": 2}}
    assert "trainer.devices: 1 -> 2" in capsys.readouterr().out


def test_other_processes_check_nothing_and_say_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert not is_main_process()
    write_record(tmp_path, start_of(["python", "x"]))
    assert begin(tmp_path, resume="run") == (CONFIG, True)
    assert capsys.readouterr().out == ""


def test_a_job_of_a_sweep_says_its_command(tmp_path, capsys):
    begin(tmp_path / "run", in_sweep=True)
    assert capsys.readouterr().out == "\npython x\n"
    with pytest.raises(CxrnetError, match="trainer: a sweep can't train on several devices; give trainer=gpu"):
        begin(tmp_path / "other", in_sweep=True, trainer={"strategy": "ddp"})


@pytest.mark.parametrize("seed", [-1, 2**31, 0.5, None, "a"])
def test_no_seed(seed):
    with pytest.raises(CxrnetError, match=r"^seed: .* is no seed; give a whole number from 0 to 2147483647$"):
        check_config({**CONFIG, "seed": seed})


def test_one_logit_needs_to_know_its_class():
    check_config({**CONFIG, "model": {"output": "sigmoid"}, "data": {"classes": ["a", "b"]}})
    with pytest.raises(CxrnetError, match=r"data.classes: model.output=sigmoid needs to know the positive class"):
        check_config({**CONFIG, "model": {"output": "sigmoid"}})


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", 64])
def test_a_precision_of_the_weights_is_refused_before_any_image_is_read(precision):
    with pytest.raises(CxrnetError, match=rf"^trainer.precision: {precision} is not for the weights"):
        check_config({**CONFIG, "trainer": {"precision": precision}})
    for known in ("32-true", 32, "16-mixed", 16, "bf16-mixed", "bf16"):
        check_config({**CONFIG, "trainer": {"precision": known}})


def test_a_trainer_is_exact_or_tries_what_is_fastest():
    check_config({**CONFIG, "trainer": {"deterministic": True, "benchmark": False}})
    with pytest.raises(CxrnetError, match=r"^trainer.deterministic: .*give trainer.benchmark=false$"):
        check_config({**CONFIG, "trainer": {"deterministic": True, "benchmark": True}})
