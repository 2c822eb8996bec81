"""A command that is stopped from outside ends as an exception, so that its run can be closed as KILLED."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn


class Terminated(SystemExit):
    """SIGTERM (a scheduler, ``docker stop``) or SIGHUP (a closed terminal) arrived."""


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise :class:`Terminated`; all handlers are as before afterwards.

    Where the exception comes up in a destructor, as of what a phase leaves behind, Python drops it; the signal is then
    sent again.

    A signal that someone else handles or ignores (``nohup``) is left alone. SIGINT is only put back: Lightning's
    Trainer ignores it for the rest of the process once it has been interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    before = {number: signal.getsignal(number) for number in signal.Signals if number.name in names}
    for number, handler in before.items():
        if number != signal.SIGINT and handler == signal.SIG_DFL:
            signal.signal(number, _raise_terminated)
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_send_again, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python
                signal.signal(number, handler)


def was_killed(error: BaseException) -> bool:
    """Whether an exception goes back to Ctrl-C, SIGTERM or SIGHUP.

    Lightning's Trainer turns a ``KeyboardInterrupt`` into ``SystemExit(1)``, the code of any failure; the interrupt
    then is the exit's ``__context__``.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, KeyboardInterrupt | Terminated):
            return True
        link = link.__cause__ or link.__context__
    return False


def _send_again(hook: Callable[["sys.UnraisableHookArgs"], object], dropped: "sys.UnraisableHookArgs") -> None:
    error = dropped.exc_value
    if not isinstance(error, KeyboardInterrupt | Terminated):
        hook(dropped)
        return
    number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else int(error.code) - 128  # type: ignore[arg-type]
    again = threading.Timer(0.05, os.kill, (os.getpid(), number))  # not now: the destructor still runs
    again.daemon = True
    again.start()


def _raise_terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)  # the exit code that a shell gives a process ended by this signal
