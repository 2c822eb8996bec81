"""Comparisons of runs on disk and in a real MLflow store."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from cxrnet.cli.app import config_folder
from cxrnet.core.atomic import write_table
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.workflows.compare import compare_runs, labels_of
from cxrnet.workflows.finished_run import find_runs

FILES = {"comparison.html", "comparison.md", "comparison.tex", "leaderboard.csv", "metrics.csv", "tests.csv"}
FILES |= {"confusion_matrices.png", "roc_overlay.png"}


def table(seed: int, images: int = 40, split: str = "test") -> pd.DataFrame:
    labels = np.arange(images) % 2
    rows = pd.DataFrame({"image_id": [f"{split}/{i}" for i in range(images)], "path": "x", "split": split})
    rows = rows.assign(label=np.array(["Covid", "Normal"])[labels], source="invented", patient_id=rows["image_id"])
    logits = np.random.default_rng(seed).normal(np.eye(2)[labels], 1)
    return make_predictions(rows, ("Covid", "Normal"), logits.astype(np.float32))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Two runs in the MLflow experiment ``two``, and one in ``one``."""
    outputs = tmp_path_factory.mktemp("all outputs")
    uri = tracking_uri(None, outputs)
    for name, experiment in {"first": "two", "second": "two", "single": "one"}.items():
        folder = outputs / "runs" / name
        command = ["python", "-m", "cxrnet.train", f"model={name}"]
        with track(folder, uri, experiment, outputs, f"{name}_phantom", command) as run:
            write_table(table(len(name)), folder / "predictions.parquet")
            run.log_artifact(folder / "predictions.parquet")
            facts = folder / "run_facts.json"
            facts.write_text(json.dumps({"parameters": 10 * len(name), "command": command}))
            run.log_artifact(facts)
    return outputs


@pytest.fixture
def comparing(outputs, tmp_path, monkeypatch):
    """Calls it as the command does."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*overrides: str):
        with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
            config = compose(
                "compare", [f"outputs='{outputs}'", "resamples=100", "metrics=[accuracy,brier]", *overrides]
            )
        (tmp_path / "comparison").mkdir(exist_ok=True)  # as Hydra does
        compare_runs(config, tmp_path / "comparison", ["python"])
        return tmp_path / "comparison"

    return call


@pytest.fixture
def client(outputs):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri(None, outputs))


def test_the_runs_of_an_experiment_point_to_the_comparison_that_holds_the_files(
    comparing, client, logged_files, capsys
):
    folder = comparing("mlflow_experiment=two")
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    assert {Path(file).name for file in logged_files(client, run_id)} == FILES
    experiment = client.get_experiment_by_name("two").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    compared = [runs.pop(f"{name}_phantom") for name in ("first", "second")]
    assert {run.data.tags["cxrnet.compared_in"] for run in compared} == {run_id}
    (own,) = runs.values()
    assert (own.info.run_id, own.info.run_name, own.info.status) == (run_id, "comparison", "FINISHED")
    assert own.data.tags["cxrnet.compares"] == ", ".join(run.info.run_id for run in compared)
    assert own.data.params["resamples"] == "100"
    assert own.data.params["place.1"] in ("model=first", "model=second")
    assert own.data.tags["mlflow.note.content"].startswith(f"{own.data.params['place.1']} is the best by")
    board = pd.read_csv(folder / "leaderboard.csv")
    assert dict(zip(board["run"], board["parameters"], strict=True)) == {"model=first": 50, "model=second": 60}
    said = capsys.readouterr().out
    assert "model=first: MLflow run " in said
    assert f"run {run_id}" in said


def test_values_and_p_values_are_metrics_of_the_comparison(comparing, client):
    folder = comparing("mlflow_experiment=two", "tracking.experiment=values", "tracking.system_metrics=true")
    metrics = client.get_run(json.loads((folder / "run.json").read_text())["run_id"]).data.metrics
    assert "system/cpu_utilization_percentage" in metrics
    board = pd.read_csv(folder / "leaderboard.csv").set_index("run")
    for run, label in (("model=first", "model_first"), ("model=second", "model_second")):
        for name in ("accuracy", "accuracy_low", "ece", "roc_auc_weighted", "sensitivity_Covid_high"):
            key = re.sub(r"_(low|high)$", r"/ci_\1", name)
            assert metrics[f"{key}/{label}"] == pytest.approx(board[name][run])
    (test,) = pd.read_csv(folder / "tests.csv").query("metric == 'accuracy'").to_dict("records")
    pair = " against ".join(test[side].replace("=", "_") for side in "ab")
    assert metrics[f"p/accuracy/{pair}"] == pytest.approx(test["p"])
    assert metrics[f"p_holm/accuracy/{pair}"] == pytest.approx(test["p_holm"])
    assert {name.rpartition("/")[0] for name in metrics if " against " in name} == {
        f"{p}/{metric}" for p in ("p", "p_holm") for metric in ("accuracy", "brier")
    }


def test_an_ece_has_the_bins_that_were_asked_for(comparing, outputs):
    folder = comparing(f"sweep='{outputs / 'runs'}'", "tracking=none", "bins=7")
    values = pd.read_csv(folder / "metrics.csv").set_index(["run", "metric"])["value"]
    assert values["model=first", "ece"] == pytest.approx(evaluate(table(len("first")), bins=7)["ece"]["value"])
    assert "ECE in 7 bins." in (folder / "comparison.md").read_text(encoding="utf-8")


def test_names_that_mlflow_does_not_take_are_changed_and_stay_apart():
    assert labels_of(["a=1", "a/../b (here)"]) == {"a=1": "a_1", "a/../b (here)": "a_.._b _here_"}
    assert list(labels_of(["x" * 100 + "1", "x" * 100 + "2"]).values()) == ["x" * 80 + " 1", "x" * 80 + " 2"]


def test_run_ids_and_folders_may_be_mixed(comparing, client, outputs):
    first, second = (json.loads((outputs / "runs" / name / "run.json").read_text()) for name in ("first", "second"))
    folder = comparing(f"runs=['{first['run_dir']}',{second['run_id']}]", "tracking.experiment=comparisons")
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    for compared in (first, second):
        assert client.get_run(compared["run_id"]).data.tags["cxrnet.compared_in"] == run_id
    assert client.get_experiment(client.get_run(run_id).info.experiment_id).name == "comparisons"


def test_validation_images_are_called_so(comparing, tmp_path, capsys):
    for seed in (0, 1):
        write_table(table(seed, split="val"), tmp_path / f"{seed}.csv")
    folder = comparing(f"runs=['{tmp_path / '0.csv'}','{tmp_path / '1.csv'}']", "tracking=none")
    assert "these are validation images" in capsys.readouterr().out
    assert set(pd.read_csv(folder / "leaderboard.csv")["split"]) == {"val"}


def test_what_cannot_be_compared_leaves_no_run_behind(comparing, client, outputs, tmp_path):
    write_table(table(0, images=38), tmp_path / "fewer.csv")
    before = len(client.search_runs(["1", "2", "3"]))
    of_two, first = "mlflow_experiment=two", outputs / "runs" / "first"
    for words, said in {
        (f"runs=['{first}','{tmp_path / 'fewer.csv'}']",): "are tested on different images: 2 of the 40 images",
        ("mlflow_experiment=one",): "experiment: 1 run with predictions found",
        ("mlflow_experiment=three",): "experiment: MLflow has no 'three'; it has .*one, two",
        (of_two, "metrics=[charm]"): "metrics: 'charm' is no metric; the metrics are accuracy, ",
    }.items():
        with pytest.raises(CxrnetError, match=said):
            comparing(*words)
    assert len(client.search_runs(["1", "2", "3"])) == before
    assert not (tmp_path / "comparison" / "comparison.html").exists()


@pytest.fixture
def sweep(tmp_path):
    """Three jobs: two have predictions, one of them with folds of its own; one has failed."""
    for place in ("0_a", "1_b", "1_b/seed0_fold1of3", "no run"):
        write_table(table(0, images=2), tmp_path / place / "predictions.parquet")
    (tmp_path / "no run" / "predictions.parquet").unlink()
    (tmp_path / "2_c").mkdir()
    (tmp_path / "2_c" / "run.json").write_text("{}")
    return tmp_path


def found(**config) -> list[str]:
    return [run.name for run in find_runs({"runs": None, "mlflow_experiment": None, "sweep": None, **config}, None)]


def test_the_jobs_of_a_sweep_without_their_folds_and_without_what_failed(sweep, capsys):
    assert found(sweep=str(sweep)) == ["0_a", "1_b"]
    said = capsys.readouterr().out
    assert "2_c, which has no predictions" in said
    assert "no run" not in said
    assert found(runs=[str(sweep / "1_b"), str(sweep / "0_a" / "predictions.parquet")]) == ["1_b", "0_a"]
    with pytest.raises(CxrnetError, match="sweep: 0 runs with predictions found"):
        found(sweep=str(sweep / "no run"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, r"runs: nothing to compare; give one of runs=\[...\], mlflow_experiment=<name>, sweep="),
        ({"runs": ["a", "b"], "sweep": "c"}, "runs: too much to compare; give one of"),
        ({"runs": "a"}, r"runs: 'a' is no list; give runs=\[<one>,<another>\]"),
        ({"runs": []}, "runs: 0 runs with predictions found; a comparison needs at least two"),
        ({"sweep": "nowhere"}, "sweep: 'nowhere' is not a folder"),
        ({"runs": ["nowhere", "b"]}, "runs: 'nowhere' is neither a folder, a file nor an MLflow run id"),
        ({"runs": ["a" * 32, "b"]}, "is a run id, and tracking=none knows of none"),
        ({"mlflow_experiment": "e"}, "mlflow_experiment: tracking=none knows of none"),
    ],
)
def test_a_mistake_is_one_line(config, words):
    with pytest.raises(CxrnetError, match=words):
        found(**config)
