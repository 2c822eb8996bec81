"""Two processes on the CPU: what is different in a distributed run."""

import json
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.bundle import load_bundle


@pytest.fixture(scope="module")
def finished(draw, tmp_path_factory):
    """A run of four phases: on stored features, twice on stored maps, and on images."""
    place = tmp_path_factory.mktemp("two processes")
    draw(place / "my xrays")
    torch.save(backbone_spec("custom_cnn").build((64, 64)).state_dict(), place / "weights.pt")
    command = [
        "data=folder", "data.root=my xrays", "data.size=[32,32]", "data.batch_size=4", "model=custom_cnn",
        "model.weights=weights.pt", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2",
        "schedule=gradual", "schedule.max_epochs=3", "schedule.views=2", "hydra.run.dir=the run",
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
    assert all(torch.equal(bundle[name], state[f"network.{name}"]) for name in bundle)
