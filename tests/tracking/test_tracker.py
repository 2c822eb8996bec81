import json
import math
import sys
import time

import pandas as pd
import pytest
from mlflow import MlflowClient

from cxrnet.errors import CxrnetError
from cxrnet.tracking.record import read_record


def test_params_of_any_number_and_length(tracked, client):
    params = {f"group.key{i}": i for i in range(250)} | {"long": "x" * 9000, "none": None, "empty": "", "odd key()": 1}
    with tracked() as run:
        run.log_params(params)
    stored = client.get_run(run.run_id).data.params
    assert run.unsent == 0
    assert len(stored) == 254
    assert (stored["group.key249"], stored["none"], stored["empty"], stored["odd key___d214dd50"]) == (
        "249",
        "None",
        "",
        "1",
    )
    assert stored["long"].startswith("xxx")
    assert stored["long"].endswith("...")


CLASSES = (
    "a+b", "a*b", "a_b", "a b", "a/b", "a//b", "a/../b", "a..b", "a.", "a/", "..", "../x", "/x", ".", "a", "A", "a:b",
    "a\\b", "a\nb", "[/red]", "", "\u200b", "Größe", "日本", "\udcff", "x" * 300, "x" * 299 + "y", "x" * 220 + "+" * 80,
)  # fmt: skip


def test_every_class_has_metrics_of_its_own(tracked, client):
    values = {f"val/sensitivity/{name}": float(place) for place, name in enumerate(CLASSES)}
    with tracked() as run:
        run.log_metrics(values, step=1)
        run.log_params({f"operating_points.{name}": place for place, name in enumerate(CLASSES)})
        run.set_tags({f"of {name}": place for place, name in enumerate(CLASSES)})
    assert run.unsent == 0
    data = client.get_run(run.run_id).data
    assert sorted(data.metrics.values()) == sorted(values.values())
    assert sorted(data.params.values()) == sorted(map(str, range(len(CLASSES))))
    assert sum(name.startswith("of ") for name in data.tags) == len(CLASSES)
    assert data.metrics["val/sensitivity/Größe"] == CLASSES.index("Größe")
    assert data.metrics["val/sensitivity/a/b"] == CLASSES.index("a/b")


def test_a_class_is_named_alike_in_all_its_metrics_and_on_every_machine(tracked, client):
    with tracked() as run:
        run.log_metrics({"val/sensitivity/a+b": 0.1, "test/f1/a+b": 0.2}, step=1)
        run.log_metrics({"val/sensitivity/a+b": 0.3, "val/sensitivity/Gro\u0308ße": 0.4}, step=2)  # as macOS spells it
    expected = {"val/sensitivity/a_b_8478c3c8": 0.3, "test/f1/a_b_8478c3c8": 0.2, "val/sensitivity/Größe": 0.4}
    assert client.get_run(run.run_id).data.metrics == expected


def test_the_results_and_the_page(tracked, artifact, client, monkeypatch):
    with tracked() as run:
        (run.folder / "roc.txt").write_text("roc")
        run.log_results(run.folder)
        run.log_results(run.folder, below="a set")
        run.log_page({"test/accuracy": 0.5}, pd.DataFrame({"metric": ["a", "b"], "value": [1.0, None]}), "*text*", 3)
    for name in ("report/roc.txt", "report/a set/roc.txt"):
        assert artifact(run.run_id, name) == "roc"
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["report", "tables"]
    stored = client.get_run(run.run_id)
    assert (stored.data.tags["mlflow.note.content"], stored.data.metrics) == ("*text*", {"test/accuracy": 0.5})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)  # it asks the store of the whole process
    table = client.load_table(stored.info.experiment_id, "tables/all_metrics.json", [run.run_id])
    assert table["metric"].tolist() == ["a", "b"]
    assert table["value"].isna().tolist() == [False, True]


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


def test_what_mlflow_refuses_for_good_is_told_and_the_rest_arrives(tracked, client, tmp_path, caplog):
    with tracked() as run:
        run.log_metrics({"loss": 1.0}, step=0)
        run.log_artifact(tmp_path / "missing.png")
        run.log_metrics({"loss": 2.0}, step=1)
    assert caplog.text.count("MLflow does not log missing.png") == 1
    assert client.get_run(run.run_id).data.metrics == {"loss": 2.0}
    record = read_record(run.folder)
    assert record["unsent"] == 0
    assert [line.partition(" (")[0] for line in record["refused"]] == ["log missing.png"]


def test_what_is_no_utf_8_does_not_hold_up_the_rest(tracked, client):
    with tracked() as run:
        run.log_params({"data.root": "r\udce9sum\udce9"})
        run.set_tags({"place": "r\udce9sum\udce9"})
    assert (run.unsent, run.refused) == (0, [])
    assert client.get_run(run.run_id).data.params["data.root"] == r"r\udce9sum\udce9"


def test_a_point_that_was_logged_before_is_not_logged_again(tracked, client):
    epochs = [({f"metric {i}": epoch / 2 for i in range(30)} | {"nan": math.nan}, epoch) for epoch in range(1, 51)]
    with tracked() as run:
        run.log_metrics(*epochs[0])
    with tracked(resume=True) as run:
        for epoch in [*epochs, *epochs]:
            run.log_metrics(*epoch)
    for name in ("metric 29", "nan"):
        assert [point.step for point in client.get_metric_history(run.run_id, name)] == list(range(1, 51))


def test_a_server_takes_everything_and_nothing_is_printed(tracked, server, capfd):
    with tracked(uri=server.uri, name="remote") as run:
        (run.folder / "big.bin").write_bytes(b"0" * 3_000_000)
        run.log_params({"a": ""})
        run.log_metrics({"loss": 1.0}, step=0)
        run.log_artifact(run.folder / "big.bin", "weights")
        run.log_dataset("d", "0" * 64, ".", {"train": 1}, "training")
    client = MlflowClient(server.uri)
    stored = client.get_run(run.run_id)
    assert (stored.info.status, stored.info.run_name, run.unsent) == ("FINISHED", "remote", 0)
    assert stored.info.artifact_uri.startswith("mlflow-artifacts:")
    assert [file.path for file in client.list_artifacts(run.run_id, "weights")] == ["weights/big.bin"]
    assert capfd.readouterr() == ("", "")


def test_system_metrics_are_logged_while_a_run_is_at_work_and_go_on_after_it(tracked, client, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setattr("cxrnet.tracking.tracker.SECONDS", 0.2)
    for resume in (False, True):
        with tracked(system_metrics=True, resume=resume) as run:
            time.sleep(1)
    metrics = client.get_run(run.run_id).data.metrics
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    history = client.get_metric_history(run.run_id, "system/cpu_utilization_percentage")
    assert len(history) > 6
    assert [point.step for point in history] == sorted(point.step for point in history)


def test_without_psutil_nothing_is_started(tracked, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(sys.modules, "mlflow.system_metrics.metrics.cpu_monitor", raising=False)
    with pytest.raises(CxrnetError, match="psutil is not installed"), tracked(system_metrics=True):
        pytest.fail("the command must not start")
    assert not (tmp_path / "run").exists()
