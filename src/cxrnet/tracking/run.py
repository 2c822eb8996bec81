"""One MLflow run around one whole command, and ``run.json`` in the command's folder."""

import contextlib
import getpass
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.errors import CxrnetError
from cxrnet.provenance import git_revision, package_versions
from cxrnet.tracking.outbox import Outbox
from cxrnet.tracking.signals import signals_raise, was_killed
from cxrnet.tracking.store import open_experiment, printable

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxrnet")

RECORD = "run.json"
LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 6000, 8000, 36  # characters, of MLflow 3.17


class TrackedRun:
    """What a command tells MLflow. Made by :func:`track`.

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
        """Log the resolved config, flat (``{"model.name": "resnet50"}``); a longer value than MLflow takes is cut."""
        values = {_key(name): _shortened(str(value), LONGEST_PARAM) for name, value in params.items()}

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Param

            params = [Param(name, value) for name, value in values.items()]
            client.log_batch(run_id, params=params, synchronous=True)

        self.send("log parameters", call)

    def log_config(self, text: str) -> None:
        """Log the whole resolved config, in YAML, as the artifact ``config.yaml``."""
        self.send("log the config", lambda client, run_id: client.log_text(run_id, text, "config.yaml"))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log values of one step.

        Args:
            metrics: characters of a name that MLflow does not know become ``_``.
            step: the epoch, running on across phases.
        """
        values = {_key(name): float(value) for name, value in metrics.items()}
        now = int(time.time() * 1000)

        def call(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Metric

            client.log_batch(run_id, metrics=[Metric(k, v, now, step) for k, v in values.items()], synchronous=True)

        self.send("log metrics", call)

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


@contextmanager
def track(
    folder: Path,
    uri: str | None,
    experiment: str,
    outputs: Path,
    name: str | None = None,
) -> Iterator[TrackedRun]:
    """Track everything that happens inside the ``with``.

    The run ends as FINISHED, as FAILED (the traceback, or the line of a :class:`CxrnetError`, is kept as
    ``error.txt``) or, after Ctrl-C, SIGTERM or SIGHUP, as KILLED. The exception goes on.

    Args:
        folder: of this command's results; gets ``run.json`` and, after a failure, ``error.txt``.
        uri: what :func:`cxrnet.tracking.store.tracking_uri` returned; None: no MLflow, ``run.json`` only.
        experiment: name of the MLflow experiment.
        outputs: the folder of all runs.
        name: of the run; MLflow invents one otherwise.

    Raises:
        CxrnetError: the store cannot be used; nothing has been started then.
    """
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) != 0:  # the first process speaks for all of a distributed training
        yield TrackedRun(folder)
        return
    record: dict[str, object] = {"run_dir": str(folder.resolve()), "experiment": experiment, "started": _now()}
    with signals_raise():
        run = _start(folder, uri, experiment, outputs, name) if uri else TrackedRun(folder)
        record |= {"tracking_uri": printable(uri) if uri else None, "run_id": run.run_id}
        try:
            _write_record(folder, {**record, "status": "RUNNING"})
            run.set_tags(_facts(folder))
            yield run
        except BaseException as error:
            _finish(run, record, _status(error), error)
            raise
        _finish(run, record, "FINISHED", None)


def _start(folder: Path, uri: str, experiment: str, outputs: Path, name: str | None) -> TrackedRun:
    experiment_id = open_experiment(uri, experiment, outputs)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return TrackedRun(folder, client, client.create_run(experiment_id, run_name=name).info.run_id)


def _status(error: BaseException) -> str:
    if was_killed(error):
        return "KILLED"
    succeeded = isinstance(error, SystemExit) and error.code in (None, 0)
    return "FINISHED" if succeeded else "FAILED"


def _finish(run: TrackedRun, record: dict[str, object], status: str, error: BaseException | None) -> None:
    run.send("set the status", lambda client, run_id: client.set_terminated(run_id, status))
    if error is not None and status == "FAILED":
        file = run.folder / "error.txt"
        text = str(error) if isinstance(error, CxrnetError) else "".join(traceback.format_exception(error))
        file.write_text(text.rstrip() + "\n", encoding="utf-8")
        run.log_artifact(file)
    run.flush()
    if run.lost_calls:
        log.warning("tracking: %d calls did not reach MLflow; all results are in '%s'", run.lost_calls, run.folder)
    _write_record(run.folder, {**record, "status": status, "ended": _now(), "lost_calls": run.lost_calls})


def _write_record(folder: Path, record: Mapping[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{RECORD}.partial"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / RECORD)


def _facts(folder: Path) -> dict[str, object]:
    """Tags that say who ran what, where; the names that start with ``mlflow.`` are columns of its page."""
    facts: dict[str, object] = {
        "cxrnet.run_dir": str(folder.resolve()),
        "mlflow.source.name": Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
    }
    with contextlib.suppress(OSError, KeyError):  # a container may run a user who has no name
        facts["mlflow.user"] = getpass.getuser()
    if revision := git_revision(Path.cwd()):
        facts["mlflow.source.git.commit"] = revision["commit"]
        facts["mlflow.source.git.branch"] = revision["branch"]
        facts["git.dirty"] = str(revision["dirty"]).lower()
    return facts | {f"version.{package}": version for package, version in package_versions().items()}


def _key(name: str) -> str:
    """A name of a class may hold anything; MLflow takes letters, digits and ``_-. /``."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
