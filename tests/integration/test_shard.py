"""``python -m cxrnet.shard`` as a user types it, and what can be done with what it writes."""

import html
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrnet.data.images.store import load_images

SMALL = ("data.size=[32,24]", "model=custom_cnn", "trainer=cpu", "schedule.max_epochs=2", "tracking=none")


@pytest.fixture(scope="module")
def place(tmp_path_factory, draw) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    draw(folder / "my xrays")
    return folder


@pytest.fixture(scope="module")
def said(place, command) -> str:
    words = ("data=folder", "data.root=my xrays", "shards=written", "data.size=[32,24]", "per_shard=5")
    done = command(place, "shard", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def runs(place, said, command) -> tuple[Path, Path]:
    """A run on the folder, and one on its shards with another number of workers, by the line that was printed."""
    python, module, *line = shlex.split(said.strip().splitlines()[-1])
    assert (python, module) == ("python", "-m")
    on_files = ("data=folder", "data.root=my xrays", "hydra.run.dir=on_files")
    on_shards = (*line[1:], "data.num_workers=2", "hydra.run.dir=on_shards")
    torch.set_num_threads(1)
    for words in (on_files, on_shards):
        done = command(place, line[0].removeprefix("cxrnet."), *words, *SMALL)
        assert done.returncode == 0, done.stderr
    return place / "on_files", place / "on_shards"


def test_it_says_what_was_written(place, said):
    for text in ("images       36, 32 x 24 pixels (stretch)", "shards       8, ", "images/s", str(place / "written")):
        assert text in said


def test_predictions_and_metrics_are_bitwise_those_of_the_folder(runs):
    first, second = (pd.read_parquet(run / "predictions.parquet").drop(columns="path") for run in runs)
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    for name in ("metrics.json", "history.csv"):
        if (runs[0] / name).exists():
            assert strip(runs[0] / name) == strip(runs[1] / name), name
    manifests = (pd.read_parquet(run / "manifest.parquet").drop(columns="path") for run in runs)
    pd.testing.assert_frame_equal(*manifests)


def strip(file: Path) -> object:
    """What a file says, without the seconds that anything took."""
    if file.suffix == ".csv":
        table = pd.read_csv(file)
        return table.drop(columns=[name for name in table if "second" in name or "time" in name]).to_csv()
    return file.read_text()


def test_a_bundle_of_shards_predicts_and_finds_its_images_elsewhere(runs, place, command):
    done = command(place, "predict", "bundle=on_shards/bundle", "input=my xrays", "output=predicted.csv")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(place / "predicted.csv")) == 36
    for number, data in enumerate((("data=folder", "data.root=my xrays"), ("data=shards", "data.root=written"))):
        done = command(
            place, "evaluate", "bundle=on_shards", *data, "tracking=none", f"hydra.run.dir=elsewhere{number}"
        )
        assert done.returncode == 2
        assert "no image is left (36 of 36 images are duplicates of images of the bundle's run)" in done.stderr


def test_a_bundle_is_evaluated_on_shards(place, runs, draw, command):
    draw(place / "north", seed=1)
    words = ("data=folder", "data.root=north", "shards=north_shards", "data.size=[32,24]", "per_shard=7")
    assert command(place, "shard", *words).returncode == 0
    tables = []
    for name, data in (("f", ("folder", "north")), ("s", ("shards", "north_shards"))):
        words = (f"data={data[0]}", f"data.root={data[1]}", "tracking=none", f"hydra.run.dir=evaluated_{name}")
        done = command(place, "evaluate", "bundle=on_files", *words)
        assert done.returncode == 0, done.stderr
        (file,) = (place / f"evaluated_{name}").rglob("predictions.parquet")
        tables.append(pd.read_parquet(file).drop(columns="path"))
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_shards_are_looked_at_as_a_folder_is(place, said, command):
    words = ("data=shards", "data.root=written", "data.size=[32,24]", "hydra.run.dir=looked")
    done = command(place, "prepare", *words)
    assert done.returncode == 0, done.stderr
    assert (place / "looked" / "samples.png").is_file()
    page = (place / "looked" / "data_report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") >= 36  # from the shards, as there are no files
    assert "Not known: the files aren't there, as of images in shards." in html.unescape(page)
    images, _ = load_images(pd.read_parquet(place / "looked" / "manifest.parquet"), (64, 64), "stretch", "fail")
    assert len(images) == 36


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "data=shards", "data.root=my xrays"), "error: data.root: '{}/my xrays' has no shards.json"),
        (
            ("train", "data=shards", "data.root=written"),
            "error: data.size: the shards in '{}/written' hold images of 32",
        ),
        (("train", "data=shards"), "error: data.root: no value is set; give data.root=<value>"),
        (("train", "data=folder", "data.root=my xrays", "data.window=3"), "error: data.window: is of shards"),
        (("shard", "data=folder", "data.root=my xrays"), "error: shards: no value is set; give shards=<value>"),
        (("shard", "data=folder", "data.root=my xrays", "shards=my xrays"), "is not empty and holds no shards"),
        (
            ("shard", "data=folder", "data.root=my xrays", "shards=x", "data.limit=3"),
            "error: data.limit: shards hold all",
        ),
        (
            ("shard", "data=folder", "data.root=my xrays", "shards=x", "per_shard=0"),
            "error: per_shard: 0 is out of range",
        ),
        (("shard", "data=shards", "data.root=written", "shards=x"), "these images are in shards already"),
        (
            ("shard", "data=folder", "data.root=my xrays", "shards=s3://x", "cache=null"),
            "error: cache: null, but shards",
        ),
        (
            ("shard", "-m", "data=folder", "data.root=my xrays", "shards=x"),
            "error: -m: this command has no folder for several",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(place, said, command, words, message):
    done = command(place, *words)
    assert done.returncode == 2
    assert message.format(place) in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (place / "x").exists()


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(place, said):
    """SIGKILL as soon as the second shard is noted; many small ones, so that others are left."""
    words = [
        sys.executable,
        "-m",
        "cxrnet.shard",
        "data=folder",
        "data.root=my xrays",
        "data.size=[32,24]",
        "per_shard=1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("killed", "whole"):
        process = subprocess.Popen([*words, f"shards={name}"], cwd=place, env=environment, stdout=subprocess.DEVNULL)
        if name == "killed":
            until = time.monotonic() + 120
            while not (place / name / "parts" / "00001.npz").exists() and time.monotonic() < until:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (place / name / "shards.json").exists()
            done = subprocess.run(
                [*words, "shards=killed"], cwd=place, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            assert "of them now" in done.stdout
        else:
            assert process.wait() == 0
    killed, whole = (
        {p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file() and p.suffix != ".partial"}
        for r in (place / "killed", place / "whole")
    )
    assert killed == whole
    assert len(np.unique([str(path) for path in whole])) == 36 * 3 + 6
