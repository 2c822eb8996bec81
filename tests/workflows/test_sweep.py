"""The report of a sweep, on folders as Hydra leaves them."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from cxrnet.core.atomic import write_table
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.workflows.sweep import REPORTS, job_names, report_sweep


def predictions(splits=("val", "test"), images: int = 8) -> pd.DataFrame:
    labels = ["Covid", "Normal"] * (images // 2)
    parts = [
        pd.DataFrame(
            {
                "image_id": [f"{split}/{i}" for i in range(images)],
                "path": "x.png",
                "label": labels,
                "split": split,
                "source": "invented",
                "patient_id": None,
            }
        )
        for split in splits
    ]
    rows = pd.concat(parts, ignore_index=True)
    logits = np.where(rows["label"].to_numpy()[:, None] == np.array([["Covid", "Normal"]]), 3, 0)
    return make_predictions(rows, ("Covid", "Normal"), logits.astype(np.float32))


@pytest.fixture
def job(tmp_path):
    def make(number: int, *overrides: str, table: pd.DataFrame | None = None, error: str | None = None) -> None:
        folder = tmp_path / f"{number}_job"
        settings = {"hydra": {"job": {"num": number}, "overrides": {"task": list(overrides)}}}
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(settings, folder / ".hydra" / "hydra.yaml")
        if table is not None:
            write_table(table, folder / "predictions.parquet")
        if error is not None:
            (folder / "error.txt").write_text(error)

    return make


def test_jobs_stand_side_by_side_in_their_order(job, tmp_path, capsys):
    for number in (10, 9, 2):
        job(number, f"seed={number}", "model=vgg16", table=predictions())
    report_sweep(tmp_path)
    text = (tmp_path / REPORTS).read_text()
    assert text.splitlines()[0].split() == ["seed=2", "seed=9", "seed=10"]
    assert text.count("test 8") == 3
    said = capsys.readouterr().out
    assert text in said
    assert REPORTS in said


def test_without_a_test_split_val_is_shown(job, tmp_path):
    job(0, "seed=0", table=predictions(splits=("val",)))
    job(1, "seed=1", table=predictions())
    report_sweep(tmp_path)
    text = (tmp_path / REPORTS).read_text()
    assert "val 8: seed=0" in text
    assert "test 8: seed=1" in text


def test_jobs_that_failed_are_named_with_the_reason(job, tmp_path):
    job(0, "model=a", table=predictions())
    job(1, "model=b", error="Traceback\n  some file\nValueError: too hot\n")
    job(2, "model=c")
    report_sweep(tmp_path)
    lines = (tmp_path / REPORTS).read_text().splitlines()
    assert lines[-2] == "no result: model=b (ValueError: too hot)"
    assert lines[-1].startswith("no result: model=c (see ")


def test_a_sweep_of_which_no_job_came_through_has_no_report(job, tmp_path, capsys):
    job(0, "model=a", error="wrong")
    report_sweep(tmp_path)
    assert not (tmp_path / REPORTS).exists()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ((["model=a", "x=1"], ["model=b", "x=1"]), ["model=a", "model=b"]),
        ((["+optimizer.lr=1"], ["+optimizer.lr=2"]), ["lr=1", "lr=2"]),
        ((["a.lr=1", "b.lr=2"], ["a.lr=2", "b.lr=1"]), ["a.lr=1 b.lr=2", "a.lr=2 b.lr=1"]),
        ((["seed=0"],), ["job 0"]),
        ((["seed=0"], ["seed=0"]), ["job 0", "job 1"]),
        ((["folds=5"], []), ["folds=5", "job 1"]),
    ],
)
def test_a_job_is_named_by_what_tells_it_from_the_others(overrides, names):
    assert job_names(overrides) == names


def test_nothing_heavy_is_imported_before_a_sweep_begins():
    heavy = "{'torch', 'pandas', 'sklearn', 'matplotlib'}"
    code = f"import sys, cxrnet.workflows.sweep; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
