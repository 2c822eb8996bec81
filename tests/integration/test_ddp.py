"""Several processes on the CPU: what is different in a distributed run, and that the result isn't."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.bundle import load_bundle

COMMON = (
    "data=folder", "data.root=my xrays", "data.size=[32,32]", "model=custom_cnn", "model.weights=weights.pt",
    "trainer.accelerator=cpu", "evaluation.resamples=100",
)  # fmt: skip
TWO = ("data.batch_size=4", "trainer=ddp", "trainer.devices=2")
ONE = ("data.batch_size=8", "trainer=cpu")
PHASES = (
    "schedule=gradual", "schedule.max_epochs=3", "schedule.views=2", "data.sampler=balanced", "model.l2=1e-3",
    "optimizer=sgd", "loss.class_weights={Normal: 2.0}",
)  # fmt: skip


@pytest.fixture(scope="module")
def make_site(draw, make_place):
    """Makes a folder with pictures, 13 a class, and weights."""

    def make(name: str):
        place = make_place(name)
        draw(place / "my xrays", images=13)
        torch.manual_seed(0)
        torch.save(backbone_spec("custom_cnn").build((64, 64)).state_dict(), place / "weights.pt")
        return place

    return make


@pytest.fixture(scope="module")
def finished(make_site, train):
    """A run of four phases: on stored features, twice on stored maps, and on images."""
    place = make_site("two processes")
    done = train(place, *COMMON, *PHASES, *TWO, "hydra.run.dir=the run")
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done


def largest_differences(one, other) -> tuple[float, float]:
    """Of the weights in all checkpoints and in the bundle, and of the metrics of all epochs.

    An area under the curve is no smooth metric: it jumps where two images have one probability up to rounding.
    """
    states = []
    for run in (one, other):
        files = sorted(run.glob("checkpoints/*/*.ckpt"))
        found = {f.relative_to(run): torch.load(f, weights_only=True)["state_dict"] for f in files}
        states.append({**found, "bundle": load_bundle(run / "bundle").network.state_dict()})
    assert states[0].keys() == states[1].keys()
    assert all(states[0][file].keys() == states[1][file].keys() for file in states[0])
    pairs = [(value, states[1][file][name]) for file, state in states[0].items() for name, value in state.items()]
    assert all(a.shape == b.shape for a, b in pairs)
    histories = [pd.read_csv(run / "history.csv").set_index(["phase", "epoch"]) for run in (one, other)]
    weights = max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
    largest = (histories[0] - histories[1]).abs().max()
    assert largest.filter(like="roc_auc").max() < 0.01
    return weights, float(largest.drop(largest.filter(like="roc_auc").index).max())


def test_two_processes_give_what_one_gives(finished, command):
    """An odd last batch, augmented images and views, class weights, balanced draws, L2 and batch norms included."""
    place, _ = finished
    done = command(place, "train", *COMMON, *PHASES, *ONE, "hydra.run.dir=by one", "tracking=none")
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = pd.read_parquet(place / "the run" / "manifest.parquet")
    assert (manifest["split"] == "train").sum() % 8 == 3  # odd, and not left out
    weights, metrics = largest_differences(place / "by one", place / "the run")
    assert weights < 1e-6
    assert metrics < 1e-6


@pytest.mark.slow
def test_torchrun_fits_the_head_that_one_process_fits_in_one_folder_of_its_own(make_site, command, call):
    place = make_site("by torchrun")
    head = (*COMMON, "schedule=head", "schedule.views=2", "model.hidden=[]", "model.dropout=0.2")
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "cxrnet.train")
    done = call(place, *torchrun, *head, "data.batch_size=4", "trainer=ddp")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Result") == 1
    (run,) = (place / "outputs" / "runs").iterdir()
    with sqlite3.connect(place / "outputs" / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
    done = command(place, "train", *head, *ONE, "hydra.run.dir=by one", "tracking=none")
    assert done.returncode == 0, done.stdout + done.stderr
    phases = [json.loads((each / "run_facts.json").read_text())["phases"] for each in (run, place / "by one")]
    assert phases[0][0]["fitted"] == phases[1][0]["fitted"] != ""
    weights, metrics = largest_differences(run, place / "by one")
    assert weights == 0
    assert metrics < 1e-6


@pytest.mark.slow
def test_slurm_gives_the_same_in_one_folder_though_the_processes_begin_apart(finished):
    """Its variables, not itself: two machines with a task each, both of which are this one."""
    place, _ = finished
    job = {"SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_NAME": "train"}
    line = [sys.executable, "-m", "cxrnet.train", *COMMON, *PHASES, "data.batch_size=4", "trainer=ddp"]
    line += ["trainer.num_nodes=2", "outputs=by slurm", "tracking=none"]
    tasks = []
    for rank in range(2):
        own = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank), "SLURM_LOCALID": "0", "SLURM_JOB_ID": "2345"}
        environment = {**os.environ, **job, **own, "SLURM_NODELIST": "localhost", "OMP_NUM_THREADS": "1"}
        tasks.append(subprocess.Popen(line, cwd=place, env=environment, stdout=subprocess.PIPE, text=True))
        time.sleep(2)  # their clocks name two folders
    outputs = [task.communicate(timeout=200)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert outputs[1] == ""
    (run,) = (place / "by slurm" / "runs").iterdir()
    assert max(largest_differences(run, place / "the run")) == 0


@pytest.mark.slow
def test_a_killed_process_ends_all_in_seconds(make_site):
    place = make_site("killed")
    line = [*COMMON, *TWO, "schedule=full", "schedule.phases.0.epochs=10000", "schedule.phases.0.patience=null"]
    run = subprocess.Popen(
        [sys.executable, "-m", "cxrnet.train", *line, "hydra.run.dir=run"], cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (place / "run" / "checkpoints" / "full" / "last.ckpt").exists():
            assert run.poll() is None, run.communicate()
            time.sleep(0.1)
        ranks = [child for child in psutil.Process(run.pid).children() if "cxrnet.train" in child.cmdline()]
        assert len(ranks) == 1
        os.kill(ranks[0].pid, signal.SIGKILL)
        run.communicate(timeout=60)
        assert run.returncode != 0
        assert json.loads((place / "run" / "run.json").read_text())["status"] != "FINISHED"
    finally:
        run.kill()


def test_the_first_process_alone_speaks(finished):
    _, done = finished
    assert done.stdout.count("Result") == 1
    assert done.stderr == ""


def test_every_image_is_predicted_once(finished):
    place, _ = finished
    predictions = pd.read_parquet(place / "the run" / "predictions.parquet")
    manifest = pd.read_parquet(place / "the run" / "manifest.parquet")
    expected = manifest.loc[manifest["split"] != "train", "image_id"]
    assert sorted(predictions["image_id"]) == sorted(expected)
    metrics = json.loads((place / "the run" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"]["n"] == (manifest["split"] == "test").sum()


def test_there_is_one_run_in_mlflow_with_every_epoch_once(finished):
    place, _ = finished
    with sqlite3.connect(place / "outputs" / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
        steps = store.execute("select step from metrics where key = 'val/loss' order by step").fetchall()
    assert steps == [(epoch,) for epoch in range(1, 13)]


def test_tables_are_made_once_for_both_processes(finished):
    place, _ = finished
    tables = [np.load(file, mmap_mode="r") for file in (place / "outputs" / "cache" / "features").glob("*/table.npy")]
    # Of the training and of the validation images: vectors of the whole backbone, maps of what two phases cut.
    assert sorted((table.ndim, len(table)) for table in tables) == [(3, 1), (3, 2), (5, 1), (5, 1), (5, 2), (5, 2)]


def test_all_phases_ran_and_the_kept_weights_are_the_bundles(finished):
    place, _ = finished
    history = pd.read_csv(place / "the run" / "history.csv")
    assert history["phase"].tolist() == [name for name in ("head", "one_stage", "two_stages", "all") for _ in range(3)]
    kept = history.loc[history["val/loss"].idxmin(), "phase"]
    state = torch.load(place / "the run" / "checkpoints" / kept / "kept.ckpt", weights_only=True)["state_dict"]
    bundle = load_bundle(place / "the run" / "bundle").network.state_dict()
    others = [name for name in bundle if not torch.equal(bundle[name], state[f"network.{name}"])]
    assert others == [[*bundle][-1]]  # the last bias: what class weights added to it goes to the decision
