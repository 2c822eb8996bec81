"""The calls of the outbox on their way to MLflow, in a thread of its own: nothing waits for the server.

Made twice, a call leaves what it leaves made once.
"""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.tracking.model import log_model
from cxrnet.tracking.names import LONGEST_DIGEST, LONGEST_TAG, shortened
from cxrnet.tracking.outbox import Call, Outbox
from cxrnet.tracking.store import printable, quiet, without_secret

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxrnet")

TITLES = {
    "params": "log parameters",
    "metrics": "log metrics",
    "tags": "set tags",
    "artifact": "log",
    "text": "log",
    "dataset": "log the data set",
    "model": "log the bundle",
    "status": "set the status",
}
"""Kinds of calls, in words for messages."""
_LOCKED = "database is locked"
_LATER = (401, 403, 404, 407, 408, 425, 429)
"""HTTP status of refusals that come from the way to the server, or pass: the call waits."""
_FIRST_PAUSE, _LONGEST_PAUSE, _LAST_PAUSE = 0.25, 30.0, 1.0
"""Seconds between two attempts: the pause doubles from the first to the longest; the longest when the run ends."""
_HICCUP = 5.0
"""Seconds for which MLflow may fail before the user hears of it."""


class _NothingToSend(Exception):  # noqa: N818 (it is what happened)
    """The file of a call is not there any more, or the call is none of ours."""


class Delivery:
    """Sends the calls of a run to MLflow, in a thread of its own once it is started.

    Args:
        client: client of the store.
        run_id: id of the run.
        outbox: outbox of its folder.
        folder: folder of the run.
    """

    def __init__(self, client: "MlflowClient", run_id: str, outbox: Outbox, folder: Path) -> None:
        self._client, self._run_id, self._folder = client, run_id, folder
        self.outbox = outbox
        self._moved = time.monotonic()  # when a call last arrived, or the first of those that wait was made
        self._stopped = threading.Event()  # no further call is made or settled
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._hurried = False  # something new waits, or the run ends
        self._ending = False
        self._quiet = ExitStack()
        self._thread = threading.Thread(target=self._work, name="cxrnet-mlflow", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        # By the main thread and for as long as the other one runs: the levels of loggers are of the whole process.
        self._quiet.enter_context(quiet())
        self._thread.start()

    def add(self, kind: str, arguments: Mapping[str, object]) -> None:
        """Write a call down, to be sent as soon as may be."""
        if os.getpid() != self._process:  # a worker of a data loader, a copy of this process without the thread
            return
        if not self.outbox.waiting:
            self._moved = time.monotonic()
        self.outbox.add(kind, arguments)
        self._wake()

    def close(self, patience: float, at_most: float) -> None:
        """Wait until everything has arrived, as long as calls do arrive, and end.

        Args:
            patience: seconds without any arriving after which the rest is left.
            at_most: seconds that this may take in all.
        """
        began = time.monotonic()
        self._ending = True
        self._wake()
        try:
            with self._changed:
                while self.outbox.waiting:
                    # A server that has been away for long gets a last chance, no more.
                    until = min(max(self._moved + patience, began + patience / 6), began + at_most)
                    if (left := until - time.monotonic()) <= 0:
                        break
                    self._changed.wait(left)
        finally:
            self._stopped.set()
            self._wake()
        self._thread.join(0.2)
        if not self._thread.is_alive():  # else it hangs in a call, whose end is to be heard by nobody
            self._quiet.close()

    def _wake(self) -> None:
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def send(self) -> str | None:
        """Make the waiting calls, in order, each until it has arrived or is refused for good.

        A call that fails while the server answers holds up the calls of its kind only: a server whose storage of
        artifacts is out of order still takes metrics.

        Returns:
            The calls that do not arrive and why; ``None`` where nothing waits.
        """
        held: dict[str, str] = {}
        number = 0
        while not self._stopped.is_set() and (call := self.outbox.after(number)):
            number = call.number
            if call.kind in held:
                continue
            error: Exception | None = None
            try:
                self._make(call)
            except Exception as raised:  # whatever a server, its database or its artifact storage may raise
                error = raised
            if self._stopped.is_set():
                break
            if error is None:
                self.outbox.settle(call)
                self._moved = time.monotonic()
            elif _is_final(error):
                reason = f"{_title(call)} ({self._reason(error)})"
                self.outbox.settle(call, reason)
                log.warning("tracking: MLflow does not %s", reason)
            else:
                held[call.kind] = f"{_title(call)}: {self._reason(error)}"
                # A store may be readable and take nothing at the moment.
                if getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE" or not self._answers():
                    break
        return next(iter(held.values()), None)

    def _make(self, call: Call) -> None:
        """Make a call: what MLflow has of it already stays as it is."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        client, run_id, told = self._client, self._run_id, call.arguments
        match call.kind:
            case "params":  # MLflow never changes one: those it has stay, and a tag tells what differs
                known = client.get_run(run_id).data.params
                new = [Param(name, value) for name, value in told["values"].items() if name not in known]
                client.log_batch(run_id, params=new, synchronous=True)
                if drift := [f"{k}: {known[k]} -> {v}" for k, v in told["values"].items() if known.get(k, v) != v]:
                    client.set_tag(run_id, "cxrnet.param_drift", shortened("; ".join(drift), LONGEST_TAG))
            case "metrics":  # a point with the same name, step, time and value is one point in MLflow
                points = [Metric(name, value, call.time, told["step"]) for name, value in told["values"].items()]
                client.log_batch(run_id, metrics=points, synchronous=True)
            case "tags":
                tags = [RunTag(name, value) for name, value in told["values"].items()]
                client.log_batch(told.get("of") or run_id, tags=tags, synchronous=True)
            case "artifact":
                client.log_artifact(run_id, str(self._of_run(told["path"])), told["folder"])
            case "text":
                client.log_text(run_id, told["text"], told["name"])
            case "dataset":  # MLflow has one of the same name and digest once, and a run has it once as its input
                dataset = Dataset(
                    name=told["name"],
                    digest=told["digest"][:LONGEST_DIGEST],
                    source_type="local",
                    source=json.dumps({"uri": told["source"]}),
                    profile=told["profile"],
                )
                tag = InputTag("mlflow.data.context", told["context"])
                client.log_inputs(run_id, [DatasetInput(dataset, [tag])])
            case "model":
                defers = told["defers"] if "defers" in told else told["refers"]  # before format 5 of the bundle
                log_model(client, run_id, self._of_run(told["path"]), told["classes"], defers)
            case "status" if told["status"] == "RUNNING":
                client.update_run(run_id, status="RUNNING")
            case "status":
                client.set_terminated(run_id, told["status"], call.time)
            case _:
                raise _NothingToSend("there is no such call")

    def _of_run(self, path: str) -> Path:
        place = self._folder / path
        if not place.resolve().is_relative_to(self._folder.resolve()):  # the folder may be a stranger's
            raise _NothingToSend(f"'{place}' is not in the folder of the run")
        if not place.exists():
            raise _NothingToSend(f"'{place}' is not there any more")
        return place

    def _answers(self) -> bool:
        try:
            self._client.get_run(self._run_id)
        except Exception:  # as above
            return False
        return True

    def _reason(self, error: Exception) -> str:
        """Say what went wrong in one line, without user and password."""
        if _LOCKED in str(error):
            return _LOCKED  # SQLAlchemy has more words for it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return without_secret(lines[0] if lines else type(error).__name__, self._client.tracking_uri)

    def _work(self) -> None:
        pause, failing_since, said = 0.0, None, False
        while not self._stopped.is_set():
            before, began = self.outbox.waiting, time.monotonic()
            trouble = self.send()
            with self._changed:
                self._changed.notify_all()
            if trouble is None:
                pause, failing_since, said = 0.0, None, False
            else:
                pause = 0.0 if self.outbox.waiting < before else pause
                pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                failing_since = failing_since or began
                if time.monotonic() - failing_since >= _HICCUP and not said:
                    said = True
                    log.warning(
                        "tracking: MLflow at '%s' does not take what it is sent (%s); the run goes on, and sends it "
                        "again until it arrives",
                        printable(self._client.tracking_uri),
                        trouble,
                    )
            self._rest(pause)

    def _rest(self, pause: float) -> None:
        """Wait for a new call; after a failure, for the pause and no longer."""
        with self._changed:
            began = time.monotonic()
            while pause and not self._stopped.is_set():
                left = began + (min(pause, _LAST_PAUSE) if self._ending else pause) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if not pause and not self._hurried:
                self._changed.wait()
            self._hurried = False


def _title(call: Call) -> str:
    """Name a call for messages: ``log metrics``, ``log report.html``."""
    title = TITLES.get(call.kind, call.kind)
    file = call.arguments.get("path") or call.arguments.get("name")
    return f"{title} {Path(str(file)).name}" if title == "log" else title


def _is_final(error: Exception) -> bool:
    """Tell whether a call will never be taken; any other error may be of the way, the server or the moment."""
    from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS as HTTP_STATUS
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        told = re.search(r"failed with error code (\d{3}) ", str(error))
        code = int(told[1]) if told else HTTP_STATUS.get(error.error_code, 500)
    elif isinstance(error, HTTPError) and error.response is not None:
        code = error.response.status_code
    else:
        return isinstance(error, _NothingToSend)
    return 400 <= code < 500 and code not in _LATER
