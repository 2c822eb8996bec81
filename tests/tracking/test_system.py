"""Use of the machine, in MLflow."""

import sys
import time

import pytest

from cxrnet.errors import CxrnetError


def test_system_metrics_are_logged_while_a_run_is_at_work_and_go_on_after_it(tracked, client, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setattr("cxrnet.tracking.system.SECONDS", 0.2)
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
