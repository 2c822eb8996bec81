"""Runs that track while their store is in trouble: a real server behind a proxy, a database that is locked."""

import sqlite3
import threading
import time

import pytest
from mlflow import MlflowClient

from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import read_record, write_record
from cxrnet.tracking.run import KEY
from cxrnet.tracking.sync import sync


def steps(uri, run, name="loss"):
    return sorted(point.step for point in MlflowClient(uri).get_metric_history(run.run_id, name))


def train(run, epochs=4, seconds=0.1):
    """Stand for a training; return the longest time that an epoch waited for tracking."""
    longest = 0.0
    for step in range(epochs):
        began = time.monotonic()
        run.log_metrics({"loss": 1 / (step + 1), "accuracy": 0.5}, step=step)
        longest = max(longest, time.monotonic() - began)
        time.sleep(seconds)
    return longest


def test_errors_500_for_a_while_lose_nothing(tracked, proxy, server):
    with tracked(uri=proxy.uri) as run:
        until = time.monotonic() + 1.5
        proxy.fault = lambda method, path: 500 if time.monotonic() < until else None
        assert train(run, epochs=10) < 0.5
    assert (run.unsent, run.refused) == (0, [])
    assert steps(server.uri, run) == list(range(10))
    assert MlflowClient(server.uri).get_run(run.run_id).info.status == "FINISHED"


def test_a_slow_server_does_not_slow_training(tracked, proxy, server):
    with tracked(uri=proxy.uri) as run:
        proxy.fault = lambda method, path: 1.0
        began = time.monotonic()
        assert train(run, epochs=10, seconds=0) < 0.5
        assert time.monotonic() - began < 1
        assert run.unsent >= 10
        proxy.fault = lambda method, path: None
    assert run.unsent == 0
    assert steps(server.uri, run) == list(range(10))


def test_answers_that_are_lost_double_nothing(tracked, proxy, server, make_bundle):
    dropped: list[str] = []

    def first_answer_is_lost(method, path):
        name = method if method == "PUT" else f"{method} {path.partition('?')[0]}"
        if method == "GET" or name in dropped or "/search" in name:
            return None
        dropped.append(name)
        return "drop"

    proxy.fault = first_answer_is_lost
    with tracked(uri=proxy.uri, experiment="dropped") as run:
        train(run)
        run.log_dataset("d", "0" * 64, ".", {"train": 1}, "training")
        run.log_bundle(make_bundle(run.folder), ("a", "b"))
    assert {path.rpartition("/")[2] for path in dropped} >= {
        "create",
        "log-batch",
        "log-inputs",
        "logged-models",
        "update",
    }
    client = MlflowClient(server.uri)
    stored = client.get_run(run.run_id)
    experiment = [stored.info.experiment_id]
    assert [each.info.run_id for each in client.search_runs(experiment)] == [run.run_id]
    assert steps(server.uri, run) == [0, 1, 2, 3]
    (model,) = client.search_logged_models(experiment)
    assert str(model.status) == "READY"
    assert [output.model_id for output in stored.outputs.model_outputs] == [model.model_id]
    assert stored.data.tags["cxrnet.model_uri"] == f"models:/{model.model_id}"
    assert len(stored.inputs.dataset_inputs) == 1
    assert stored.info.status == "FINISHED"


def test_artifacts_that_find_no_room_hold_up_nothing_else(tracked, proxy, server, caplog):
    with tracked(uri=proxy.uri, patience=1.0) as run:
        proxy.fault = lambda method, path: 500 if method == "PUT" else None
        (run.folder / "a.txt").write_text("a")
        run.log_artifact(run.folder / "a.txt")
        train(run)
    assert steps(server.uri, run) == [0, 1, 2, 3]
    assert MlflowClient(server.uri).get_run(run.run_id).info.status == "FINISHED"
    assert read_record(run.folder)["unsent"] == 1
    assert f"1 calls have not reached MLflow; they are kept, to send them: python -m cxrnet.sync {run.folder}" in (
        caplog.text
    )


def test_a_server_that_takes_one_call_after_the_other_slowly_does_not_hold_the_end_up_for_ever(
    tracked, proxy, monkeypatch
):
    monkeypatch.setattr("cxrnet.tracking.run.LONGEST_END", 2.0)
    with tracked(uri=proxy.uri) as run:
        proxy.fault = lambda method, path: 0.5
        train(run, epochs=20)
        began = time.monotonic()
    assert time.monotonic() - began < 4
    assert read_record(run.folder)["unsent"] > 0
    assert read_record(run.folder)["status"] == "FINISHED"


def test_a_server_that_makes_no_run_is_one_line_and_leaves_nothing(tracked, proxy, server, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrnet.tracking.run.LONGEST_START", 0.0)
    proxy.fault = lambda method, path: 500 if "runs/create" in path else None
    with (
        pytest.raises(CxrnetError, match=r"tracking: MLflow at 'http://.*tracking=none") as caught,
        tracked(uri=proxy.uri),
    ):
        pytest.fail("the command must not start")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_goes_on_in_its_mlflow_run_whatever_the_server_answers(tracked, proxy, server):
    with pytest.raises(RuntimeError), tracked(uri=proxy.uri) as first:
        raise RuntimeError
    proxy.fault = lambda method, path: 500 if "runs/" in path else None
    with tracked(uri=proxy.uri, resume=True) as second:
        time.sleep(0.3)
        proxy.fault = lambda method, path: None
    assert second.run_id == first.run_id
    assert MlflowClient(server.uri).get_run(second.run_id).info.status == "FINISHED"


def test_a_run_that_was_killed_while_it_was_made_is_found_again(tracked, client, uri, open_experiment, tmp_path):
    experiment = open_experiment("runs")
    made = client.create_run(experiment, tags={KEY: "abc"}).info.run_id  # and nobody learnt its id
    write_record(tmp_path / "run", {"run_dir": "x", "tracking_uri": uri, "run_id": None, "key": "abc"})
    with tracked(resume=True) as run:
        pass
    assert run.run_id == made


def test_a_locked_database_loses_nothing_and_shows_no_traceback(tracked, client, uri, caplog, capfd, monkeypatch):
    with tracked() as run:
        locked = threading.Event()

        def lock() -> None:
            with sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None) as connection:
                connection.execute("PRAGMA busy_timeout = 5000")
                connection.execute("BEGIN IMMEDIATE")
                locked.set()
                time.sleep(1.5)
                connection.execute("ROLLBACK")

        other = threading.Thread(target=lock)
        other.start()
        locked.wait(10)
        assert train(run, seconds=0) < 0.5
    other.join()
    assert run.unsent == 0
    assert steps(uri, run) == [0, 1, 2, 3]
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text


def test_a_stopped_run_does_not_wait_for_a_server_that_hangs(tracked, proxy, server):
    began = 0.0
    with pytest.raises(KeyboardInterrupt), tracked(uri=proxy.uri) as run:  # noqa: PT012
        proxy.fault = lambda method, path: 5.0
        train(run, seconds=0)
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 2.5
    assert read_record(run.folder)["status"] == "KILLED"
    assert read_record(run.folder)["unsent"] > 0


def test_a_server_that_is_away_when_a_run_ends_gets_it_all_later(tracked, proxy, server, tmp_path, caplog, capsys):
    with tracked(uri=proxy.uri, patience=1.0, folder=tmp_path / "runs" / "one") as run:
        proxy.fault = lambda method, path: 500
        train(run)
    assert read_record(run.folder)["unsent"] >= 5
    assert MlflowClient(server.uri).get_run(run.run_id).info.status == "RUNNING"
    assert not sync([tmp_path], pauses=(0.1,))
    proxy.fault = lambda method, path: None
    for _ in range(2):
        assert sync([tmp_path])
    told = capsys.readouterr().out
    assert "nothing is left" in told
    assert "have reached MLflow" in told
    stored = MlflowClient(server.uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert abs(stored.info.end_time - time.time() * 1000) > 500  # when it ended, not when that arrived
    assert steps(server.uri, run) == [0, 1, 2, 3]
    assert read_record(run.folder)["unsent"] == 0
