"""The process: its rank and share among several, the memory that it keeps, its imports, and the signals that end it."""

import atexit
import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # as Lightning 2.6 reads them when it is imported


def is_main_process() -> bool:
    """Tell whether this process has rank 0 in a distributed training; the others only train.

    Before Lightning is imported, which takes seconds, the environment tells.
    """
    if lightning := sys.modules.get("lightning.fabric.utilities.rank_zero"):
        return int(getattr(lightning.rank_zero_only, "rank", 0)) == 0
    return int(next((os.environ[name] for name in _RANKS if name in os.environ), 0)) == 0


_jobs_at_once = 1


def share_machine(jobs: int) -> None:
    """Note that so many jobs, this one among them, share the machine for the rest of this process."""
    global _jobs_at_once  # noqa: PLW0603 (of the process, as its environment is)
    _jobs_at_once = jobs


def jobs_at_once() -> int:
    """Return how many jobs share the machine, from 1 on: what is allowed to all of them is to be divided by it."""
    return _jobs_at_once


# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Make glibc keep freed blocks instead of returning them to the system; return whether that worked (Linux only).

    Every batch allocates and frees activations of many megabytes. By default the system clears every page of them anew:
    on two cores that took as much time as the arithmetic. Memory in use stays at its peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """Return freed blocks of all threads to the system, where the C library can.

    Each thread has blocks of its own, so that others can't use what one has freed of a very large image.
    """
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import heavy libraries with the garbage collector off, and keep it from searching their objects later.

    Importing torch, Lightning and MLflow makes a million objects that stay, and searching them again and again takes a
    good part of the time. They are frozen once in a process, when nothing but imports has been done.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            atexit.register(gc.unfreeze)  # libraries in C++ look for what was not freed in the end
        if enabled:
            gc.enable()


class Terminated(SystemExit):
    """SIGTERM (a scheduler, ``docker stop``) or SIGHUP (a closed terminal) arrived."""


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise :class:`Terminated`; all handlers are as before afterwards.

    Python drops an exception in a destructor; the signal is then sent again. A signal that someone else handles or
    ignores (``nohup``) is left alone. SIGINT is only restored: Lightning's Trainer ignores it for the rest of the
    process once it has been interrupted.
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
    """Tell whether Ctrl-C, SIGTERM or SIGHUP caused an exception.

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
