"""Calls that did not reach MLflow, sent later."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxrnet.core.config import write_config
from cxrnet.errors import CxrnetError
from cxrnet.sync import _arguments
from cxrnet.tracking.outbox import Outbox
from cxrnet.tracking.record import alone_in, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.store import tracking_uri
from cxrnet.tracking.sync import recorded_uri, sync, unsent_runs
from cxrnet.workflows.resume import check_resumable

CONFIG = {"schedule": {"max_epochs": 3}, "tracking": {"uri": None}}


@pytest.fixture
def finished(tracked):
    """A finished run, and one call that has not arrived."""

    def make(folder: Path) -> Path:
        with tracked(folder=folder) as run:
            run.log_metrics({"loss": 1.0}, step=0)
        Outbox(folder, run.run_id).add("metrics", {"values": {"loss": 2.0}, "step": 1})
        return folder

    return make


def points(client, folder):
    return sorted(
        (point.step, point.value) for point in client.get_metric_history(read_record(folder)["run_id"], "loss")
    )


def test_nothing_but_the_files_of_the_run_is_sent(finished, client, tmp_path, capsys):
    folder = finished(tmp_path / "runs" / "one")
    (tmp_path / "secret.txt").write_text("mine")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    run_id = read_record(folder)["run_id"]
    for path in (str(tmp_path / "secret.txt"), "../../secret.txt", "link.txt"):
        Outbox(folder, run_id).add("artifact", {"path": path, "folder": None})
    Outbox(folder, run_id).add("rm", {"path": "run.json"})
    assert sync([folder])
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("is not in the folder of the run") == 3
    assert "rm (there is no such call)" in out
    assert not [file for file in client.list_artifacts(run_id) if "txt" in file.path]
    assert (1, 2.0) in points(client, folder)


def test_the_rest_of_all_runs_below_a_folder_is_sent_once(finished, client, tmp_path, capsys):
    parent, child = finished(tmp_path / "runs" / "one"), finished(tmp_path / "runs" / "one" / "fold_0")
    assert list(unsent_runs(tmp_path)) == [parent, child]
    assert sync([tmp_path, parent])
    assert capsys.readouterr().out.count("1 calls, nothing is left") == 2
    assert sync([tmp_path])
    assert "have reached MLflow" in capsys.readouterr().out
    for folder in (parent, child):
        assert points(client, folder) == [(0, 1.0), (1, 2.0)]
        assert read_record(folder)["status"] == "FINISHED"


def test_a_run_that_is_at_work_is_left_alone(finished, client, tmp_path, capsys):
    folder = finished(tmp_path / "one")
    with alone_in(folder):
        assert not sync([folder])
    assert "is at work on this run" in capsys.readouterr().out
    assert points(client, folder) == [(0, 1.0)]


def test_resume_of_a_finished_run_sends_its_rest(finished, client, tmp_path):
    folder = finished(tmp_path / "one")
    write_config(folder, CONFIG)
    with pytest.raises(SystemExit) as caught:
        check_resumable(folder, CONFIG)
    assert caught.value.code == 0
    assert points(client, folder) == [(0, 1.0), (1, 2.0)]
    with pytest.raises(CxrnetError, match="is finished"):
        check_resumable(folder, CONFIG)


def test_what_another_mlflow_run_has_got_a_new_one_gets_too(finished, tracked, client, tmp_path):
    folder = finished(tmp_path / "one")
    old = read_record(folder)["run_id"]
    client.delete_run(old)
    with tracked(folder=folder, resume=True) as run:
        pass
    assert run.run_id != old
    assert points(client, folder) == [(0, 1.0), (1, 2.0)]
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_a_folder_that_is_none_and_a_store_that_is_gone(finished, tmp_path, capsys):
    with pytest.raises(CxrnetError, match=r"'.*nowhere' is not a folder; give that of a run, a sweep or all runs"):
        sync([tmp_path / "nowhere"])
    folder = finished(tmp_path / "one")
    record = (folder / "run.json").read_text()
    (folder / "run.json").write_text(record.replace("mlflow.db", "gone.db"))
    assert not sync([folder])
    assert "1 of 1 calls (tracking: its database is gone" in capsys.readouterr().out


def test_the_store_of_a_run_is_found_from_anywhere(outputs, tmp_path, monkeypatch):
    place = tmp_path / "outputs"
    place.mkdir()
    shutil.copy(outputs / "mlflow.db", place)
    with track(place / "runs" / "one", tracking_uri(None, place), "e", place) as run:
        pass
    here = f"sqlite:///{place}/mlflow.db"
    monkeypatch.chdir("/")
    assert recorded_uri(run.folder, "sqlite:////elsewhere/mlflow.db") == here
    place.rename(tmp_path / "moved")
    assert recorded_uri(tmp_path / "moved" / "runs" / "one") == f"sqlite:///{tmp_path}/moved/mlflow.db"
    (tmp_path / "moved" / "mlflow.db").unlink()
    assert recorded_uri(tmp_path / "moved" / "runs" / "one", "now") == "now"


def test_a_password_comes_from_the_address_at_hand(tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text('{"tracking_uri": "http://server:5000"}')
    assert recorded_uri(tmp_path, "http://another") == "http://server:5000"
    assert recorded_uri(tmp_path, "http://me:secret@server:5000") == "http://me:secret@server:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://you:secret@server:5000/")
    assert recorded_uri(tmp_path) == "http://you:secret@server:5000"


def test_folders_are_given_by_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("it's a=b").mkdir()
    assert _arguments(["outputs/runs/x", "outputs=other"]) == ["outputs=other", "folders=['outputs/runs/x']"]
    assert _arguments(["it's a=b", "y"]) == [r"folders=['it\'s a=b','y']"]
    assert _arguments(["--help"]) == ["--help"]


def test_the_command(finished, tmp_path):
    finished(tmp_path / "outputs" / "runs" / "it's one")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    for arguments, told in (((str(tmp_path / "outputs" / "runs" / "it's one"),), "1 calls"), ((), "have reached")):
        command = [sys.executable, "-m", "cxrnet.sync", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert told in done.stdout
        assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
