"""Calls that did not reach MLflow while a run was at work, sent later."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cxrnet.core import console
from cxrnet.errors import CxrnetError
from cxrnet.tracking.delivery import Delivery
from cxrnet.tracking.outbox import CALLS, Outbox
from cxrnet.tracking.record import alone_in, read_record, write_record
from cxrnet.tracking.store import ARTIFACTS, SQLITE, opened, printable, userinfo

PAUSES = (1.0, 2.0, 4.0)
"""Seconds between attempts of which none gets a call across; after them the rest is left again."""


def sync(folders: Sequence[Path], pauses: Sequence[float] = PAUSES) -> bool:
    """Send what is left of all runs in folders, print a line for each, and return whether nothing is left.

    Args:
        folders: folders of runs, of sweeps or of all runs.
        pauses: as :data:`PAUSES`.

    Raises:
        CxrnetError: one is not a folder.
    """
    runs = list(dict.fromkeys(run for folder in folders for run in unsent_runs(folder)))
    if not runs:
        console.say("nothing", f"all runs in {', '.join(map(str, folders))} have reached MLflow")
    arrived = [_send(run, pauses) for run in runs]
    return all(arrived)


def unsent_runs(folder: Path) -> Iterator[Path]:
    """Find the runs in a folder, itself and those inside runs too, that have calls which have not reached MLflow.

    Raises:
        CxrnetError: it is not a folder.
    """
    if not folder.is_dir():
        raise CxrnetError(f"sync: '{folder}' is not a folder; give that of a run, a sweep or all runs (outputs)")
    for place, inside, files in os.walk(folder):
        inside[:] = sorted(name for name in inside if name != ARTIFACTS)
        run_id = read_record(Path(place)).get("run_id") if CALLS in files else None
        if run_id and Outbox(Path(place), run_id).waiting:
            yield Path(place)


def recorded_uri(folder: Path, now: str | None = None) -> str | None:
    """Return the address of the store that tracks a run, whatever the working directory is.

    The record holds no password. Where ``now``, as the configuration has it, or ``MLFLOW_TRACKING_URI`` is the same
    address with one, it is taken. ``now`` it is too where the run was not tracked, or its database is neither where it
    was nor has been moved with the run.
    """
    record = read_record(folder)
    recorded = record.get("tracking_uri")
    if not recorded:
        return now
    for known in (now, os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")):
        if known and printable(known) == recorded:
            return known
    if not recorded.startswith(SQLITE):
        return str(recorded)
    database = Path(recorded.removeprefix(SQLITE))
    moved = (folder / os.path.relpath(database, record["run_dir"])).resolve()
    return next((f"{SQLITE}{file.as_posix()}" for file in (database, moved) if file.is_file()), now)


def _send(folder: Path, pauses: Sequence[float]) -> bool:
    """Send what is left of a run, print what came of it, and return whether nothing is left."""
    uri = recorded_uri(folder)
    outbox = Outbox(folder, read_record(folder)["run_id"])
    before, known = outbox.waiting, len(outbox.refused)
    try:
        if uri is None:
            raise CxrnetError("tracking: its database is gone")
        with alone_in(folder), opened(uri, make=False) as client:
            record = read_record(folder)
            outbox = Outbox(folder, record["run_id"], userinfo(uri))
            before, known = outbox.waiting, len(outbox.refused)
            reason = _deliver(Delivery(client, record["run_id"], outbox, folder), pauses)
            write_record(
                folder, {**record, "unsent": outbox.waiting, **({"refused": r} if (r := outbox.refused) else {})}
            )
    except CxrnetError as error:
        reason = str(error)
    refused = outbox.refused[known:]
    for each in refused:
        console.say("refused", f"{folder}: {each}")
    if left := outbox.waiting:
        console.say("left", f"{folder}: {left} of {before - len(refused)} calls ({reason})")
    else:
        console.say("sent", f"{folder}: {before - len(refused)} calls, nothing is left")
    return not left


def _deliver(delivery: Delivery, pauses: Sequence[float]) -> str:
    """Send until all has arrived, or nothing arrives any more; return why."""
    left = iter(pauses)
    while True:
        before = delivery.outbox.waiting
        reason = delivery.send()
        if reason is None:
            return ""
        if delivery.outbox.waiting < before:
            left = iter(pauses)
        if (pause := next(left, None)) is None:
            return reason
        time.sleep(pause)
