"""The run of a command, what it logs to MLflow, and the use of the machine while it is at work."""

import contextlib
import json
import posixpath
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrnet.errors import CxrnetError
from cxrnet.tracking.delivery import Delivery
from cxrnet.tracking.names import FOLDERS, LONGEST_PARAM, LONGEST_TAG, artifact_folder, safe_key, shortened
from cxrnet.tracking.record import RECORD

if TYPE_CHECKING:
    import pandas as pd

_TABLE = "tables/all_metrics.json"
SECONDS = 10.0
"""Between two samples of the system metrics."""


class TrackedRun:
    """A run as MLflow is told of it; made by :func:`cxrnet.tracking.run.track`.

    No method waits for MLflow or raises because of it: each writes a line into the outbox of the run's folder. Without
    tracking, or on a process that is not the first of a distributed training, the methods do nothing. Values that are
    longer than MLflow takes are cut.

    Attributes:
        folder: folder of the run on disk.
        run_id: id of the run in MLflow; ``None`` without tracking.
    """

    def __init__(self, folder: Path, run_id: str | None = None, delivery: Delivery | None = None) -> None:
        self.folder = folder
        self.run_id = run_id
        self._delivery = delivery

    @property
    def unsent(self) -> int:
        """Calls that have not reached MLflow (yet)."""
        return self._delivery.outbox.waiting if self._delivery else 0

    @property
    def refused(self) -> list[str]:
        """Calls that MLflow has refused for good, and why."""
        return self._delivery.outbox.refused if self._delivery else []

    def close(self, patience: float, at_most: float) -> None:
        """Give what waits the time to arrive; arguments as :meth:`cxrnet.tracking.delivery.Delivery.close`."""
        if self._delivery:
            self._delivery.close(patience, at_most)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log the config, flat; what differs in a resumed run is written to the tag ``cxrnet.param_drift``."""
        values = {safe_key(name): shortened(str(value), LONGEST_PARAM) for name, value in params.items()}
        self._add("params", values=values)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values by name at a step (the epoch over all phases); what was logged before is not logged again."""
        if self._delivery is None:
            return
        values = {safe_key(name): float(value) for name, value in metrics.items()}
        if new := self._delivery.outbox.new_points(values, step):
            self._add("metrics", values=new, step=step)

    def set_tags(self, tags: Mapping[str, object], of: str | None = None) -> None:
        """Set tags, of this run or of another one."""
        values = {safe_key(name): shortened(str(value), LONGEST_TAG) for name, value in tags.items()}
        self._add("tags", values=values, of=of)

    def set_status(self, status: str) -> None:
        """Say that the run goes on (RUNNING) or how it ended (FINISHED, FAILED, KILLED), and now."""
        self._add("status", status=status)

    def log_error(self, text: str) -> None:
        """Log why the run failed, as ``error.txt``."""
        self._add("text", name="error.txt", text=text)

    def log_artifact(self, path: Path, below: str = "") -> None:
        """Log a file into the folder of its kind, or one below; it must stay in place until it has arrived."""
        folder = posixpath.normpath(posixpath.join(artifact_folder(path.name), below))
        self._add("artifact", path=self._place(path), folder=None if folder == "." else folder)

    def log_results(self, folder: Path, below: str = "") -> None:
        """Log every table, text, plot and page that lies in a folder."""
        for path in sorted(folder.iterdir()):
            if path.suffix in FOLDERS and path.name != RECORD:
                self.log_artifact(path, below)

    def log_page(self, metrics: Mapping[str, float], table: "pd.DataFrame", description: str, step: int = 0) -> None:
        """Log what the run's page in MLflow shows of a result (:mod:`cxrnet.reporting.run_page`).

        Args:
            metrics: by name.
            table: all metrics, for MLflow's comparison of tables over runs.
            description: Markdown, the text on top of the page.
            step: of the metrics. MLflow draws bars with their values at step 0, and a line of one point at any other.
        """
        self.log_metrics(metrics, step)
        # As MlflowClient.log_table writes it, which would add the rows again where it is sent twice.
        self._add("text", name=_TABLE, text=table.to_json(orient="split", index=False))
        listed = json.dumps([{"path": _TABLE, "type": "table"}])
        self.set_tags({"mlflow.loggedArtifacts": listed, "mlflow.note.content": description})

    def log_bundle(self, folder: Path, classes: Sequence[str], defers: bool = False) -> None:
        """Log a bundle as the model ``bundle`` of the run; the tag ``cxrnet.model_uri`` has its address in MLflow.

        It must stay in place until it has arrived.
        """
        self._add("model", path=self._place(folder), classes=list(classes), defers=defers)

    def log_dataset(self, name: str, digest: str, source: str, counts: Mapping[str, object], context: str) -> None:
        """Log a manifest as a dataset input.

        Args:
            name: name of the data (``"covid19_image"``).
            digest: digest of the manifest; the tag ``cxrnet.data.digest.<context>`` has it in whole.
            source: a folder or an address.
            counts: images in each split and class.
            context: ``"training"`` or ``"evaluation"``.
        """
        told = {"name": name, "digest": digest, "source": source, "profile": json.dumps(counts), "context": context}
        self._add("dataset", **told)
        self.set_tags({f"cxrnet.data.digest.{context}": digest})

    def _add(self, kind: str, **arguments: object) -> None:
        if self._delivery:
            self._delivery.add(kind, arguments)

    def _place(self, path: Path) -> str:
        """Return where a file lies, from the run's folder on if it is in there: the folder may be moved."""
        path, folder = path.resolve(), self.folder.resolve()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


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
        run: run that gets them.
        monitors: monitors of :func:`system_monitors`; none for no system metrics.
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
