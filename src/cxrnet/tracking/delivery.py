"""The calls of the outbox on their way to MLflow. Made twice, a call leaves what it leaves made once."""

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.tracking.logged_model import log_model
from cxrnet.tracking.names import LONGEST_DIGEST, LONGEST_TAG, shortened
from cxrnet.tracking.outbox import Call, Outbox
from cxrnet.tracking.store import without_secret

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxrnet")

LOCKED = "database is locked"
LATER = (401, 403, 404, 407, 408, 425, 429)
"""HTTP status of refusals that come from the way to the server, or pass: the call waits."""


class NothingToSend(Exception):  # noqa: N818 (it is what happened)
    """The file of a call is not there any more, or the call is none of ours."""


class Delivery:
    """Sends the calls of a run to MLflow.

    Args:
        client: of the store.
        run_id: of the run.
        outbox: of its folder.
        folder: of the run.

    Attributes:
        stopped: set it to have no further call made or settled.
        moved: when a call last arrived, or the first of those that wait was made, by the monotonic clock.
    """

    def __init__(self, client: "MlflowClient", run_id: str, outbox: Outbox, folder: Path) -> None:
        self._client, self._run_id, self._folder = client, run_id, folder
        self.outbox = outbox
        self.stopped = threading.Event()
        self.moved = time.monotonic()

    def send(self) -> str | None:
        """Make the waiting calls, in order, each until it has arrived or is refused for good.

        A call that fails while the server answers holds up the calls of its kind only: a server whose storage of
        artifacts is out of order still takes metrics.

        Returns:
            The calls that do not arrive and why; ``None`` where nothing waits.
        """
        held: dict[str, str] = {}
        number = 0
        while not self.stopped.is_set() and (call := self.outbox.after(number)):
            number = call.number
            if call.kind in held:
                continue
            error = self._attempt(call)
            if self.stopped.is_set():
                break
            if error is None:
                self.outbox.settle(call)
                self.moved = time.monotonic()
            elif _is_final(error):
                reason = f"{_title(call)} ({self._reason(error)})"
                self.outbox.settle(call, reason)
                log.warning("tracking: MLflow does not %s", reason)
            else:
                held[call.kind] = f"{_title(call)}: {self._reason(error)}"
                if _is_busy(error) or not self._answers():
                    break
        return next(iter(held.values()), None)

    def _attempt(self, call: Call) -> Exception | None:
        try:
            make(self._client, self._run_id, call, self._folder)
        except Exception as error:  # whatever a server, its database or its artifact storage may raise
            return error
        return None

    def _answers(self) -> bool:
        try:
            self._client.get_run(self._run_id)
        except Exception:  # as above
            return False
        return True

    def _reason(self, error: Exception) -> str:
        """Say what went wrong in one line, without user and password."""
        if LOCKED in str(error):
            return LOCKED  # SQLAlchemy has more words for it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return without_secret(lines[0] if lines else type(error).__name__, self._client.tracking_uri)


def make(client: "MlflowClient", run_id: str, call: Call, folder: Path) -> None:
    """Make a call.

    Args:
        client: of the store.
        run_id: of the run.
        call: from the outbox.
        folder: of the run, to which the paths in the call are relative.

    Raises:
        NothingToSend: there is no such call, or its file is gone or not of this run.
        Exception: whatever MLflow, its database or its artifact storage raise.
    """
    if call.kind not in KINDS:
        raise NothingToSend("there is no such call")
    if path := call.arguments.get("path"):
        place = folder / str(path)
        if not place.resolve().is_relative_to(folder.resolve()):  # the folder may be a stranger's
            raise NothingToSend(f"'{place}' is not in the folder of the run")
        if not place.exists():
            raise NothingToSend(f"'{place}' is not there any more")
        call = replace(call, arguments={**call.arguments, "path": str(place)})
    KINDS[call.kind][1](client, run_id, call)


def _log_params(client: "MlflowClient", run_id: str, call: Call) -> None:
    """Log parameters. MLflow never changes one: those it has stay, and a tag tells what differs."""
    from mlflow.entities import Param

    values = call.arguments["values"]
    known = client.get_run(run_id).data.params
    new = [Param(name, value) for name, value in values.items() if name not in known]
    client.log_batch(run_id, params=new, synchronous=True)
    drift = [f"{k}: {known[k]} -> {v}" for k, v in values.items() if known.get(k, v) != v]
    if drift:
        client.set_tag(run_id, "cxrnet.param_drift", shortened("; ".join(drift), LONGEST_TAG))


def _log_metrics(client: "MlflowClient", run_id: str, call: Call) -> None:
    """Log metrics. A point with the same name, step, time and value is one point in MLflow."""
    from mlflow.entities import Metric

    values, step = call.arguments["values"], call.arguments["step"]
    client.log_batch(run_id, metrics=[Metric(k, v, call.time, step) for k, v in values.items()], synchronous=True)


def _set_tags(client: "MlflowClient", run_id: str, call: Call) -> None:
    from mlflow.entities import RunTag

    tags = [RunTag(name, value) for name, value in call.arguments["values"].items()]
    client.log_batch(call.arguments.get("of") or run_id, tags=tags, synchronous=True)


def _log_artifact(client: "MlflowClient", run_id: str, call: Call) -> None:
    client.log_artifact(run_id, call.arguments["path"], call.arguments["folder"])


def _log_text(client: "MlflowClient", run_id: str, call: Call) -> None:
    client.log_text(run_id, call.arguments["text"], call.arguments["name"])


def _log_dataset(client: "MlflowClient", run_id: str, call: Call) -> None:
    """Log a data set. MLflow has one of the same name and digest once, and a run has it once as its input."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    told = call.arguments
    dataset = Dataset(
        name=told["name"],
        digest=told["digest"][:LONGEST_DIGEST],
        source_type="local",
        source=json.dumps({"uri": told["source"]}),
        profile=told["profile"],
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", told["context"])])])


def _log_model(client: "MlflowClient", run_id: str, call: Call) -> None:
    told = call.arguments
    defers = told["defers"] if "defers" in told else told["refers"]  # as runs before format 5 of the bundle wrote it
    log_model(client, run_id, Path(told["path"]), told["classes"], defers)


def _set_status(client: "MlflowClient", run_id: str, call: Call) -> None:
    status = call.arguments["status"]
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status, call.time)


KINDS: dict[str, tuple[str, Callable[["MlflowClient", str, Call], None]]] = {
    "params": ("log parameters", _log_params),
    "metrics": ("log metrics", _log_metrics),
    "tags": ("set tags", _set_tags),
    "artifact": ("log", _log_artifact),
    "text": ("log", _log_text),
    "dataset": ("log the data set", _log_dataset),
    "model": ("log the bundle", _log_model),
    "status": ("set the status", _set_status),
}
"""By the kind of a call, its title for messages and its function."""


def _title(call: Call) -> str:
    """Name a call for messages: ``log metrics``, ``log report.html``."""
    title = KINDS[call.kind][0] if call.kind in KINDS else call.kind
    file = call.arguments.get("path") or call.arguments.get("name")
    return f"{title} {Path(str(file)).name}" if title == "log" else title


def _is_busy(error: Exception) -> bool:
    """Tell whether the whole store takes nothing at the moment, though it can be read."""
    return getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE"


def _is_final(error: Exception) -> bool:
    """Tell whether a call will never be taken; any other error may be of the way, the server or the moment."""
    from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS as HTTP_STATUS
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, NothingToSend):
        return True
    if isinstance(error, MlflowException):
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return True
        told = re.search(r"failed with error code (\d{3}) ", str(error))
        code = int(told[1]) if told else HTTP_STATUS.get(error.error_code, 500)
    elif isinstance(error, HTTPError) and error.response is not None:
        code = error.response.status_code
    else:
        return False
    return 400 <= code < 500 and code not in LATER
