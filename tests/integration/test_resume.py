"""A run that is stopped and resumed, typed as a user types it."""

import json
import pickle
import shlex
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.tracking.record import start_of, write_record
from cxrnet.workflows.resume import COMMAND

QUICK = (
    "data=folder", "data.root=my xrays", "data.size=[32,32]", "data.batch_size=8", "model=custom_cnn",
    "model.weights=weights.pt", "trainer=cpu", "+finetune=true", "schedule.max_epochs=3", "schedule.views=2",
)  # fmt: skip
# Stands for a scheduler that stops the job: the signal comes in the middle of an epoch, of which nothing is saved.
STOPPED = """
import os, signal, sys
import cxrnet.training.callbacks as progress
from cxrnet.train import main

phase, epoch, number = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
batch_end = progress.PhaseProgress.on_train_batch_end

def stop(self, trainer, *args, **kwargs):
    batch_end(self, trainer, *args, **kwargs)
    if self.phase == phase and trainer.current_epoch == epoch:
        os.kill(os.getpid(), number)

progress.PhaseProgress.on_train_batch_end = stop
main()
"""


@pytest.fixture(scope="module")
def workplace(draw, make_place) -> Path:
    folder = make_place("work place")
    draw(folder / "my xrays")
    torch.set_num_threads(1)  # as in the processes, so that results are equal to the last bit
    torch.manual_seed(0)
    torch.save(backbone_spec("custom_cnn").build((32, 32)).state_dict(), folder / "weights.pt")
    return folder


@pytest.fixture(scope="module")
def whole(workplace, command) -> Path:
    """A run that was not stopped."""
    done = command(workplace, "train", *QUICK, "hydra.run.dir=whole", "tracking=none")
    assert done.returncode == 0, done.stderr
    return workplace / "whole"


@pytest.fixture(scope="module")
def resumed(workplace, call, command, query):
    """The same run, ended by SIGTERM in its second phase, and resumed: the folder and what the two commands said."""
    where = ("finetune", "1", str(int(signal.SIGTERM)))
    stopped = call(workplace, "-c", STOPPED, *where, *QUICK, "hydra.run.dir=a run")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert json.loads((workplace / "a run" / "run.json").read_text())["status"] == "KILLED"
    assert query(workplace, "select status from runs") == [("KILLED",)]
    shutil.copyfile(workplace / "a run" / "run.log", workplace / "stopped.log")
    done = command(workplace, "train", "resume=a run", "trainer.precision=32")
    assert done.returncode == 0, done.stderr
    return workplace / "a run", stopped, done


def test_it_ends_like_a_run_that_was_not_stopped(resumed, whole):
    run, *_ = resumed
    assert (run / "history.csv").read_text() == (whole / "history.csv").read_text()
    assert (run / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    ours, theirs = (pd.read_parquet(folder / "predictions.parquet") for folder in (run, whole))
    pd.testing.assert_frame_equal(ours, theirs)
    assert list(run.rglob("*.partial")) == []


def test_it_is_one_run_in_mlflow_with_every_epoch_once(resumed, workplace, query):
    run, *_ = resumed
    record = json.loads((run / "run.json").read_text())
    assert query(workplace, "select run_uuid, status from runs") == [(record["run_id"], "FINISHED")]
    steps = query(workplace, "select key, step from metrics where key in ('val/loss', 'train/lr') order by key, step")
    assert steps == [(key, step) for key in ("train/lr", "val/loss") for step in range(1, 7)]
    drift = query(workplace, "select value from tags where key = 'cxrnet.param_drift'")
    assert drift == [("trainer.precision: 32-true -> 32",)]
    assert len(query(workplace, "select * from datasets")) == 1


def test_the_record_tells_of_every_start(resumed):
    run, *_ = resumed
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "FINISHED"
    assert record["command"] == ["python", "-m", "cxrnet.train", *QUICK]
    (resumption,) = record["resumptions"]
    assert resumption["command"] == [*record["command"], "trainer.precision=32"]
    assert record["started"] <= resumption["started"] <= record["ended"]


def test_nothing_that_was_there_is_written_over(resumed):
    run, *_ = resumed
    assert (run / ".hydra" / "overrides.yaml").read_text().splitlines() == [f"- {word}" for word in QUICK]
    assert "precision: 32-true" in (run / "config.yaml").read_text()
    assert "precision: 32\n" in (run / "config.resumed-1.yaml").read_text()
    before, after = (file.read_text() for file in (run.parent / "stopped.log", run / "run.log"))
    assert after.startswith(before)
    assert len(after) > len(before) > 0


def test_it_says_where_it_goes_on(resumed):
    run, stopped, done = resumed
    assert stopped.stderr.splitlines()[-1].endswith(f"; to go on: {shlex.quote(f'resume={run}')}")
    assert "changed      trainer.precision: 32-true -> 32" in done.stdout
    assert "in phase 'finetune', 4 epochs are done" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resume=nowhere",), "resume: 'nowhere' is not a folder; give that of a run"),
        (("resume=my xrays",), "resume: 'my xrays' holds no run of cxrnet.train"),
        (("-m", "resume=whole"), "resume: one run goes on at a time; leave -m out"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_no_trace(whole, workplace, arguments, message, command):
    before = sorted(path.relative_to(workplace) for path in workplace.rglob("*"))
    done = command(workplace, "train", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert sorted(path.relative_to(workplace) for path in workplace.rglob("*")) == before
    assert json.loads((whole / "run.json").read_text())["status"] == "FINISHED"


class Loud:
    def __reduce__(self):
        return print, ("unpickled",)


def test_a_strangers_folder_runs_no_code(tmp_path, command):
    folder = tmp_path / "run"
    (tmp_path / "loud.pkl").write_bytes(pickle.dumps(Loud()))
    words = ["+hydra.callbacks.x._target_=pandas.read_pickle", "+hydra.callbacks.x.filepath_or_buffer=loud.pkl"]
    write_record(folder, start_of([*COMMAND, *words]))
    (folder / "config.yaml").write_text("seed: 0\n")
    done = command(tmp_path, "train", "resume=run")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "changes Hydra" in done.stderr
