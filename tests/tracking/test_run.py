import os
import subprocess
import sys

import pytest

from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import read_record


def test_a_run_names_its_folder_and_the_folder_its_run(tracked, client, tmp_path):
    with tracked(name="r1", command=["python", "train.py"], parent_run_id="abc") as run:
        assert read_record(run.folder)["status"] == "RUNNING"
        assert client.get_run(run.run_id).info.status == "RUNNING"
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "r1"
    tags = stored.data.tags
    assert tags["cxrnet.run_dir"] == str(tmp_path / "run")
    assert tags["mlflow.parentRunId"] == "abc"
    assert {"version.torch", "version.python", "mlflow.source.name"} <= set(tags)
    written = read_record(run.folder)
    assert (written["run_id"], written["status"], written["unsent"]) == (run.run_id, "FINISHED", 0)
    assert written["tracking_uri"].startswith("sqlite:////")
    assert written["experiment"] == "runs"
    assert (written["command"], written["process"]) == (["python", "train.py"], os.getpid())
    assert "resumptions" not in written


def test_a_defect_ends_the_run_as_failed_with_its_traceback(tracked, client, artifact):
    with pytest.raises(ZeroDivisionError), tracked() as run:
        print(1 / 0)
    assert client.get_run(run.run_id).info.status == "FAILED"
    text = artifact(run.run_id, "error.txt")
    assert "ZeroDivisionError" in text
    assert "1 / 0" in text
    assert read_record(run.folder)["status"] == "FAILED"
    assert (run.folder / "error.txt").read_text() == text


def test_a_mistake_of_the_user_is_kept_as_its_line(tracked, client, artifact):
    with pytest.raises(CxrnetError), tracked() as run:
        raise CxrnetError("data.root: 'x' is not a folder; correct it")
    assert client.get_run(run.run_id).info.status == "FAILED"
    assert artifact(run.run_id, "error.txt") == "data.root: 'x' is not a folder; correct it\n"


@pytest.mark.parametrize(("code", "status"), [(None, "FINISHED"), (0, "FINISHED"), (2, "FAILED"), ("no", "FAILED")])
def test_an_exit_ends_the_run_by_its_code(tracked, client, code, status):
    with pytest.raises(SystemExit), tracked() as run:
        raise SystemExit(code)
    assert client.get_run(run.run_id).info.status == status


def test_several_runs_in_one_process_do_not_mix(tracked, client, tmp_path):
    with pytest.raises(ValueError, match="first"), tracked(folder=tmp_path / "a") as first:  # noqa: PT012
        first.log_metrics({"loss": 1.0}, step=0)
        raise ValueError("first")
    with tracked(folder=tmp_path / "b") as second:
        second.log_metrics({"loss": 2.0}, step=0)
    stored = [client.get_run(run.run_id) for run in (first, second)]
    assert [run.info.status for run in stored] == ["FAILED", "FINISHED"]
    assert [run.data.metrics for run in stored] == [{"loss": 1.0}, {"loss": 2.0}]


def test_without_tracking_the_folder_still_tells_how_it_ended(tracked, tmp_path):
    with pytest.raises(ValueError, match="no"), tracked(uri=None) as run:  # noqa: PT012
        run.log_params({"a": 1})
        run.log_metrics({"a": 1}, step=0)
        run.log_artifact(tmp_path / "x.png")
        run.log_dataset("d", "0", ".", {}, "training")
        assert read_record(run.folder)["status"] == "RUNNING"
        raise ValueError("no")
    assert run.run_id is None
    assert run.unsent == 0
    assert read_record(run.folder)["status"] == "FAILED"
    assert "ValueError" in (run.folder / "error.txt").read_text()


def test_a_store_that_cannot_be_used_is_an_error_before_anything_starts(tracked, tmp_path):
    with pytest.raises(CxrnetError, match="no MLflow server answers"), tracked(uri="http://127.0.0.1:9"):
        pytest.fail("the command must not start")
    assert not (tmp_path / "run" / "run.json").exists()


# --- a run that goes on


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(tracked, client):
    with pytest.raises(RuntimeError), tracked(command=["first"]) as first:  # noqa: PT012
        first.log_params({"lr": 0.1, "epochs": 5})
        raise RuntimeError
    started = read_record(first.folder)["started"]
    with tracked(command=["second"], resume=True) as second:
        assert second.run_id == first.run_id
        assert client.get_run(second.run_id).info.status == "RUNNING"
        assert read_record(second.folder)["status"] == "RUNNING"
        assert "ended" not in read_record(second.folder)
        second.log_params({"lr": 0.1, "epochs": 9, "new": 1})
    with tracked(command=["third"], resume=True):
        pass
    stored = client.get_run(second.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"lr": "0.1", "epochs": "5", "new": "1"}
    assert stored.data.tags["cxrnet.param_drift"] == "epochs: 5 -> 9"
    assert second.unsent == 0
    record = read_record(first.folder)
    assert (record["started"], record["command"], record["status"]) == (started, ["first"], "FINISHED")
    assert [resumption["command"] for resumption in record["resumptions"]] == [["second"], ["third"]]
    assert not (first.folder / "error.txt").exists()


def test_a_run_that_mlflow_has_no_more_goes_on_in_a_new_one(tracked, client, caplog):
    with tracked() as first:
        pass
    client.delete_run(first.run_id)
    with tracked(resume=True) as second:
        pass
    assert second.run_id != first.run_id
    assert f"MLflow has the run of '{first.folder}' no more; a new one is made" in caplog.text
    assert read_record(first.folder)["run_id"] == second.run_id


def test_a_run_that_was_not_tracked_can_be_from_now_on(tracked, client):
    with tracked(uri=None):
        pass
    with tracked(resume=True) as run:
        pass
    assert client.get_run(run.run_id).info.status == "FINISHED"
    assert read_record(run.folder)["run_id"] == run.run_id


def test_one_process_at_a_time_is_at_work_on_a_run(tracked, tmp_path):
    code = f"""
import sys
from pathlib import Path
from cxrnet.tracking.run import track
with track(Path({str(tmp_path / "run")!r}), None, "e", Path()):
    print("running", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"running\n"
    message = rf"run': process {other.pid} on \S+ is at work on this run; wait for its end, or end it"
    with pytest.raises(CxrnetError, match=message), tracked(resume=True):
        pytest.fail("the command must not start")
    assert read_record(tmp_path / "run")["status"] == "RUNNING"
    other.kill()
    other.communicate()
    with tracked(uri=None, resume=True):  # a process that died holds nothing back
        pass
    assert read_record(tmp_path / "run")["status"] == "FINISHED"
