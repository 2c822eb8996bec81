"""Calls for MLflow on disk: a line for each call before it is made, and one for each that has arrived.

``outbox.jsonl`` in the run's folder holds the calls, ``outbox.sent.jsonl`` the numbers of those that MLflow has taken
or refused. Both only grow. A line that a killed process has not ended is as if it had not been.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrnet.errors import CxrnetError

log = logging.getLogger("cxrnet")

CALLS, SENT = "outbox.jsonl", "outbox.sent.jsonl"


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        number: from 1 on, in the order of the calls.
        kind: its name in :data:`cxrnet.tracking.delivery.TITLES`.
        time: when it was made, in milliseconds since 1970.
        arguments: plain values.
    """

    number: int
    kind: str
    time: int
    arguments: dict[str, Any]


class Outbox:
    """The calls of one run. Any thread may add them, one takes them out.

    Nothing is written before the first call is added. One process at a time may add or settle (``alone_in``).

    Args:
        folder: folder of the run.
        run_id: id of the run in MLflow; what another one was sent before waits again.
        secret: ``user:password`` of the address, which is left out wherever it would be written.
    """

    def __init__(self, folder: Path, run_id: str, secret: str = "") -> None:
        self._calls, self._sent = folder / CALLS, folder / SENT
        self._run_id = run_id
        self._secret = f"{json.dumps(secret)[1:-1]}@" if secret else ""
        self._lock, self._adding = threading.Lock(), threading.Lock()
        self._points: dict[tuple[str, int], float] = {}
        self._last = 0
        self._said = False
        self._waiting: dict[int, Call] = {}
        self._refused: list[str] = []
        settled = {
            line["number"]: line
            for line in _lines(self._sent)
            if isinstance(line, dict) and line.get("run_id") == run_id and isinstance(line.get("number"), int)
        }
        self._refused += [line["refused"] for line in settled.values() if "refused" in line]
        for line in _lines(self._calls):
            if (call := _call(line)) is None:
                log.warning("tracking: a line of '%s' is no call and is left out: %.60s", self._calls, line)
                continue
            self._know(call)
            if call.number not in settled:
                self._waiting[call.number] = call

    @property
    def waiting(self) -> int:
        """Number of calls that have not arrived."""
        with self._lock:
            return len(self._waiting)

    @property
    def refused(self) -> list[str]:
        """Calls that MLflow has refused for good, and why."""
        with self._lock:
            return list(self._refused)

    def add(self, kind: str, arguments: Mapping[str, object]) -> None:
        """Write a call down; on a full disk it is kept in memory, and lost if it has not arrived when the run ends."""
        with self._adding:
            call = Call(self._last + 1, kind, time.time_ns() // 1_000_000, dict(arguments))
            text = json.dumps(vars(call)).replace(self._secret, "") if self._secret else json.dumps(vars(call))
            try:
                _append(self._calls, text)
            except OSError as error:
                self._say_unwritten(error)
            with self._lock:
                call = Call(**json.loads(text))
                self._know(call)
                self._waiting[call.number] = call

    def new_points(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """Return the metrics that no call has with the same value yet: a run that goes on does an epoch twice."""
        known = self._points
        return {key: value for key, value in values.items() if repr(known.get((key, step))) != repr(value)}

    def after(self, number: int) -> Call | None:
        """Return the first waiting call with a larger number."""
        with self._lock:
            return next((call for call in self._waiting.values() if call.number > number), None)

    def settle(self, call: Call, refused: str | None = None) -> None:
        """Write down that a call has arrived, or that MLflow has refused it for good and why."""
        line: dict[str, object] = {"number": call.number, "run_id": self._run_id}
        try:
            _append(self._sent, json.dumps(line if refused is None else {**line, "refused": refused}))
        except OSError as error:  # it may be sent again later, which changes nothing
            self._say_unwritten(error)
        with self._lock:
            self._waiting.pop(call.number, None)
            if refused is not None:
                self._refused.append(refused)

    def _say_unwritten(self, error: OSError) -> None:
        if not self._said:
            self._said = True
            log.warning("tracking: '%s' can't be written (%s); calls are in memory only", self._calls, error.strerror)

    def _know(self, call: Call) -> None:
        self._last = max(self._last, call.number)
        if call.kind == "metrics":
            step = call.arguments["step"]
            self._points |= {(key, step): value for key, value in call.arguments["values"].items()}


def _call(line: object) -> Call | None:
    """Return a line as a call, if it is one."""
    kinds = {"number": int, "kind": str, "time": int, "arguments": dict}
    if not isinstance(line, dict) or line.keys() != kinds.keys():
        return None
    return Call(**line) if all(type(line[name]) is kind for name, kind in kinds.items()) else None


def _lines(file: Path) -> Iterator[Any]:
    """Read the whole lines of a file; none where there is no file.

    Raises:
        CxrnetError: a pipe or device stands there.
    """
    if not file.exists():
        return
    if not file.is_file():
        raise CxrnetError(f"tracking: '{file}' is no file; remove it")
    text = file.read_bytes()
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # the end of a process that was killed
            continue


def _append(file: Path, line: str) -> None:
    """Add a line, after the last whole one."""
    with file.open("ab+") as opened:
        if size := opened.tell():
            opened.seek(size - 1)
            if opened.read(1) != b"\n":
                opened.write(b"\n")  # what stands before is no whole line, and is read over
        opened.write(f"{line}\n".encode())
