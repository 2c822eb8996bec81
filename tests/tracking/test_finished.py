"""Runs looked up in a real store."""

import pytest

from cxrnet.errors import CxrnetError
from cxrnet.tracking.read import fetch_files, finished_runs, reading, run_name


def test_finished_runs_are_found_and_parts_of_them_are_not(tracked, uri, tmp_path):
    with (
        tracked(experiment="search", name="parent") as parent,
        tracked(experiment="search", folder=tmp_path / "child", parent_run_id=parent.run_id),
    ):
        pass
    with tracked(experiment="search", folder=tmp_path / "second", name="second") as second:
        pass
    with pytest.raises(RuntimeError), tracked(experiment="search", folder=tmp_path / "failed"):
        raise RuntimeError
    with reading(uri) as client:
        assert finished_runs(client, "search") == [parent.run_id, second.run_id]
        assert run_name(client, second.run_id) == "second"


def test_files_are_fetched_as_far_as_they_are_there(tracked, uri, tmp_path):
    with tracked() as run:
        (run.folder / "a.txt").write_text("something")
        run.log_artifact(run.folder / "a.txt")
    with reading(uri) as client:
        fetch_files(client, run.run_id, ("a.txt", "b.txt"), tmp_path / "copy")
    assert [file.read_text() for file in (tmp_path / "copy").iterdir()] == ["something"]


def test_an_experiment_that_is_not_there_is_told_and_not_made(uri):
    with reading(uri) as client:
        with pytest.raises(CxrnetError, match=r"experiment: MLflow has no 'nowhere'; it has .*first"):
            finished_runs(client, "nowhere")
        assert client.get_experiment_by_name("nowhere") is None


def test_a_store_that_is_not_there_is_told_and_not_made(tmp_path):
    with pytest.raises(CxrnetError, match="there is no MLflow at 'sqlite:"), reading(f"sqlite:///{tmp_path}/mlflow.db"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_mlflow_refuses_is_one_line(uri):
    with pytest.raises(CxrnetError, match=r"cannot be read: .*Run with id=f"), reading(uri) as client:
        run_name(client, "f" * 32)
