"""Sends what is in the outbox, in a thread of its own, until it has arrived: nothing waits for the server."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack

from cxrnet.tracking.delivery import Delivery
from cxrnet.tracking.store import printable, quiet

log = logging.getLogger("cxrnet")

FIRST_PAUSE, LONGEST_PAUSE, LAST_PAUSE = 0.25, 30.0, 1.0
"""Seconds between two attempts: the pause doubles from the first to the longest; the longest when the run ends."""
HICCUP = 5.0
"""Seconds for which MLflow may fail before the user hears of it."""


class Sender:
    """A thread that sends while the run goes on.

    Args:
        delivery: what it sends.
        uri: of the store, for messages.

    Attributes:
        outbox: whose calls are sent.
    """

    def __init__(self, delivery: Delivery, uri: str) -> None:
        self._delivery, self._uri = delivery, uri
        self.outbox = delivery.outbox
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
            self._delivery.moved = time.monotonic()
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
                # A server that has been away for long gets a last chance, no more.
                while (left := self._until(began, patience, at_most) - time.monotonic()) > 0 and self.outbox.waiting:
                    self._changed.wait(left)
        finally:
            self._delivery.stopped.set()
            self._wake()
        self._thread.join(0.2)
        if not self._thread.is_alive():  # else it hangs in a call, whose end is to be heard by nobody
            self._quiet.close()

    def _until(self, began: float, patience: float, at_most: float) -> float:
        return min(max(self._delivery.moved + patience, began + patience / 6), began + at_most)

    def _wake(self) -> None:
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def _work(self) -> None:
        pause, failing_since, said = 0.0, None, False
        while not self._delivery.stopped.is_set():
            before, began = self.outbox.waiting, time.monotonic()
            trouble = self._delivery.send()
            with self._changed:
                self._changed.notify_all()
            if trouble is None:
                pause, failing_since, said = 0.0, None, False
            else:
                pause = 0.0 if self.outbox.waiting < before else pause
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
