"""Real sweeps: one parent with a child a job, a job that fails, a search, a sweep that is killed and resumed."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cxrnet.models.backbones.registry import backbone_spec

SMALL = ["model=custom_cnn", "trainer=debug", "data.size=[32,32]", "data.manifest.images=48"]
CHILDREN = """
select r.run_uuid, r.status, t.value from runs r
left join tags t on t.run_uuid = r.run_uuid and t.key = 'mlflow.parentRunId' order by r.start_time
"""


def ranks(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "leaderboard.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def killed_and_resumed(folder: Path, words: list[str], begun: str, kill) -> subprocess.CompletedProcess:
    """Start a sweep to ``outputs/sweep``, call ``kill`` with its process once a file is there, and go on with it."""
    line = [sys.executable, "-m", "cxrnet.train"]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    words = [*line, "-m", *SMALL, *words, "hydra.sweep.dir=outputs/sweep"]
    with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as running:
        for _ in range(1200):
            if (folder / "outputs" / "sweep" / begun).exists() or running.poll() is not None:
                break
            time.sleep(0.1)
        kill(running)
    assert running.returncode
    return subprocess.run(
        [*line, "resume=outputs/sweep"], cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory, command):
    """A sweep written as an experiment, which needs no ``-m``; one of three jobs is refused, and none tests."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "conf" / "experiment").mkdir(parents=True)
    experiment = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
    experiment += "      loss.class_weights: none,balanced,wrong\n"
    (folder / "conf" / "experiment" / "small.yaml").write_text(experiment)
    words = ["--config-dir", "conf", "experiment=small", *SMALL, "test=false", "hydra.sweep.dir=outputs/sweep"]
    return folder, command(folder, "train", *words)


def test_a_job_that_fails_leaves_the_others_alone_and_the_exit_code_says_so(searched, query):
    folder, done = searched
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "1 of 3 jobs failed" in done.stderr.splitlines()[-1]
    (parent, *children) = query(folder, CHILDREN)
    assert parent[1:] == ("FAILED", None)
    assert sorted(status for _, status, _ in children) == ["FAILED", "FINISHED", "FINISHED"]
    assert {of for *_, of in children} == {parent[0]}


def test_the_leaderboard_stands_in_the_folder_and_in_the_parent(searched, query):
    folder, done = searched
    rows = ranks(folder / "outputs" / "sweep")
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert float(rows[0]["score"]) <= float(rows[1]["score"])
    assert rows[2]["reason"].startswith("loss.class_weights: 'wrong' is not known")
    assert "Leaderboard, by val/loss (lower is better)" in done.stdout
    parent = query(folder, CHILDREN)[0][0]
    tags = dict(query(folder, f"select key, value from tags where run_uuid = '{parent}'"))
    assert tags["cxrnet.best_run"] == rows[0]["run_id"]
    assert rows[0]["job"] in tags["mlflow.note.content"]
    stored = folder / "outputs" / "mlflow-artifacts" / parent / "artifacts"
    assert {"tables/leaderboard.csv", "report/comparison/comparison.html"} <= {
        str(path.relative_to(stored)) for path in stored.rglob("*") if path.is_file()
    }
    ranked = dict(query(folder, "select run_uuid, value from tags where key = 'cxrnet.rank'"))
    assert ranked == {row["run_id"]: row["rank"] for row in rows[:2]}


def test_only_the_best_job_of_a_search_sees_the_test_images(searched):
    import pandas as pd

    folder, _ = searched
    sweep = folder / "outputs" / "sweep"
    best, other, _ = (sweep / row["folder"] for row in ranks(sweep))
    assert (sweep / "best").resolve() == best
    assert set(pd.read_parquet(best / "predictions.parquet")["split"]) == {"val", "test"}
    assert set(pd.read_parquet(other / "predictions.parquet")["split"]) == {"val"}
    assert "test=false" in (other / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer=ddp", "trainer.devices=2"], "trainer: a job of a sweep can't train on several devices"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs: 0; give a whole number from 1"),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=x"], "hydra.launcher.n_jobs: x; give a whole number from 1"),
        (["hydra/launcher=submitit_local", "+hydra.launcher.parameters.foo=1"], "hydra.launcher.parameters: "),
        pytest.param(
            ["hydra/launcher=submitit_slurm"],
            "hydra/launcher=submitit_slurm: there is no Slurm here",
            marks=pytest.mark.skipif(shutil.which("srun") is not None, reason="Slurm is here"),
        ),
    ],
)
def test_what_no_sweep_can_be_is_one_line_before_anything_is_begun(tmp_path, command, words, said):
    done = command(tmp_path, "train", "-m", *SMALL, "seed=0,1", *words)
    assert done.stderr.startswith(f"error: {said}")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert not list(tmp_path.glob("outputs/sweeps/*"))


@pytest.mark.slow
def test_a_job_that_no_machine_has_room_for_is_refused(tmp_path, call):
    words = ["seed=0", "hydra/launcher=ray", "hydra.launcher.init.num_cpus=1", "hydra.launcher.remote.num_gpus=100"]
    done = call(tmp_path, "-m", "cxrnet.train", "-m", *SMALL, *words, "hydra.sweep.dir=outputs/sweep")
    assert done.returncode == 1
    assert "error: hydra.launcher.remote: a job asks for 1 CPUs and 100 GPUs, and machines have 1 and" in done.stderr


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_what_is_not_finished(tmp_path, query):
    """Killed in its second job of three: the first is not run again, and each job has one run in MLflow."""
    first = tmp_path / "outputs" / "sweep" / "0_custom_cnn_phantom" / "report.html"
    before = []

    def kill(running: subprocess.Popen) -> None:
        running.kill()
        before.append(first.stat().st_mtime_ns)

    resumed = killed_and_resumed(tmp_path, ["seed=0,1,2"], "1_custom_cnn_phantom/config.yaml", kill)
    assert resumed.returncode == 0, resumed.stderr
    assert [first.stat().st_mtime_ns] == before
    (parent, *children) = query(tmp_path, CHILDREN)
    assert parent[1:] == ("FINISHED", None)
    assert [child[1:] for child in children] == [("FINISHED", parent[0])] * 3
    assert [row["rank"] for row in ranks(tmp_path / "outputs" / "sweep")] == ["1", "2", "3"]
    assert "validated on different images" in resumed.stdout


@pytest.mark.slow
def test_a_grid_of_nine_that_is_killed_in_its_fifth_job_has_nine_finished_children(tmp_path, query):
    """The four jobs before it are not run again, none of the nine has two runs, and each has all its epochs once."""
    sweep = tmp_path / "outputs" / "sweep"
    written = {}

    def reports() -> dict[str, int]:
        return {file.parent.name: file.stat().st_mtime_ns for file in sweep.glob("[0-9]*/report.html")}

    def kill(running: subprocess.Popen) -> None:
        running.kill()
        running.wait()
        written.update(reports())

    words = ["seed=0,1,2", "schedule.scratch.lr=1e-3,3e-4,1e-4", "evaluation.resamples=100"]
    resumed = killed_and_resumed(tmp_path, words, "4_custom_cnn_phantom/config.yaml", kill)
    assert resumed.returncode == 0, resumed.stderr
    assert sorted(written) == [f"{job}_custom_cnn_phantom" for job in range(4)]
    assert written.items() <= reports().items()
    assert len(reports()) == 9
    (parent, *children) = query(tmp_path, CHILDREN)
    assert parent[1:] == ("FINISHED", None)
    assert [child[1:] for child in children] == [("FINISHED", parent[0])] * 9
    of_jobs = f"run_uuid != '{parent[0]}'"
    assert len(set(query(tmp_path, f"select value from tags where key = 'cxrnet.overrides' and {of_jobs}"))) == 9
    epochs = query(tmp_path, f"select count(*) from metrics where key = 'val/loss' and {of_jobs}")
    assert epochs == [(9,)]
    assert len(ranks(sweep)) == 9


@pytest.mark.slow
def test_four_jobs_at_once_make_decoded_images_and_frozen_features_once(tmp_path, call, query):
    """Dropouts of a head: whoever comes later to the images or to the features waits for them, and says so."""
    torch.manual_seed(0)
    torch.save(backbone_spec("custom_cnn").build((32, 32)).state_dict(), tmp_path / "weights.pt")
    words = [
        "model.weights=weights.pt",
        "model.dropout=0,0.1,0.2,0.3",
        "schedule=head",
        "schedule.head.solver=gradient",
    ]
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "hydra.sweep.dir=outputs/sweep"]
    done = call(tmp_path, "-m", "cxrnet.train", "-m", *SMALL, *words, "data.manifest.images=192")
    assert done.returncode == 0, done.stdout + done.stderr
    (parent, *children) = query(tmp_path, CHILDREN)
    assert [child[1:] for child in children] == [("FINISHED", parent[0])] * 4
    cache = tmp_path / "outputs" / "cache"
    made = {name: [path for path in (cache / name).iterdir() if path.is_dir()] for name in ("images", "features")}
    assert {name: len(folders) for name, folders in made.items()} == {"images": 1, "features": 2}  # train and val
    consoles = [file.read_text(encoding="utf-8") for file in (tmp_path / "outputs" / "sweep" / "console").iterdir()]
    assert len(consoles) == 4
    assert any("waiting for it" in text for text in consoles)


@pytest.mark.parametrize(
    "launcher",
    ["joblib", "submitit_local", "ray"],
)
@pytest.mark.slow
def test_jobs_at_once_lose_nothing(tmp_path, call, query, launcher):
    """Jobs in processes of their own write to one SQLite file, and the images are decoded once."""
    seeds = "seed=0" if launcher == "ray" else "seed=0,1"  # whose cluster alone takes half a minute
    words = [seeds, "schedule.scratch.lr=1e-3,1e-4", f"hydra/launcher={launcher}", "hydra.sweep.dir=outputs/sweep"]
    jobs = {"joblib": ["hydra.launcher.n_jobs=2"], "ray": ["hydra.launcher.init.num_cpus=2"]}.get(launcher, [])
    done = call(tmp_path, "-m", "cxrnet.train", "-m", *SMALL, *words, *jobs)
    assert done.returncode == 0, done.stderr
    (parent, *children) = query(tmp_path, CHILDREN)
    assert [child[1:] for child in children] == [("FINISHED", parent[0])] * (2 if launcher == "ray" else 4)
    points = query(tmp_path, "select run_uuid, count(*), count(distinct key || ' ' || step) from metrics group by 1")
    of_jobs = [row[1:] for row in points if row[0] != parent[0]]
    assert len(set(of_jobs)) == 1
    assert all(all_points == different for all_points, different in of_jobs)
    images = [path for path in (tmp_path / "outputs" / "cache" / "images").iterdir() if path.is_dir()]
    assert len(images) == 1
    assert "locked" not in done.stdout + done.stderr
    assert "Result" in (tmp_path / "outputs" / "sweep" / "console" / "1.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_job_whose_process_is_killed_fails_and_is_resumed(tmp_path, query):
    record = "1_custom_cnn_phantom/run.json"

    def kill(running: subprocess.Popen) -> None:
        os.kill(json.loads((tmp_path / "outputs" / "sweep" / record).read_text())["process"], signal.SIGKILL)
        assert running.wait() == 1  # the other job has ended

    words = ["seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    resumed = killed_and_resumed(tmp_path, words, record, kill)
    assert resumed.returncode == 0, resumed.stderr
    (parent, *children) = query(tmp_path, CHILDREN)
    assert [child[1:] for child in children] == [("FINISHED", parent[0])] * 2
