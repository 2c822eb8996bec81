"""A run on shards that SIGKILL ends in the middle of an epoch, and that goes on there: in one process, and in two."""

import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

from cxrnet.models.bundle import load_bundle

WORDS = (
    "data=shards", "data.root=written", "data.size=[32,32]", "data.window=2", "model=custom_cnn", "schedule=full",
    "schedule.max_epochs=3", "schedule.checkpoint_every=2", "trainer.accelerator=cpu", "tracking=none",
    "evaluation.resamples=100",
)  # fmt: skip
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2")
ONE, TWO = ("data.batch_size=2", "trainer=cpu"), ("data.batch_size=1", "trainer=ddp")
KILLED = """
import os, signal
import cxrnet.training.callbacks as callbacks
from cxrnet.train import main

batch_end = callbacks.PhaseProgress.on_train_batch_end

def kill(self, trainer, *args, **kwargs):
    batch_end(self, trainer, *args, **kwargs)
    if trainer.current_epoch == 1 and trainer.fit_loop.batch_idx == 5 and trainer.is_global_zero:
        os.kill(os.getpid(), signal.SIGKILL)

callbacks.PhaseProgress.on_train_batch_end = kill
main()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, draw, command) -> Path:
    folder = tmp_path_factory.mktemp("mid epoch")
    draw(folder / "my xrays")
    words = ("data=folder", "data.root=my xrays", "shards=written", "data.size=[32,32]", "per_shard=5")
    assert command(folder, "shard", *words).returncode == 0
    (folder / "killed.py").write_text(KILLED)
    return folder


@pytest.mark.parametrize(
    ("launcher", "words", "code"),
    [((), ONE, -signal.SIGKILL), pytest.param(TORCHRUN, TWO, 1, marks=pytest.mark.slow)],
    ids=["one", "two"],
)
def test_a_killed_epoch_goes_on_to_the_same_bits(place, call, launcher, words, code):
    """The checkpoint of batch 4 is there when batch 6 ends, so two batches of the epoch are trained again."""
    name = f"by {len(launcher)}"
    train = (*launcher, "-m", "cxrnet.train")
    done = call(place, *train, *WORDS, *words, f"hydra.run.dir={name} whole")
    assert done.returncode == 0, done.stdout + done.stderr
    run = place / f"{name} killed"
    killed = call(place, *launcher, "killed.py", *WORDS, *words, f"hydra.run.dir={run.name}")
    assert killed.returncode == code, killed.stderr
    assert (run / "checkpoints" / "full" / "running.ckpt").is_file(), killed.stderr
    resumed = call(place, *train, f"resume={run.name}")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "in phase 'full', 1 epoch is done, and 4 batches of the next" in " ".join(resumed.stdout.split())
    assert "resumable" not in resumed.stderr
    assert_same(place / f"{name} whole", run)


def assert_same(whole: Path, resumed: Path) -> None:
    for file in ("history.csv", "metrics.json"):
        assert (whole / file).read_text() == (resumed / file).read_text()
    tables = (pd.read_parquet(run / "predictions.parquet") for run in (whole, resumed))
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    states = [load_bundle(run / "bundle").network.state_dict() for run in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
