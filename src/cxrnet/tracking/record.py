"""``run.json`` in a run's folder: command, tracking, end of the run; and the lock of who is at work there now."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cxrnet.core.atomic import write_json
from cxrnet.errors import CxrnetError

log = logging.getLogger("cxrnet")

RECORD = "run.json"


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a run; empty where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder: Path, record: Mapping[str, object]) -> None:
    """Write the record of a run, whole or not at all."""
    write_json(folder / RECORD, record)


def start_of(command: Sequence[str]) -> dict[str, object]:
    """Describe a start: when, by which command, and which process runs it."""
    return {"started": now(), "command": list(command), "process": os.getpid(), "host": socket.gethostname()}


def last_start(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the last start in a record: of the run, or of the last time it was resumed."""
    resumptions = record.get("resumptions", [])
    return resumptions[-1] if resumptions else record


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder.

    The operating system gives the lock back when a process dies, however it does. Where the file system has no locks,
    a warning says that the user has to see to it.

    Raises:
        CxrnetError: another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        start = last_start(read_record(folder))
        who = f"process {start.get('process')} on {start.get('host')}" if start else "another process"
        raise CxrnetError(f"'{folder}': {who} is at work on this run; wait for its end, or end it") from error
    except (OSError, NotImplementedError) as error:
        log.warning(
            "'%s' can't be locked (%s): two commands at once would spoil the run, and nothing keeps them apart; don't "
            "resume it while it still runs",
            folder,
            error,
        )
    try:
        yield
    finally:
        lock.release()


def now() -> str:
    """Return the local time, with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
