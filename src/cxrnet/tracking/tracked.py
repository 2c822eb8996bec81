"""What a command tells MLflow of its run."""

import hashlib
import json
import posixpath
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.tracking.outbox import Outbox
from cxrnet.tracking.record import RECORD

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST_KEY, LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 250, 6000, 8000, 36  # characters, of MLflow 3.17
LARGEST_BATCH = 1000  # metrics in one call


class TrackedRun:
    """What a command tells MLflow. Made by :func:`cxrnet.tracking.run.track`.

    No method raises because of MLflow: a call that finds no server waits until it is back (:class:`Outbox`), and
    all that matters is on disk anyway. Without tracking, or on a process that is not the first of a distributed
    training, the methods do nothing.

    Attributes:
        folder: the folder of the run on disk.
        run_id: MLflow's name of the run; None without tracking.
    """

    def __init__(self, folder: Path, client: "MlflowClient | None" = None, run_id: str | None = None) -> None:
        self.folder = folder
        self.run_id = run_id
        self._client = client
        self._outbox = Outbox(client.tracking_uri) if client else None

    @property
    def lost_calls(self) -> int:
        """Calls that have not reached MLflow (yet)."""
        return self._outbox.lost if self._outbox else 0

    def send(self, what: str, call: "Callable[[MlflowClient, str], object]") -> None:
        """Call MLflow with its client and the id of the run, now or when the server is back.

        Args:
            what: what the call does, for the warning (``"log metrics"``).
            call: must bear to be made twice.
        """
        client, run_id = self._client, self.run_id
        if self._outbox and client and run_id:
            self._outbox.send(what, lambda: call(client, run_id))

    def flush(self) -> None:
        """Look for the server once more if calls are waiting."""
        if self._outbox:
            self._outbox.flush()

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log the resolved config, flat (``{"model.name": "resnet50"}``); a longer value than MLflow takes is cut.

        MLflow never changes a parameter: in a resumed run only new ones are logged, and what differs is written to
        the tag ``cxrnet.param_drift``.
        """
        values = {_key(name): _shortened(str(value), LONGEST_PARAM) for name, value in params.items()}

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Param

            known = client.get_run(run_id).data.params
            new = [Param(name, value) for name, value in values.items() if name not in known]
            client.log_batch(run_id, params=new, synchronous=True)
            drift = [f"{k}: {known[k]} -> {v}" for k, v in values.items() if known.get(k, v) != v]
            if drift:
                client.set_tag(run_id, "cxrnet.param_drift", _shortened("; ".join(drift), LONGEST_TAG))

        self.send("log parameters", call)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values of one step.

        Args:
            metrics: a name that MLflow does not take is written in another way, see :func:`_key`.
            step: the epoch, running on across phases.
        """
        values = {_key(name): float(value) for name, value in metrics.items()}
        now = int(time.time() * 1000)

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Metric

            client.log_batch(run_id, metrics=[Metric(k, v, now, step) for k, v in values.items()], synchronous=True)

        self.send("log metrics", call)

    def log_missing(self, epochs: Sequence[tuple[Mapping[str, float], int]]) -> None:
        """Log the metrics of epochs that MLflow has not got, before a run goes on.

        It may have been stopped between saving an epoch and logging it, or the server may have been away; and where
        the MLflow run is gone, the new one gets them all.

        Args:
            epochs: the metrics of each epoch, which all have the same names, and its number.
        """
        points = [(_key(name), float(value), step) for metrics, step in epochs for name, value in metrics.items()]
        now_ms = int(time.time() * 1000)

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Metric

            known = {point.step for point in client.get_metric_history(run_id, points[0][0])}
            missing = [Metric(name, value, now_ms, step) for name, value, step in points if step not in known]
            for start in range(0, len(missing), LARGEST_BATCH):
                client.log_batch(run_id, metrics=missing[start : start + LARGEST_BATCH], synchronous=True)

        if points:
            self.send("log the metrics of earlier epochs", call)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; a longer value than MLflow takes is cut."""
        values = {_key(name): _shortened(str(value), LONGEST_TAG) for name, value in tags.items()}

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import RunTag

            client.log_batch(run_id, tags=[RunTag(k, v) for k, v in values.items()], synchronous=True)

        self.send("set tags", call)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file or a folder under its own name, in a folder of the run's artifacts."""
        self.send(f"log {path.name}", lambda client, run_id: client.log_artifact(run_id, str(path), folder))

    def log_results(self, folder: Path) -> None:
        """Log every table, text, figure and page that lies in a folder."""
        for path in sorted(folder.iterdir()):
            if path.suffix in (".png", ".html", ".md", ".txt", ".json", ".csv", ".parquet") and path.name != RECORD:
                self.log_artifact(path)

    def log_dataset(self, name: str, digest: str, source: str, counts: Mapping[str, object], context: str) -> None:
        """Log a manifest as a dataset input.

        Args:
            name: of the data (``"covid19_image"``).
            digest: of the manifest. MLflow's own field takes the first 36 digits; the tag
                ``cxrnet.data.digest.<context>`` has all.
            source: where the data come from: a folder or an address.
            counts: images in each split and class, or whatever tells the size.
            context: ``"training"`` or ``"evaluation"``.
        """

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(
                name=name,
                digest=digest[:LONGEST_DIGEST],
                source_type="local",
                source=json.dumps({"uri": source}),
                profile=json.dumps(counts),
            )
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

        self.send("log the data set", call)
        self.set_tags({f"cxrnet.data.digest.{context}": digest})


def _key(name: str) -> str:
    """The name of a metric, parameter or tag in MLflow, readable and another one for every name.

    The name of a class may hold anything. MLflow takes at most 250 letters, digits and ``_-. /`` (and ``:``, but not on
    Windows), and what would be the same as the path of a file. Other characters become ``_``, and a short hash of them
    and their places, counted from the end, is added: all metrics of a class get the same one, in every run.
    """
    name = unicodedata.normalize("NFC", name)  # in folders on macOS an umlaut is two characters
    fitting = re.sub(r"[^/\w.\- ]", "_", name)
    if fitting != posixpath.normpath(fitting) or fitting.startswith(("/", "..")):
        fitting = re.sub(r"[/.]", "_", fitting)
    changed: object = [(place, name[place]) for place in range(-len(name), 0) if name[place] != fitting[place]]
    if not changed and len(name) <= LONGEST_KEY:
        return name
    beginning = fitting[: LONGEST_KEY - 9]
    if beginning != fitting:
        changed = name
    return f"{beginning}_{hashlib.sha256(repr(changed).encode(errors='surrogatepass')).hexdigest()[:8]}"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."
