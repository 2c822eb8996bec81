"""One MLflow run around one whole command, and ``run.json`` in the command's folder."""

import contextlib
import getpass
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrnet.errors import CxrnetError
from cxrnet.processes import is_main_process
from cxrnet.provenance import git_revision, package_versions
from cxrnet.tracking.record import alone_in, now, read_record, start_of, write_record
from cxrnet.tracking.signals import signals_raise, was_killed
from cxrnet.tracking.store import open_experiment, printable, quiet
from cxrnet.tracking.tracked import TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxrnet")


@contextmanager
def track(
    folder: Path,
    uri: str | None,
    experiment: str,
    outputs: Path,
    name: str | None = None,
    command: Sequence[str] = (),
    parent_run_id: str | None = None,
    resume: bool = False,
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
        command: what runs, for ``run.json``.
        parent_run_id: the MLflow run that this one is a part of.
        resume: the folder's run goes on, in the same MLflow run. Where the store has that no more, a new one is made,
            with a warning. ``run.json`` keeps the first start and lists the resumptions.

    Raises:
        CxrnetError: the store cannot be used, or another process is at work in the folder; nothing has been started
            then.
    """
    if not is_main_process():  # the first process speaks for all of a distributed training
        yield TrackedRun(folder)
        return
    with signals_raise(), alone_in(folder):
        earlier = read_record(folder) if resume else {}
        run = _start(folder, uri, experiment, outputs, name, earlier) if uri else TrackedRun(folder)
        record = _record(earlier, folder, experiment, command)
        if uri or not earlier:  # an untracked resumption leaves the MLflow run to the next one
            record |= {"tracking_uri": printable(uri) if uri else None, "run_id": run.run_id}
        try:
            write_record(folder, {**record, "status": "RUNNING"})
            (folder / "error.txt").unlink(missing_ok=True)
            run.set_tags(_facts(folder) | ({"mlflow.parentRunId": parent_run_id} if parent_run_id else {}))
            yield run
        except BaseException as error:
            _finish(run, record, _status(error), error)
            raise
        _finish(run, record, "FINISHED", None)


def _record(earlier: Mapping[str, Any], folder: Path, experiment: str, command: Sequence[str]) -> dict[str, object]:
    start = start_of(command)
    if not earlier:
        return {"run_dir": str(folder.resolve()), "experiment": experiment, **start}
    kept = {name: value for name, value in earlier.items() if name not in ("status", "ended", "lost_calls")}
    return {**kept, "run_dir": str(folder.resolve()), "resumptions": [*earlier.get("resumptions", []), start]}


def _start(
    folder: Path, uri: str, experiment: str, outputs: Path, name: str | None, earlier: Mapping[str, Any]
) -> TrackedRun:
    experiment_id = open_experiment(uri, experiment, outputs)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run_id = _go_on(client, folder, earlier["run_id"]) if earlier.get("run_id") else None
    return TrackedRun(folder, client, run_id or client.create_run(experiment_id, run_name=name).info.run_id)


def _go_on(client: "MlflowClient", folder: Path, run_id: str) -> str | None:
    """Open an MLflow run again; None, with a warning, where it is no more."""
    from mlflow.exceptions import MlflowException

    try:
        with quiet():
            client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        log.warning("tracking: the MLflow run of '%s' can't go on, a new one is made (%s)", folder, reason)
        return None
    return run_id


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
    write_record(run.folder, {**record, "status": status, "ended": now(), "lost_calls": run.lost_calls})


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
