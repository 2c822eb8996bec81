"""The jobs of a sweep as they are read from their folders, and their leaderboard."""

import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from cxrnet.core.atomic import write_json
from cxrnet.errors import CxrnetError
from cxrnet.reporting.leaderboard import best_job, by_configuration, leaderboard, ranked, sweep_page
from cxrnet.workflows.sweep import read_jobs


@pytest.fixture
def job(tmp_path):
    """``job(number, *overrides, score=, status=, monitor=, error=)`` makes the folder of a job."""

    def make(number, *overrides, score=None, status="FINISHED", monitor="val/loss", error=None):
        folder = tmp_path / f"{number}_job"
        settings = {"hydra": {"job": {"num": number}, "overrides": {"task": list(overrides)}}}
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(settings, folder / ".hydra" / "hydra.yaml")
        if status is not None:
            write_json(folder / "run.json", {"status": status, "run_id": f"id{number}"})
            OmegaConf.save({"schedule": {"monitor": monitor}, "test": True}, folder / "config.yaml")
        if score is not None:
            phases = [
                {"name": "head", "kept": False, "kept_score": -1.0, "seconds": 1.0},
                {"name": "all", "kept": True, "kept_score": score, "seconds": 2.0},
            ]
            write_json(folder / "run_facts.json", {"phases": phases})
        if error is not None:
            (folder / "error.txt").write_text(error)

    return make


def test_jobs_are_ranked_by_the_kept_score_in_the_direction_of_their_metric(job, tmp_path):
    for number, score in ((10, 0.3), (9, 0.1), (2, 0.2)):
        job(number, f"seed={number}", "model=vgg16", score=score)
    jobs = read_jobs(tmp_path)
    assert [each.number for each in jobs] == [2, 9, 10]
    assert [each.name for each in ranked(jobs)] == ["seed=9", "seed=2", "seed=10"]
    assert leaderboard(jobs)["seconds"].tolist() == [3.0, 3.0, 3.0]


def test_a_metric_that_should_be_high_ranks_the_other_way(job, tmp_path):
    job(0, "a=0", score=0.7, monitor="val/accuracy")
    job(1, "a=1", score=0.9, monitor="val/accuracy")
    assert ranked(read_jobs(tmp_path))[0].score == 0.9


def test_the_best_job_is_of_the_configuration_that_is_best_over_its_seeds(job, tmp_path):
    scores = {("lr=1", "seed=0"): 0.10, ("lr=1", "seed=1"): 0.50, ("lr=2", "seed=0"): 0.21, ("lr=2", "seed=1"): 0.19}
    for number, (overrides, score) in enumerate(scores.items()):
        job(number, *overrides, score=score)
    jobs = read_jobs(tmp_path)
    means = by_configuration(jobs)
    assert means["configuration"].tolist() == ["lr=2", "lr=1"]
    assert means["mean"].tolist() == pytest.approx([0.2, 0.3])
    assert means["sd"].iloc[0] == pytest.approx(0.01 * 2**0.5)
    assert best_job(jobs).name == "lr=2 seed=1"
    page = sweep_page(jobs, [], "python")
    assert page.startswith("Best job: lr=2 seed=1, val/loss 0.1900; lr=2 has the best mean, 0.2000 over 2 seeds.")
    assert "Mean over seeds" in page


def test_jobs_that_failed_stand_behind_the_others_with_the_reason(job, tmp_path):
    job(0, "model=b", status="FAILED", error="Traceback\n  some file\nValueError: too hot\n")
    job(1, "model=c", status=None)
    job(2, "model=a", score=0.5)
    board = leaderboard(read_jobs(tmp_path))
    assert board["job"].tolist() == ["model=a", "model=b", "model=c"]
    assert board["rank"].tolist()[0] == 1
    assert board["rank"].isna().sum() == 2
    assert board["reason"].tolist()[1] == "ValueError: too hot"


def test_jobs_of_different_metrics_have_no_rank_and_no_best(job, tmp_path):
    job(0, "a=0", score=0.7, monitor="val/accuracy")
    job(1, "a=1", score=0.1, monitor="val/loss")
    jobs = read_jobs(tmp_path)
    assert best_job(jobs) is None
    assert leaderboard(jobs)["rank"].isna().all()


def test_a_folder_that_is_none_of_a_job_is_refused(job, tmp_path):
    job(0, "a=0", score=0.7)
    (tmp_path / "0_job" / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": {}}))
    with pytest.raises(CxrnetError, match=r"hydra\.yaml"):
        read_jobs(tmp_path)


def test_nothing_heavy_is_imported_where_hydra_looks_for_sweepers():
    heavy = "{'torch', 'pandas', 'sklearn', 'matplotlib', 'mlflow'}"
    code = f"import sys, hydra_plugins.cxrnet_plugins; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
