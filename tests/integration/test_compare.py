"""``python -m cxrnet.compare`` on a real sweep, as a user types it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SMALL = ("model=custom_cnn", "trainer=debug", "data.size=[32,32]", "data.manifest.images=48")


def cxrnet(command: str, *line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = (sys.executable, "-m", f"cxrnet.{command}", *line)
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with a sweep over two losses, in MLflow."""
    folder = tmp_path_factory.mktemp("work place")
    done = cxrnet("train", "-m", *SMALL, "loss=cross_entropy,focal", "tracking.experiment=two losses", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_jobs_of_a_sweep_stand_in_one_table(workplace):
    (sweep,) = (workplace / "outputs" / "sweeps").iterdir()
    quick = ("resamples=100", "metrics=[accuracy,sensitivity_Normal]")
    done = cxrnet("compare", f"sweep={sweep.relative_to(workplace)}", *quick, folder=workplace)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (workplace / "outputs" / "comparisons").iterdir()
    assert f"outputs/comparisons/{folder.name}/comparison.html" in done.stdout
    board = pd.read_csv(folder / "leaderboard.csv")
    assert set(board["run"]) == {"loss=cross_entropy", "loss=focal"}
    facts = ["backbone", "phases", "seed", "split", "manifest digest"]
    assert board[[*facts, "accuracy", "accuracy_low", "sensitivity_Normal"]].notna().all(axis=None)


def test_experiment_is_that_of_mlflow_and_a_mistake_is_one_line(workplace):
    done = cxrnet("compare", "experiment=three losses", folder=workplace)
    assert done.returncode == 2
    assert done.stderr.startswith("error: experiment: MLflow has no 'three losses'; it has Default, ")
    assert done.stderr.count("\n") == 1
