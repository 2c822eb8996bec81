"""``python -m cxrnet.benchmark`` as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = (
    "images=24", "size=[32,32]", "file_size=64", "batch_size=8", "repeats=1", "device=cpu", "model.weights=none",
    "models=[mobilenet_v2]", "frozen.epochs=2", "frozen.views=[2]", "train.steps=2", "predict.images=20",
    "predict.steps=1", "data.steps=2", "growth.rows=1000", "growth.images=[16,24]",
)  # fmt: skip


def benchmark(*line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cxrnet.benchmark", *SMALL, *line]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800, check=False)


def written(folder: Path) -> tuple[Path, dict]:
    (run,) = (path for path in (folder / "outputs" / "benchmarks").iterdir() if path.name != "images")
    return run, json.loads((run / "benchmark.json").read_text())


def test_a_group_leaves_numbers_and_a_figure(tmp_path):
    done = benchmark("only=growth", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    run, results = written(tmp_path)
    assert {path.name for path in run.iterdir()} >= {"benchmark.json", "growth.png", "jobs.log"}
    assert not (run / "scratch").exists()
    assert results["command"].startswith("python -m cxrnet.benchmark images=24")
    assert results["machine"]["device"] == "cpu"
    growth = results["groups"]["growth"]
    assert growth["jobs"]["set-up of 24 images"]["median"]["images"] == 24
    assert all(ratio["value"] > 0 for ratio in growth["ratios"])
    assert f"outputs/benchmarks/{run.name}/benchmark.json" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_stays_when_it_is_stopped_and_no_process_is_left(tmp_path, number):
    command = [sys.executable, "-m", "cxrnet.benchmark", *SMALL, "only=growth"]
    # A group of its own, so that the signal reaches the command alone.
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A shell ignores SIGINT for jobs in the background; a person's terminal doesn't.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as running:  # fmt: skip
        while not any("== manifest" in log.read_text() for log in tmp_path.glob("outputs/benchmarks/*/jobs.log")):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert said.startswith("stopped; what was finished stays in '")
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)
    run, results = written(tmp_path)
    jobs = results["groups"]["growth"]["jobs"]
    assert jobs["manifest"]["median"]["rows"] == 1000
    assert jobs["set-up of 24 images"]["repeats"] == []
    assert not (run / "scratch").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("only=[fast]", "only: 'fast' is no group; give some of frozen, "),
        ("overrides=['data.num_worker=4']", "overrides: data.num_worker: no such key; did you mean data.num_workers?"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_done(tmp_path, word, said):
    done = benchmark(word, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("outputs/benchmarks/*/jobs.log"))


@pytest.mark.slow
def test_all_groups_measure_every_contender_that_is_installed(tmp_path):
    done = benchmark(folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    run, results = written(tmp_path)
    assert list(results["groups"]) == ["frozen", "train", "data", "predict", "startup", "growth"]
    for name, group in results["groups"].items():
        assert (run / f"{name}.png").is_file()
        for job, outcome in group["jobs"].items():
            assert outcome["repeats"] or outcome["missing"], job
            assert outcome["failed"] is None
        for ratio in group["ratios"]:
            assert ratio["value"] is not None or any(it in ratio["name"] for it in ("Keras", "timm's benchmark.py"))
