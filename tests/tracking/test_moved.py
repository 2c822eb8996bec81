"""A project folder that was renamed, with its database."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cxrnet.models.bundle import load_bundle
from cxrnet.tracking.read import fetch_run
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri


@pytest.fixture
def project(outputs, tmp_path, make_bundle):
    """A project with one run and its model: the folder of its outputs."""
    folder = tmp_path / "my project" / "outputs"
    folder.mkdir(parents=True)
    (outputs / "mlflow-artifacts").mkdir(exist_ok=True)  # of other tests, whose experiments are in the database
    shutil.copy(outputs / "mlflow.db", folder)
    with track(folder / "runs" / "one", tracking_uri(None, folder), "of the project", folder) as run:
        (run.folder / "a.txt").write_text("first")
        run.log_artifact(run.folder / "a.txt")
        run.log_bundle(make_bundle(run.folder), ("a", "b"))
    return folder


def places(outputs):
    with sqlite3.connect(outputs / "mlflow.db") as database:
        return [
            place
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
            )
            for (place,) in database.execute(f"select {column} from {table}")
        ]


def test_artifacts_are_found_where_the_folder_is_now(project, tmp_path, caplog):
    old = project.as_uri()
    project.parent.rename(tmp_path / "renamed")
    outputs = tmp_path / "renamed" / "outputs"
    uri = tracking_uri(None, outputs)
    with track(outputs / "runs" / "two", uri, "of the project", outputs) as second:
        (second.folder / "a.txt").write_text("second")
        second.log_artifact(second.folder / "a.txt")
    assert caplog.text.count("which is gone; from now on in") == 1
    assert not (tmp_path / "my project").exists()
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("of the project").experiment_id])
    files = [Path(client.download_artifacts(run.info.run_id, "a.txt")) for run in runs]
    assert sorted(file.read_text() for file in files) == ["first", "second"]
    assert not [place for place in places(outputs) if place.startswith(f"{old}/mlflow-artifacts")]
    with track(outputs / "runs" / "three", uri, "of the project", outputs):
        pass
    assert caplog.text.count("which is gone") == 1


def test_an_old_model_is_found_when_it_is_read(project, tmp_path):
    project.parent.rename(tmp_path / "renamed")
    outputs = tmp_path / "renamed" / "outputs"
    uri = tracking_uri(None, outputs)
    experiment = MlflowClient(uri).get_experiment_by_name("of the project")
    (run,) = MlflowClient(uri).search_runs([experiment.experiment_id])
    shutil.rmtree(outputs / "runs")
    (tmp_path / "scratch").mkdir()
    assert load_bundle(fetch_run(uri, run.info.run_id, tmp_path / "scratch") / "bundle").classes == ("a", "b")


@pytest.mark.parametrize("case", ["copied", "not mounted"])
def test_a_place_that_is_or_may_be_still_there_stays(project, tmp_path, case):
    outputs = tmp_path / "another" / "outputs"
    if case == "copied":
        shutil.copytree(project, outputs)
    else:  # the artifacts were on another disk, and those beside the database are of other runs
        (outputs / "mlflow-artifacts" / "0123").mkdir(parents=True)
        shutil.copy(project / "mlflow.db", outputs)
        shutil.rmtree(project)
    before = places(outputs)
    with track(outputs / "runs" / "two", tracking_uri(None, outputs), "another", outputs):
        pass
    assert [place for place in before if place not in places(outputs)] == []
