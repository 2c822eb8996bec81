"""Sends what is in the outbox, in a thread of its own, until it has arrived: nothing waits for the server."""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.tracking.calls import NothingToSend, made_by, make
from cxrnet.tracking.outbox import Call, Outbox
from cxrnet.tracking.store import printable, quiet, without_secret

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxrnet")

FIRST_PAUSE, LONGEST_PAUSE, LAST_PAUSE = 0.25, 30.0, 1.0
"""Seconds between two attempts: the pause doubles from the first to the longest; the longest when the run ends."""
HICCUP = 5.0
"""Seconds for which MLflow may fail before the user hears of it."""
LOCKED = "database is locked"
LATER = (401, 403, 404, 407, 408, 425, 429)
"""Refusals that come from the way to the server, or pass: the call waits."""


class Delivery:
    """The calls of a run on their way to MLflow.

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
            What does not arrive and why; ``None`` where nothing waits.
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
            elif _for_good(error):
                reason = f"{made_by(call)} ({self._reason(error)})"
                self.outbox.settle(call, reason)
                log.warning("tracking: MLflow does not %s", reason)
            else:
                held[call.kind] = f"{made_by(call)}: {self._reason(error)}"
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
        """One line without user and password."""
        if LOCKED in str(error):
            return LOCKED  # SQLAlchemy has more words for it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0] if lines else type(error).__name__
        return without_secret(text, self._client.tracking_uri)


class Sender:
    """A thread that sends while the run goes on.

    Args:
        delivery: what it sends.
        uri: of the store, for messages.
    """

    def __init__(self, delivery: Delivery, uri: str) -> None:
        self._delivery, self._uri = delivery, uri
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._hurried = False  # something new waits, or the run ends
        self._ending = False
        self._quiet = ExitStack()
        self._thread = threading.Thread(target=self._work, name="cxrnet-mlflow", daemon=True)

    @property
    def unsent(self) -> int:
        """Calls that have not arrived."""
        return self._delivery.outbox.waiting

    @property
    def refused(self) -> list[str]:
        """Calls that MLflow has refused for good."""
        return self._delivery.outbox.refused

    def start(self) -> None:
        """Begin to send."""
        # By the main thread and for as long as the other one runs: the levels of loggers are of the whole process.
        self._quiet.enter_context(quiet())
        self._thread.start()

    def add(self, kind: str, arguments: Mapping[str, object]) -> None:
        """Write a call down, to be sent as soon as may be."""
        if os.getpid() != self._process:  # a worker of a data loader, a copy of this process without the thread
            return
        if not self.unsent:
            self._delivery.moved = time.monotonic()
        self._delivery.outbox.add(kind, arguments)
        self._wake()

    def new_points(self, values: Mapping[str, float], step: int) -> dict[str, float]:
        """As :meth:`cxrnet.tracking.outbox.Outbox.new_points`."""
        return self._delivery.outbox.new_points(values, step)

    def close(self, patience: float, at_most: float) -> int:
        """End: wait until everything has arrived, as long as calls do arrive.

        Args:
            patience: seconds without any arriving after which the rest is left.
            at_most: seconds that this may take in all.

        Returns:
            How many calls are left.
        """
        began = time.monotonic()
        self._ending = True
        self._wake()
        try:
            with self._changed:
                # A server that has been away for long gets a last chance, no more.
                while (left := self._until(began, patience, at_most) - time.monotonic()) > 0 and self.unsent:
                    self._changed.wait(left)
        finally:
            self._delivery.stopped.set()
            self._wake()
        self._thread.join(0.2)
        if not self._thread.is_alive():  # else it hangs in a call, whose end is to be heard by nobody
            self._quiet.close()
        return self.unsent

    def _until(self, began: float, patience: float, at_most: float) -> float:
        return min(max(self._delivery.moved + patience, began + patience / 6), began + at_most)

    def _wake(self) -> None:
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def _work(self) -> None:
        pause, failing_since, said = 0.0, None, False
        while not self._delivery.stopped.is_set():
            before, began = self.unsent, time.monotonic()
            trouble = self._delivery.send()
            with self._changed:
                self._changed.notify_all()
            if trouble is None:
                pause, failing_since, said = 0.0, None, False
            else:
                pause = 0.0 if self.unsent < before else pause
                pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
                failing_since = failing_since or began
                if time.monotonic() - failing_since >= HICCUP and not said:
                    said = True
                    self._say(trouble)
            self._rest(pause)

    def _rest(self, pause: float) -> None:
        """Wait for a new call; after a failure, for the pause and no longer."""
        with self._changed:
            began = time.monotonic()
            while pause and not self._delivery.stopped.is_set():
                left = began + (min(pause, LAST_PAUSE) if self._ending else pause) - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if not pause and not self._hurried:
                self._changed.wait()
            self._hurried = False

    def _say(self, trouble: str) -> None:
        log.warning(
            "tracking: MLflow at '%s' does not take what it is sent (%s); the run goes on, and sends it again until it "
            "arrives",
            printable(self._uri),
            trouble,
        )


def _is_busy(error: Exception) -> bool:
    """Whether the whole store takes nothing at the moment, though it can be read."""
    return getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE"


def _for_good(error: Exception) -> bool:
    """Whether a call will never be taken; everything else may be the fault of the way, the server or the moment."""
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
