"""Two processes on the CPU: what is different in a distributed run."""

import json
import os
import sqlite3
import subprocess
import sys

import pandas as pd
import pytest
import torch

from cxrnet.models.backbones import backbone_spec
from cxrnet.models.bundle import load_bundle


@pytest.fixture(scope="module")
def finished(draw, tmp_path_factory):
    """A run of two phases, the first of them on cached features."""
    place = tmp_path_factory.mktemp("two processes")
    draw(place / "my xrays")
    torch.save(backbone_spec("custom_cnn").build((64, 64)).state_dict(), place / "weights.pt")
    command = [
        "data=folder", "data.root=my xrays", "data.size=[32,32]", "data.batch_size=4", "model=custom_cnn",
        "model.weights=weights.pt", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "finetune=true",
        "schedule.max_epochs=2", "schedule.views=2", "hydra.run.dir=the run",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    line = [sys.executable, "-m", "cxrnet.train", *command]
    done = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done


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
        steps = store.execute("select step from metrics where key = 'val_loss' order by step").fetchall()
    assert steps == [(1,), (2,), (3,), (4,)]


def test_both_phases_ran_and_the_kept_weights_are_the_bundles(finished):
    place, _ = finished
    history = pd.read_csv(place / "the run" / "history.csv")
    assert history["phase"].tolist() == ["head"] * 2 + ["finetune"] * 2
    kept = history.loc[history["val_loss"].idxmin(), "phase"]
    state = torch.load(place / "the run" / "checkpoints" / kept / "best.ckpt", weights_only=True)["state_dict"]
    bundle = load_bundle(place / "the run" / "bundle").network.state_dict()
    assert all(torch.equal(bundle[name], state[f"network.{name}"]) for name in bundle)
