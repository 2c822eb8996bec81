"""Calls to a tracking server that may go away: a hiccup delays them, and never stops the training."""

import logging
import time
from collections import deque
from collections.abc import Callable

from cxrnet.tracking.store import answers, printable, quiet

log = logging.getLogger("cxrnet")

PAUSE = 30.0
"""Seconds between two looks for a server that has gone away: each may take three."""


class Outbox:
    """Makes calls in the order they came; keeps those that find no server, and makes them when it is back.

    Args:
        uri: the address of the store.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._waiting: deque[tuple[str, Callable[[], object]]] = deque()
        self._refused = 0
        self._away = False
        self._warned: set[str] = set()
        self._next_look = 0.0

    @property
    def lost(self) -> int:
        """Calls that were refused or still wait for the server."""
        return self._refused + len(self._waiting)

    def send(self, what: str, call: Callable[[], object]) -> None:
        """Make a call now, or later.

        Args:
            what: what the call does, for the warning (``"log metrics"``).
            call: made once or, when its answer was lost, more than once.
        """
        self._waiting.append((what, call))
        if not self._away or time.monotonic() >= self._next_look:
            self.flush()

    def flush(self) -> None:
        """Make all waiting calls, up to the first that finds no server."""
        if self._away and not answers(self._uri):
            self._next_look = time.monotonic() + PAUSE
            return
        self._away = False
        while self._waiting:
            what, call = self._waiting[0]
            error = _attempt(call)
            if error and not answers(self._uri):
                self._away = True
                self._next_look = time.monotonic() + PAUSE
                place = f"MLflow at '{printable(self._uri)}' has gone away; the run goes on and looks for it again"
                self._warn_once("gone", place)
                return
            if error and (error := _attempt(call)):  # not a hiccup: this call is never taken, the next ones may be
                self._refused += 1
                self._warn_once(what, f"MLflow does not {what} ({_reason(error)})")
            self._waiting.popleft()

    def _warn_once(self, key: str, text: str) -> None:
        if key not in self._warned:
            self._warned.add(key)
            log.warning("tracking: %s", text)


def _attempt(call: Callable[[], object]) -> Exception | None:
    try:
        with quiet():
            call()
    except Exception as error:  # whatever a server, its database or its artifact storage may raise
        return error
    return None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
