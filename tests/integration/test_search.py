"""Real searches: the better of two rates, a trial that is pruned, a search that is killed, two that share a study."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

SMALL = ["model=custom_cnn", "trainer=debug", "data.size=[32,32]", "data.manifest.images=48"]
SEARCH = ["-m", "hydra/sweeper=optuna", *SMALL]
RATE = "schedule.scratch.lr"
CHILDREN = """
select r.run_uuid, r.status, t.value from runs r
left join tags t on t.run_uuid = r.run_uuid and t.key = 'mlflow.parentRunId' order by r.start_time
"""


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize(("sampler", "trials"), [("grid", 2), pytest.param("tpe", 4, marks=pytest.mark.slow)])
def test_a_search_finds_the_better_of_two_rates(tmp_path, command, sampler, trials):
    words = [f"{RATE}=choice(1e-3,10)", f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=4"]
    done = command(tmp_path, "train", *SEARCH, *words, "tracking=none", "hydra.sweep.dir=outputs/s")
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "s"
    tried = rows(sweep / "trials.csv")
    assert [row["trial"] for row in tried] == [row["job"] for row in tried] == [*map(str, range(trials))]
    assert {row[RATE] for row in tried} == {"0.001", "10"}
    assert {row["state"] for row in tried} == {"complete"}
    (best, *_) = rows(sweep / "leaderboard.csv")
    assert best["job"].endswith("lr=0.001")
    assert (sweep / "best").resolve().name == best["folder"]
    assert {"search_history.png", "search_importance.png"} <= {path.name for path in sweep.iterdir()}
    # The best alone is tested, and has what the others left out.
    reports = {path.parent.name for path in sweep.glob("*_custom_cnn_phantom/report.html")}
    assert reports == {best["folder"]}
    assert "report, model card and the bundle in MLflow are left out" in done.stdout


def journal(file: Path, name: str) -> optuna.Study:
    return optuna.create_study(storage=JournalStorage(JournalFileBackend(str(file))), study_name=name)


def test_a_pruned_trial_is_no_failure(tmp_path, command, query):
    """Five trials with which it can't keep up are in the study already."""
    study = journal(tmp_path / "shared", "rates")
    for _ in range(5):
        space = {RATE: optuna.distributions.FloatDistribution(1e-4, 1e-2)}
        study.add_trial(
            optuna.create_trial(
                value=0.0, params={RATE: 1e-3}, distributions=space, intermediate_values={1: 0.0, 2: 0.0}
            )
        )
    words = [f"{RATE}=interval(1e-4,1e-2)", "schedule.max_epochs=2", "hydra.sweeper.pruner=median"]
    words += ["hydra.sweeper.storage=shared", "hydra.sweeper.study_name=rates", "hydra.sweeper.n_trials=1"]
    done = command(tmp_path, "train", *SEARCH, *words, "hydra.sweep.dir=outputs/s")
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "s"
    (row,) = rows(sweep / "leaderboard.csv")
    assert row["status"] == "PRUNED"
    assert row["reason"].startswith("pruned at epoch 1, val/loss ")
    assert row["rank"] == ""
    record = json.loads((sweep / row["folder"] / "run.json").read_text())
    assert (record["status"], record["pruned"]) == ("PRUNED", row["reason"])
    tags = dict(query(tmp_path, f"select key, value from tags where run_uuid = '{row['run_id']}'"))
    assert tags["cxrnet.pruned"] == row["reason"]
    assert [status for _, status, _ in query(tmp_path, CHILDREN)] == ["FINISHED", "FINISHED"]
    # The epoch that it was pruned at is in MLflow too.
    steps = query(tmp_path, f"select step from metrics where run_uuid = '{row['run_id']}' and key = 'val/loss'")
    assert steps == [(1,)]
    assert journal_trials(tmp_path / "shared", "rates")[-1].state.name == "PRUNED"


def journal_trials(file: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(storage=JournalStorage(JournalFileBackend(str(file))), study_name=name).trials


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["OMP_NUM_THREADS"] = "1"
    line = [sys.executable, "-m", "cxrnet.train", *words]
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_search_goes_on_with_no_trial_twice(tmp_path, query):
    words = [*SEARCH, f"{RATE}=tag(log,interval(1e-4,1e-2))", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=outputs/s"]
    sweep = tmp_path / "outputs" / "s"
    with start(tmp_path, *words) as running:
        for _ in range(1200):
            if (sweep / "1_custom_cnn_phantom" / "config.yaml").exists() or running.poll() is not None:
                break
            time.sleep(0.1)
        running.send_signal(signal.SIGKILL)
    before = journal_trials(sweep / "study.journal", "search")
    assert [trial.state.name for trial in before] == ["COMPLETE", "RUNNING"]
    with start(tmp_path, "resume=outputs/s") as resumed:
        _, said = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, said
    after = journal_trials(sweep / "study.journal", "search")
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 3
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before]
    (parent, *children) = query(tmp_path, CHILDREN)
    assert [child[1:] for child in children] == [("FINISHED", parent[0])] * 3
    assert len(rows(sweep / "leaderboard.csv")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["study", "sqlite:///study.db"])
def test_two_commands_share_a_study(tmp_path, storage):
    words = [*SEARCH, f"{RATE}=tag(log,interval(1e-4,1e-2))", "hydra.sweeper.n_trials=2", "tracking=none"]
    words += [f"hydra.sweeper.storage='{storage}'", "hydra.sweeper.study_name=rates"]
    running = [start(tmp_path, *words, f"hydra.sweep.dir=outputs/{name}") for name in ("a", "b")]
    for each in running:
        _, said = each.communicate(timeout=300)
        assert each.returncode == 0, said
    asked = [json.loads((tmp_path / "outputs" / name / "search.json").read_text())["trials"] for name in ("a", "b")]
    assert sorted([*asked[0], *asked[1]]) == [0, 1, 2, 3]
    tried = rows(tmp_path / "outputs" / "a" / "trials.csv") + rows(tmp_path / "outputs" / "b" / "trials.csv")
    assert len({row[RATE] for row in tried}) == 4


@pytest.mark.slow
def test_trials_at_once_are_all_told(tmp_path):
    words = [*SEARCH, f"{RATE}=tag(log,interval(1e-4,1e-2))", "hydra.sweeper.n_trials=4", "tracking=none"]
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2", "hydra.sweep.dir=outputs/s"]
    with start(tmp_path, *words) as running:
        _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert [row["state"] for row in rows(tmp_path / "outputs" / "s" / "trials.csv")] == ["complete"] * 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([f"{RATE}=1e-3"], "nothing to search; give a key several"),
        ([f"{RATE}=interval(1,1)", "seed=0,1"], f"{RATE}=interval(1,1): has one value; give the key as key=value"),
        ([f"{RATE}=1,2", "schedule.monitor=val/luck"], "schedule.monitor: 'val/luck' is no logged metric"),
        ([f"{RATE}=1,2", "hydra.sweeper.sampler=cmaes"], "hydra.sweeper.sampler: cmaes"),
        ([f"{RATE}=1,2", "hydra.sweeper.pruner=never"], "hydra.sweeper.pruner: never"),
        ([f"{RATE}=1,2", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: 0"),
        ([f"{RATE}=1,2", "test=true"], "test: true, but a search tests the best of its trials alone"),
        ([f"{RATE}=1,2", "folds=5"], "folds: a search ranks trials by one validation split"),
        (["schedule.scratch.rate=1,2"], "schedule.scratch.rate: no such key"),
        (["hydra/sweeper=grid", f"{RATE}=interval(1,2)"], "a grid has no interval; to search it: hydra/sweeper=optuna"),
        (["+search=head"], "schedule.head.solver: has no effect, as the weights are random, and schedule.scratch"),
    ],
)
def test_what_cannot_be_searched_is_one_line(tmp_path, command, words, said):
    done = command(tmp_path, "train", *SEARCH, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("outputs/sweeps/*/*"))


def test_a_study_of_another_space_is_one_line_and_leaves_no_folder(tmp_path, command):
    journal(tmp_path / "shared", "rates").set_user_attr("space", {"model.dropout": "interval(0,1)"})
    words = [f"{RATE}=interval(1e-4,1e-2)", "hydra.sweeper.storage=shared", "hydra.sweeper.study_name=rates"]
    done = command(tmp_path, "train", *SEARCH, *words, "tracking=none")
    assert done.returncode == 1
    assert "'rates' in " in done.stderr
    assert "is of another search, with space model.dropout=interval(0,1), not" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("outputs/sweeps/*"))


@pytest.mark.parametrize("word", ["hydra/sweeper=optuna", "+search=head"])
def test_one_run_is_no_search(tmp_path, command, word):
    done = command(tmp_path, "train", word, *SMALL)
    assert done.stderr == "error: hydra.sweeper: there is something to search, but this would be one run; add -m\n"


def test_a_sweep_that_is_no_search_is_not_resumed_as_one(tmp_path, command):
    folder = tmp_path / "grid"
    folder.mkdir()
    began = {"command": ["python", "-m", "cxrnet.train", "--multirun", *SMALL, f"{RATE}=1,2"], "status": "KILLED"}
    (folder / "run.json").write_text(json.dumps(began))
    done = command(tmp_path, "train", "resume=grid", "hydra/sweeper=optuna")
    assert f"resume: '{folder}' is no search (no search.json); leave hydra/sweeper=optuna out" in done.stderr
    (folder / "run.json").unlink()
    assert "'grid' holds no run" in command(tmp_path, "train", "resume=grid", "hydra/sweeper=optuna").stderr
