"""A cross-validation that is stopped in its second fold and resumed, typed as a user types it."""

import json
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

QUICK = (
    "data=folder", "data.root=my xrays", "data.size=[32,32]", "data.batch_size=8", "model=custom_cnn", "trainer=cpu",
    "schedule.max_epochs=1", "evaluation.resamples=100",
)  # fmt: skip
RUNS = ["seed0_fold1of3", "seed0_fold2of3", "seed0_fold3of3"]
# Stands for a scheduler that stops the job in the middle of the second fold.
STOPPED = """
import os, signal
import cxrnet.training.callbacks as progress
from cxrnet.train import main

batch_end = progress.PhaseProgress.on_train_batch_end

def stop(self, trainer, *args, **kwargs):
    batch_end(self, trainer, *args, **kwargs)
    if "fold2of3" in trainer.default_root_dir:
        os.kill(os.getpid(), signal.SIGTERM)

progress.PhaseProgress.on_train_batch_end = stop
main()
"""


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def workplace(draw, make_place) -> Path:
    folder = make_place("work place")
    draw(folder / "my xrays")
    return folder


@pytest.fixture(scope="module")
def resumed(workplace, call, command) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of the parent, and what its second command said."""
    folder = workplace / "a run"
    stopped = call(workplace, "-c", STOPPED, *QUICK, "+folds=3", "hydra.run.dir=a run")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert "to go on: 'resume=" in stopped.stderr
    assert record(folder)["status"] == "KILLED"
    assert [record(folder / name)["status"] for name in RUNS[:2]] == ["FINISHED", "KILLED"]
    assert not (folder / RUNS[2]).exists()
    done = command(workplace, "train", "resume=a run")
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done


def test_the_pooled_predictions_have_every_image_once_by_the_network_of_its_fold(resumed, workplace):
    folder, _ = resumed
    pooled = pd.read_parquet(folder / "predictions.parquet")
    assert sorted(pooled["image_id"]) == sorted(pd.read_parquet(folder / RUNS[0] / "manifest.parquet")["image_id"])
    assert len(pooled) == 36
    for fold, name in enumerate(RUNS, 1):
        own = pd.read_parquet(folder / name / "predictions.parquet").query("split == 'test'").reset_index(drop=True)
        ours = pooled[pooled["fold"] == fold].drop(columns=["fold", "leaked"]).reset_index(drop=True)
        pd.testing.assert_frame_equal(ours, own)
        manifest = pd.read_parquet(folder / name / "manifest.parquet").set_index("image_id")["split"]
        assert set(manifest[own["image_id"]]) == {"test"}
        assert set(manifest) == {"train", "val", "test"}


def test_the_spread_has_a_row_for_each_fold(resumed):
    folder, done = resumed
    spread = pd.read_csv(folder / "repeats.csv")
    assert spread[["seed", "fold"]].to_numpy().tolist() == [[0, 1], [0, 2], [0, 3]]
    metrics = [json.loads((folder / name / "metrics.json").read_text()) for name in RUNS]
    assert spread["accuracy"].tolist() == pytest.approx([each["test"]["accuracy"]["value"] for each in metrics])
    pooled = json.loads((folder / "metrics.json").read_text())["test"]["accuracy"]
    assert (pooled["value"], pooled["n"]) == (pytest.approx(spread["accuracy"].mean()), 36)  # the folds are of one size
    assert "pools the test predictions of all folds" in " ".join(done.stdout.split())


def test_the_runs_are_children_of_one_run_in_mlflow(resumed, workplace, query):
    folder, _ = resumed
    parent = record(folder)["run_id"]
    children = query(workplace, "select run_uuid, value from tags where key = 'mlflow.parentRunId'")
    assert sorted(children) == sorted((record(folder / name)["run_id"], parent) for name in RUNS)
    assert query(workplace, "select distinct status from runs") == [("FINISHED",)]
    assert len(query(workplace, "select * from runs")) == 1 + 3
    folds = query(workplace, f"select value from params where key = 'fold' and run_uuid != '{parent}' order by value")
    assert folds == [("1",), ("2",), ("3",)]
    means = query(
        workplace, f"select value from metrics where key = 'over_runs/accuracy/mean' and run_uuid = '{parent}'"
    )
    assert means == [(pytest.approx(pd.read_csv(folder / "repeats.csv")["accuracy"].mean()),)]


def test_the_report_of_all_is_in_the_folder_and_in_mlflow(resumed, workplace, logged_files):
    from mlflow import MlflowClient

    folder, done = resumed
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "custom_cnn on my xrays, 3 folds" in page
    assert all(f'<th scope="row">{name}</th>' in page.replace("<wbr>", "") for name in RUNS)
    assert "The result below is that of all 36 predictions together" in page
    assert "X-rays are shown in the report of each run, in its folder." in page
    assert "report       a run/report.html" in done.stdout
    client = MlflowClient(f"sqlite:///{workplace}/outputs/mlflow.db")
    needed = {"report/report.html", "tables/repeats.csv", "data/predictions.parquet", "config/run_facts.json"}
    assert needed <= logged_files(client, record(folder)["run_id"])
    # The networks are in the runs of the folds.
    assert not (folder / "bundle").exists()


def test_a_finished_fold_was_not_trained_again(resumed):
    folder, done = resumed
    assert [len(record(folder / name).get("resumptions", [])) for name in RUNS] == [0, 1, 0]
    assert done.stdout.count("before this run was resumed") == 1
    assert [len(pd.read_csv(folder / name / "history.csv")) for name in RUNS] == [1, 1, 1]
    assert record(folder)["status"] == "FINISHED"
    assert list(folder.rglob("*.partial")) == []


@pytest.mark.slow
def test_a_finished_fold_that_gets_more_epochs_goes_on(resumed, workplace, command):
    folder, _ = resumed
    before = (folder / RUNS[0] / "history.csv").read_text()
    done = command(workplace, "train", "resume=a run", "schedule.max_epochs=2", "tracking=none")
    assert (done.returncode, done.stderr) == (0, "")
    assert [len(pd.read_csv(folder / name / "history.csv")) for name in RUNS] == [2, 2, 2]
    assert (folder / RUNS[0] / "history.csv").read_text().startswith(before)
