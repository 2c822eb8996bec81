"""What is known of a run: its record, its lock, and its files in a real store."""

import shutil

import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import load_bundle
from cxrnet.tracking.record import alone_in, fetch_files, fetch_run, finished_runs, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.store import opened


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
    with opened(uri, make=False) as client:
        assert finished_runs(client, "search") == [parent.run_id, second.run_id]


def test_files_are_fetched_as_far_as_they_are_there_from_where_runs_have_them_or_had_them_before(
    tracked, uri, client, tmp_path
):
    with tracked() as run:
        (run.folder / "a.csv").write_text("now")
        (run.folder / "b.csv").write_text("before")
        run.log_artifact(run.folder / "a.csv")
    client.log_artifact(run.run_id, run.folder / "b.csv")
    with opened(uri, make=False) as reader:
        fetch_files(reader, run.run_id, ("a.csv", "b.csv", "c.csv", "d.parquet"), tmp_path / "copy")
    found = {file.name: file.read_text() for file in (tmp_path / "copy").iterdir() if file.is_file()}
    assert found == {"a.csv": "now", "b.csv": "before"}


def test_an_experiment_that_is_not_there_is_told_and_not_made(uri):
    with opened(uri, make=False) as client:
        with pytest.raises(CxrnetError, match=r"mlflow_experiment: MLflow has no 'nowhere'; it has .*first"):
            finished_runs(client, "nowhere")
        assert client.get_experiment_by_name("nowhere") is None


def test_a_store_that_is_not_there_is_told_and_not_made(tmp_path):
    store = opened(f"sqlite:///{tmp_path}/mlflow.db", make=False)
    with pytest.raises(CxrnetError, match="there is no MLflow at 'sqlite:"), store:
        pass
    assert not list(tmp_path.iterdir())


def test_what_mlflow_refuses_is_one_line(uri):
    with pytest.raises(CxrnetError, match=r"cannot be read: .*Run with id=f"), opened(uri, make=False) as client:
        client.get_run("f" * 32)


@pytest.fixture(params=["a file", "a server"])
def finished(request, uri, make_bundle, tmp_path) -> tuple[str, str]:
    """A run with a bundle and a table: the address of its store, and its id."""
    store = uri if request.param == "a file" else request.getfixturevalue("server").uri
    with track(tmp_path / "run", store, "runs", tmp_path) as run:
        pd.DataFrame({"a": [1]}).to_parquet(run.folder / "manifest.parquet")
        run.log_results(run.folder)
        run.log_bundle(make_bundle(run.folder), ("a", "b"))
    return store, run.run_id


def test_a_run_that_is_on_this_machine_is_its_own_folder_and_else_comes_from_mlflow(finished, tmp_path):
    scratch = tmp_path / "scratch"
    assert fetch_run(*finished, scratch) == tmp_path / "run"
    assert not scratch.exists()
    wrote = (tmp_path / "run" / "bundle" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run")
    scratch.mkdir()
    assert fetch_run(*finished, scratch) == scratch
    assert load_bundle(scratch / "bundle").classes == ("a", "b")
    assert (scratch / "bundle" / "model.safetensors").read_bytes() == wrote
    assert pd.read_parquet(scratch / "manifest.parquet")["a"].tolist() == [1]
    assert not (scratch / "predictions.parquet").exists()


def test_a_run_without_a_bundle_and_a_run_that_is_none(tracked, uri, tmp_path):
    with tracked() as run:
        pass
    with pytest.raises(CxrnetError, match=f"bundle: MLflow run '{run.run_id}' has no bundle; give a run of cxrnet"):
        fetch_run(uri, run.run_id, tmp_path / "scratch")
    with pytest.raises(CxrnetError, match=r"cannot be read: .*not found"):
        fetch_run(uri, "0" * 32, tmp_path / "scratch")


@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_where_there_is_no_record_it_is_empty(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert read_record(tmp_path) == {}


def test_a_folder_without_a_record_can_be_taken_too(tmp_path):
    message = "another process is at work on this run"
    with alone_in(tmp_path), pytest.raises(CxrnetError, match=message), alone_in(tmp_path):
        pytest.fail("two at a time")
    with alone_in(tmp_path):  # free again
        pass


def test_where_a_folder_cannot_be_locked_the_user_is_warned(tmp_path, monkeypatch, caplog):
    def refuse(*_arguments: object, **_settings: object) -> None:
        raise NotImplementedError("this file system has no locks")

    monkeypatch.setattr("cxrnet.tracking.record.FileLock.acquire", refuse)
    with alone_in(tmp_path):
        pass
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(tmp_path) in record.message
    assert "don't resume it while it still runs" in record.message
