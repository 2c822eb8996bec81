import json
import math
import signal
import time
from pathlib import Path

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only
from mlflow import MlflowClient

from cxrnet.errors import CxrnetError
from cxrnet.tracking import outbox
from cxrnet.tracking.run import track


@pytest.fixture
def tracked(uri, outputs, tmp_path):
    """``track`` with a store, an experiment and a folder."""

    def start(**settings):
        return track(**{"folder": tmp_path / "run", "uri": uri, "experiment": "runs", "outputs": outputs, **settings})

    return start


def record(folder):
    return json.loads((folder / "run.json").read_text())


def artifact(client, run_id, name, tmp_path):
    return Path(client.download_artifacts(run_id, name, str(tmp_path))).read_text()


def test_a_run_names_its_folder_and_the_folder_its_run(tracked, client, tmp_path):
    with tracked(name="r1") as run:
        assert record(run.folder)["status"] == "RUNNING"
        assert client.get_run(run.run_id).info.status == "RUNNING"
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "r1"
    tags = stored.data.tags
    assert tags["cxrnet.run_dir"] == str(tmp_path / "run")
    assert {"version.torch", "version.python", "mlflow.source.name"} <= set(tags)
    written = record(run.folder)
    assert (written["run_id"], written["status"], written["lost_calls"]) == (run.run_id, "FINISHED", 0)
    assert written["tracking_uri"].startswith("sqlite:////")
    assert written["experiment"] == "runs"


def test_a_defect_ends_the_run_as_failed_with_its_traceback(tracked, client, tmp_path):
    with pytest.raises(ZeroDivisionError), tracked() as run:
        print(1 / 0)
    assert client.get_run(run.run_id).info.status == "FAILED"
    text = artifact(client, run.run_id, "error.txt", tmp_path)
    assert "ZeroDivisionError" in text
    assert "1 / 0" in text
    assert record(run.folder)["status"] == "FAILED"
    assert (run.folder / "error.txt").read_text() == text


def test_a_mistake_of_the_user_is_kept_as_its_line(tracked, client, tmp_path):
    with pytest.raises(CxrnetError), tracked() as run:
        raise CxrnetError("data.root: 'x' is not a folder; correct it")
    assert client.get_run(run.run_id).info.status == "FAILED"
    assert artifact(client, run.run_id, "error.txt", tmp_path) == "data.root: 'x' is not a folder; correct it\n"


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


def test_params_of_any_number_and_length(tracked, client):
    params = {f"group.key{i}": i for i in range(250)} | {"long": "x" * 9000, "none": None, "empty": "", "odd key()": 1}
    with tracked() as run:
        run.log_params(params)
    stored = client.get_run(run.run_id).data.params
    assert run.lost_calls == 0
    assert len(stored) == 254
    assert (stored["group.key249"], stored["none"], stored["empty"], stored["odd key__"]) == ("249", "None", "", "1")
    assert stored["long"].startswith("xxx")
    assert stored["long"].endswith("...")


def test_metrics_of_classes_with_any_name_and_steps(tracked, client):
    with tracked() as run:
        for epoch in range(3):
            run.log_metrics({"val/sensitivity/Lung (opacity)": epoch / 2, "loss": math.nan}, step=epoch)
    history = client.get_metric_history(run.run_id, "val/sensitivity/Lung _opacity_")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert math.isnan(client.get_run(run.run_id).data.metrics["loss"])
    assert run.lost_calls == 0


def test_artifacts_and_config(tracked, client, tmp_path):
    figures = tmp_path / "figures"
    figures.mkdir()
    (figures / "roc.txt").write_text("roc")
    with tracked() as run:
        run.log_config("model: resnet50\n")
        run.log_artifact(figures / "roc.txt", "test")
        run.log_artifact(figures)
    for name in ("test/roc.txt", "figures/roc.txt"):
        assert artifact(client, run.run_id, name, tmp_path) == "roc"
    assert artifact(client, run.run_id, "config.yaml", tmp_path) == "model: resnet50\n"


def test_the_data_set_is_an_input_with_the_digest_of_its_manifest(tracked, client):
    with tracked() as run:
        run.log_dataset(
            "phantom", "ab" * 32, "data/phantom", {"train": {"normal": 3}, "test": {"normal": 1}}, "training"
        )
    stored = client.get_run(run.run_id)
    dataset = stored.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("phantom", "ab" * 18)
    assert json.loads(dataset.profile)["train"] == {"normal": 3}
    assert stored.data.tags["cxrnet.data.digest.training"] == "ab" * 32


def test_without_tracking_the_folder_still_tells_how_it_ended(tracked, tmp_path):
    with pytest.raises(ValueError, match="no"), tracked(uri=None) as run:  # noqa: PT012
        run.log_params({"a": 1})
        run.log_metrics({"a": 1}, step=0)
        run.log_config("")
        run.log_artifact(tmp_path / "x.png")
        run.log_dataset("d", "0", ".", {}, "training")
        assert record(run.folder)["status"] == "RUNNING"
        raise ValueError("no")
    assert run.run_id is None
    assert run.lost_calls == 0
    assert record(run.folder)["status"] == "FAILED"
    assert "ValueError" in (run.folder / "error.txt").read_text()


def test_only_the_first_process_of_a_distributed_training_has_a_run(tracked, client, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with tracked() as run:
        run.log_metrics({"loss": 1.0}, step=0)
    assert run.run_id is None
    assert not (tmp_path / "run").exists()


def test_a_call_that_mlflow_does_not_take_is_counted_and_the_rest_arrives(tracked, client, tmp_path, caplog):
    with tracked() as run:
        run.log_metrics({"loss": 1.0}, step=0)
        run.log_artifact(tmp_path / "missing.png")
        run.log_metrics({"loss": 2.0}, step=1)
        assert run.lost_calls == 1
    assert "MLflow does not log missing.png" in caplog.text
    assert client.get_run(run.run_id).data.metrics == {"loss": 2.0}
    assert record(run.folder)["lost_calls"] == 1
    assert "1 calls did not reach MLflow" in caplog.text


def test_a_store_that_cannot_be_used_is_an_error_before_anything_starts(tracked, tmp_path):
    with pytest.raises(CxrnetError, match="no MLflow server answers"), tracked(uri="http://127.0.0.1:9"):
        pytest.fail("the command must not start")
    assert not (tmp_path / "run").exists()


def test_a_server_takes_everything_and_nothing_is_printed(tracked, server, tmp_path, capfd):
    (tmp_path / "big.bin").write_bytes(b"0" * 3_000_000)
    with tracked(uri=server.uri, name="remote") as run:
        run.log_params({"a": ""})
        run.log_config("a: 1")
        run.log_metrics({"loss": 1.0}, step=0)
        run.log_artifact(tmp_path / "big.bin", "weights")
        run.log_dataset("d", "0" * 64, ".", {"train": 1}, "training")
    client = MlflowClient(server.uri)
    stored = client.get_run(run.run_id)
    assert (stored.info.status, stored.info.run_name, run.lost_calls) == ("FINISHED", "remote", 0)
    assert stored.info.artifact_uri.startswith("mlflow-artifacts:")
    assert [file.path for file in client.list_artifacts(run.run_id, "weights")] == ["weights/big.bin"]
    assert capfd.readouterr() == ("", "")


def test_what_waited_arrives_once_when_the_server_is_back(tracked, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(outbox, "PAUSE", 0.0)  # look for the server at each call
    with tracked(uri=server.uri) as run:
        server.signal(signal.SIGSTOP)
        run.log_metrics({"loss": 0}, step=0)
        run.log_metrics({"loss": 1}, step=1)
        assert run.lost_calls == 2
        server.signal(signal.SIGCONT)
        run.log_metrics({"loss": 2}, step=2)
        assert run.lost_calls == 0
    stored = MlflowClient(server.uri)
    assert [point.step for point in stored.get_metric_history(run.run_id, "loss")] == [0, 1, 2]
    assert stored.get_run(run.run_id).info.status == "FINISHED"


def test_training_goes_on_when_the_server_goes_away(tracked, server, caplog, capfd):
    start = time.monotonic()
    with tracked(uri=server.uri) as run:
        run.log_metrics({"loss": 1.0}, step=0)
        server.signal(signal.SIGKILL)
        for epoch in range(1, 50):
            run.log_metrics({"loss": 1 / epoch}, step=epoch)
        assert run.lost_calls == 49
    assert time.monotonic() - start < 30
    assert record(run.folder)["status"] == "FINISHED"
    assert record(run.folder)["lost_calls"] > 49
    assert caplog.text.count("has gone away") == 1
    assert "calls did not reach MLflow; all results are in" in caplog.text
    assert capfd.readouterr() == ("", "")
