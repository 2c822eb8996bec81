"""Use of the machine while a run is at work: processors, memory, GPUs, as MLflow measures and names it."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cxrnet.errors import CxrnetError
from cxrnet.tracking.tracker import TrackedRun

SECONDS = 10.0
"""Between two samples."""


def system_monitors() -> list[Any]:
    """Make MLflow's monitors; GPUs are measured where nvidia-ml-py is installed and finds one.

    Raises:
        CxrnetError: psutil is not installed.
    """
    try:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    except ImportError as error:
        raise CxrnetError(
            "tracking.system_metrics: psutil is not installed; pip install 'cxrnet[system]', or give "
            "tracking.system_metrics=false"
        ) from error
    monitors: list[Any] = [CPUMonitor()]  # type: ignore[no-untyped-call]
    with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, no GPU
        monitors.append(GPUMonitor())  # type: ignore[no-untyped-call]
    return monitors


@contextmanager
def sampled(run: TrackedRun, monitors: Sequence[Any], started: str) -> Iterator[None]:
    """Log system metrics (``system/cpu_utilization_percentage``) as long as the ``with`` lasts, and at its end.

    They go the way of all metrics, so that nothing waits for MLflow. The step counts :data:`SECONDS` since the first
    start, also after the run was resumed.

    Args:
        run: that gets them.
        monitors: of :func:`system_monitors`; none for no system metrics.
        started: the first start of the run, ISO 8601 with its zone.
    """
    ended, began = threading.Event(), datetime.fromisoformat(started).timestamp()

    def work() -> None:
        last = False
        while not last:
            last = ended.wait(SECONDS)
            values: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            run.log_metrics(values, step=int((time.time() - began) // SECONDS))

    thread = threading.Thread(target=work, name="cxrnet-system-metrics", daemon=True)
    if monitors:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if monitors:
            thread.join(5)
