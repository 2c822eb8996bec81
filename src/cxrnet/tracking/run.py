"""One MLflow run around one whole command, and ``run.json`` in the command's folder."""

import contextlib
import getpass
import logging
import shlex
import sys
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrnet.core.machine import git_revision, package_versions
from cxrnet.core.process import is_main_process, signals_raise, was_killed
from cxrnet.errors import CxrnetError, Pruned
from cxrnet.tracking.delivery import Delivery
from cxrnet.tracking.outbox import Outbox
from cxrnet.tracking.record import PRUNED, PRUNED_TAG, RECORD, alone_in, now, read_record, start_of, write_record
from cxrnet.tracking.store import find_experiment, opened, printable, userinfo
from cxrnet.tracking.tracker import TrackedRun, sampled, system_monitors

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxrnet")

KEY = "cxrnet.key"
PATIENCE, LONGEST_END, AFTER_A_SIGNAL = 30.0, 120.0, 1.5
"""Seconds that the end of a run waits for MLflow: while nothing arrives; in all; in all after a signal."""
LONGEST_START = 15.0
"""Seconds after which a run that MLflow doesn't make is given up."""


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
    patience: float = PATIENCE,
    system_metrics: bool = False,
) -> Iterator[TrackedRun]:
    """Track everything that happens inside the ``with``.

    The run ends as FINISHED, as FAILED (the traceback, or the line of a :class:`CxrnetError`, is kept as
    ``error.txt``), as PRUNED where a search has stopped it, or, after Ctrl-C, SIGTERM or SIGHUP, as KILLED. The
    exception goes on.

    Args:
        folder: folder of this command's results; gets ``run.json`` and, after a failure, ``error.txt``.
        uri: what :func:`cxrnet.tracking.store.tracking_uri` returned; None: no MLflow, ``run.json`` only.
        experiment: name of the MLflow experiment.
        outputs: the folder of all runs.
        name: name of the run; MLflow invents one otherwise.
        command: what runs, for ``run.json``.
        parent_run_id: the MLflow run that this one is a part of.
        resume: the folder's run goes on, in the same MLflow run or, with a warning, in a new one where that is gone.
        patience: seconds that the end waits for MLflow while nothing arrives; what is left then is kept.
        system_metrics: log the use of processors, memory and GPUs.

    Raises:
        CxrnetError: the store cannot be used, another process is at work in the folder, or psutil lacks for system
            metrics; nothing has been started then.
    """
    if not is_main_process():  # the first process speaks for all of a distributed training
        yield TrackedRun(folder)
        return
    monitors = system_monitors() if system_metrics and uri else []
    with signals_raise(), alone_in(folder):
        earlier = read_record(folder) if resume else {}
        record = _record(folder, experiment, command, earlier)
        if uri or not earlier:  # an untracked resumption leaves the MLflow run to the next one
            record |= {"tracking_uri": printable(uri) if uri else None, "run_id": None}
        run = _begin(folder, uri, experiment, outputs, name, earlier, record) if uri else TrackedRun(folder)
        try:
            write_record(folder, {**record, "status": "RUNNING"})
            (folder / "error.txt").unlink(missing_ok=True)
            if earlier:
                run.set_status("RUNNING")
            run.set_tags(_facts(folder) | ({"mlflow.parentRunId": parent_run_id} if parent_run_id else {}))
            with sampled(run, monitors, str(record.get("started", now()))):
                yield run
        except BaseException as error:
            _finish(run, record, error, patience)
            raise
        _finish(run, record, None, patience)


def _record(folder: Path, experiment: str, command: Sequence[str], earlier: Mapping[str, Any]) -> dict[str, object]:
    """Put together what ``run.json`` says as a run starts or, after an ``earlier`` record, is resumed."""
    start, run_dir = start_of(command), str(folder.resolve())
    if not earlier:
        return {"run_dir": run_dir, "experiment": experiment, **start}
    ended = ("status", "ended", "unsent", "refused", "pruned")  # the first start stays
    kept = {name: value for name, value in earlier.items() if name not in ended}
    return {**kept, "run_dir": run_dir, "resumptions": [*earlier.get("resumptions", []), start]}


def _begin(
    folder: Path,
    uri: str,
    experiment: str,
    outputs: Path,
    name: str | None,
    earlier: Mapping[str, Any],
    record: dict[str, object],
) -> TrackedRun:
    """Find or make the MLflow run, and begin to send; the record gets its id and the key by which it is found."""
    with opened(uri) as client:
        run_id = earlier.get("run_id")
        if run_id and not _is_there(client, run_id):
            log.warning("tracking: MLflow has the run of '%s' no more; a new one is made, and gets everything", folder)
            run_id = None
        if run_id is None:
            experiment_id = find_experiment(client, experiment, outputs)
            if "key" not in record or earlier.get("run_id"):  # else it was killed before it learnt of its MLflow run
                record["key"] = uuid.uuid4().hex
            # On disk before MLflow makes the run: killed in between, the run is found when it goes on.
            write_record(folder, {**record, "status": "RUNNING"})
            try:
                run_id = _make(client, experiment_id, name, str(record["key"]))
            except Exception:  # nothing has been started
                if earlier:
                    write_record(folder, earlier)
                else:
                    (folder / RECORD).unlink()
                raise
    record["run_id"] = run_id
    delivery = Delivery(client, run_id, Outbox(folder, run_id, userinfo(uri)), folder)
    delivery.start()
    return TrackedRun(folder, run_id, delivery)


def _make(client: "MlflowClient", experiment_id: str, name: str | None, key: str) -> str:
    """Make the MLflow run of a key, once, also where the answer is lost."""
    from mlflow.exceptions import MlflowException

    began = time.monotonic()
    for pause in (0.5, 1.0, 2.0, None):
        try:
            if found := client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1):
                return str(found[0].info.run_id)
            return str(client.create_run(experiment_id, run_name=name, tags={KEY: key}).info.run_id)
        except MlflowException:
            if pause is None or time.monotonic() - began > LONGEST_START:
                raise
            time.sleep(pause)
    raise AssertionError


def _is_there(client: "MlflowClient", run_id: str) -> bool:
    """Tell whether the store has a run still; one that doesn't answer now counts as having it."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        return bool(error.error_code != "RESOURCE_DOES_NOT_EXIST")


def _finish(run: TrackedRun, record: dict[str, object], error: BaseException | None, patience: float) -> None:
    """Write and log how a run ended, and give what has not reached MLflow the time to arrive."""
    ended_well = error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
    status = "KILLED" if error and was_killed(error) else "FINISHED" if ended_well else "FAILED"
    if isinstance(error, Pruned):
        status, record = PRUNED, {**record, "pruned": str(error)}
        run.set_tags({PRUNED_TAG: error, "mlflow.note.content": f"The search ended this run: {error}."})
    if error is not None and status == "FAILED":
        text = str(error) if isinstance(error, CxrnetError) else "".join(traceback.format_exception(error))
        text = text.rstrip() + "\n"
        with contextlib.suppress(OSError):  # a full disk may be what the error is about
            (run.folder / "error.txt").write_text(text, encoding="utf-8")
        run.log_error(text)
    run.set_status("FINISHED" if status == PRUNED else status)
    try:
        run.close(patience, AFTER_A_SIGNAL if status == "KILLED" else LONGEST_END)
    finally:
        told = {"unsent": run.unsent} | ({"refused": run.refused} if run.refused else {})
        try:
            write_record(run.folder, {**record, "status": status, "ended": now(), **told})
        except OSError as failed:
            log.warning("'%s': %s can't be written (%s), so it says RUNNING still", run.folder, RECORD, failed.strerror)
        if run.unsent:
            log.warning(
                "tracking: %d calls have not reached MLflow; they are kept, to send them: python -m cxrnet.sync %s",
                run.unsent,
                shlex.quote(str(run.folder)),
            )


def _facts(folder: Path) -> dict[str, object]:
    """Collect tags of who ran what, where; the names that start with ``mlflow.`` are columns of its page."""
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
