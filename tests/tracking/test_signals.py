"""The run of a real process that gets a real signal, outside and inside of Lightning's Trainer."""

import json
import signal
import subprocess
import sys

import pytest

from cxrnet.core.process import Terminated, signals_raise, was_killed
from cxrnet.tracking.run import track

INSIDE = """
import torch
from lightning.pytorch import LightningModule, Trainer

class Tiny(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        if batch_idx == 1:
            print("ready", flush=True)
        time.sleep(0.05)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = torch.utils.data.DataLoader(torch.zeros(2000, 1))
with track(folder, uri, "signals", outputs) as run:
    Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=1,
    ).fit(Tiny(), data)
"""

HEAD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for jobs in the background
from pathlib import Path
from cxrnet.tracking.run import track
uri, outputs, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
"""


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_command_that_is_stopped_in_fit_leaves_a_killed_run(number, uri, outputs, client, tmp_path):
    command = [sys.executable, "-c", HEAD + INSIDE, uri, str(outputs), str(tmp_path / "run")]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "ready\n", job.stderr.read()
    job.send_signal(number)
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "KILLED", errors
    assert client.get_run(record["run_id"]).info.status == "KILLED"
    if number == signal.SIGTERM:
        assert job.returncode == 128 + number


def test_a_closed_terminal_is_a_killed_run_too(uri, outputs, client, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and then it stays so
    try:
        _close_terminal(uri, outputs, client, tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)


def _close_terminal(uri, outputs, client, tmp_path):
    with pytest.raises(Terminated), track(tmp_path / "run", uri, "signals", outputs) as run:
        signal.raise_signal(signal.SIGHUP)
    assert client.get_run(run.run_id).info.status == "KILLED"


def test_a_failing_exit_is_not_taken_for_an_interrupt():
    for error in (SystemExit(1), ValueError("x"), GeneratorExit()):
        assert not was_killed(error)
    with pytest.raises(SystemExit) as caught:  # noqa: PT012
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # what Lightning does
    assert was_killed(caught.value)
    assert was_killed(Terminated(143))


def test_handlers_are_as_before_afterwards_and_those_of_others_are_left_alone():
    mine = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with signals_raise():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # nohup
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what Lightning does
        assert before == {number: signal.getsignal(number) for number in before}
    finally:
        signal.signal(signal.SIGHUP, mine)


DROPPED = """
import gc, os

class Left:
    def __del__(self):
        os.kill(os.getpid(), signal.Signals(int(sys.argv[4])))
        time.sleep(0.1)  # the exception comes up here

with track(folder, None, "signals", outputs):
    left = Left()
    left.itself = left
    del left
    gc.collect()
    time.sleep(20)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_is_not_lost(number, uri, outputs, tmp_path):
    command = [sys.executable, "-c", HEAD + DROPPED, uri, str(outputs), str(tmp_path / "run"), str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "KILLED"
    assert "Exception ignored" not in done.stderr
