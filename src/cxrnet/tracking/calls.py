"""The calls of the outbox, made to MLflow. Made twice, each leaves what it leaves made once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.tracking.logged_model import log_model
from cxrnet.tracking.outbox import Call

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST_PARAM, LONGEST_TAG, LONGEST_DIGEST = 6000, 8000, 36  # characters, of MLflow 3.17


class NothingToSend(Exception):  # noqa: N818 (it is what happened)
    """The file of a call is not there any more, or the call is none of ours."""


def made_by(call: Call) -> str:
    """What a call does, for messages: ``log metrics``."""
    if call.kind == "artifact":
        return f"log {Path(str(call.arguments.get('path'))).name}"
    return DOES.get(call.kind, call.kind)


def make(client: "MlflowClient", run_id: str, call: Call, folder: Path) -> None:
    """Make a call.

    Args:
        client: of the store.
        run_id: of the run.
        call: from the outbox.
        folder: of the run, to which the paths in the call are relative.

    Raises:
        NothingToSend: there is no such call, or what it would send is gone or not of this run.
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
    KINDS[call.kind](client, run_id, call)


def _log_params(client: "MlflowClient", run_id: str, call: Call) -> None:
    """MLflow never changes a parameter: those it has stay, and what differs is told by the tag."""
    from mlflow.entities import Param

    values = call.arguments["values"]
    known = client.get_run(run_id).data.params
    new = [Param(name, value) for name, value in values.items() if name not in known]
    client.log_batch(run_id, params=new, synchronous=True)
    drift = [f"{k}: {known[k]} -> {v}" for k, v in values.items() if known.get(k, v) != v]
    if drift:
        client.set_tag(run_id, "cxrnet.param_drift", shortened("; ".join(drift), LONGEST_TAG))


def _log_metrics(client: "MlflowClient", run_id: str, call: Call) -> None:
    """A point with the same name, step, time and value is one point in MLflow."""
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
    """MLflow has a data set of the same name and digest once, and a run has it once as its input."""
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
    log_model(client, run_id, Path(call.arguments["path"]), call.arguments["classes"], call.arguments["refers"])


def _set_status(client: "MlflowClient", run_id: str, call: Call) -> None:
    status = call.arguments["status"]
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status, call.time)


KINDS: dict[str, Callable[["MlflowClient", str, Call], None]] = {
    "params": _log_params,
    "metrics": _log_metrics,
    "tags": _set_tags,
    "artifact": _log_artifact,
    "text": _log_text,
    "dataset": _log_dataset,
    "model": _log_model,
    "status": _set_status,
}
DOES = {
    "params": "log parameters",
    "metrics": "log metrics",
    "tags": "set tags",
    "text": "log the error",
    "dataset": "log the data set",
    "model": "log the bundle",
    "status": "set the status",
}


def shortened(text: str, length: int) -> str:
    """A text that MLflow takes: no longer, and what is no UTF-8 (part of a file's name) is escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[: length - 4]} ..."
