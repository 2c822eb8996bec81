import logging

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf

from cxrnet.core.config import write_config
from cxrnet.core.process import is_main_process
from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import alone_in, start_of, write_record
from cxrnet.workflows.start import start

CONFIG = {"seed": 0, "trainer": {"devices": 1}}


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
    with pytest.raises(CxrnetError, match=r"holds a run already; give another hydra.run.dir"):
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


def test_a_run_that_somebody_is_at_work_on_is_not_resumed(tmp_path):
    write_config(tmp_path, CONFIG)
    write_record(tmp_path, start_of(["python", "x"]))
    with alone_in(tmp_path), pytest.raises(CxrnetError, match="is at work on this run; wait for its end"):
        begin(tmp_path, resume="run")
    write_record(tmp_path, {"status": "FINISHED"})
    with pytest.raises(CxrnetError, match="is finished"):
        begin(tmp_path, resume="run")
