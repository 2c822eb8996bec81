"""Memory of the process: what is freed is kept for the next batch, and imports are not searched for garbage."""

import atexit
import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Make the C library of Linux keep freed blocks instead of handing them back to the system.

    Every batch allocates and frees activations of many megabytes. By default each of them is fetched from the system
    and returned to it, and the system clears every page anew: on two cores that took as much time as the arithmetic.
    The memory in use stays at the most that was ever needed.

    Returns:
        Whether it could be done; elsewhere than on Linux with glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """Give freed blocks of all threads back to the system, where the C library can.

    Each thread has blocks of its own: what one has freed of a very large image, the next one cannot use.
    """
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import heavy libraries without looking for garbage meanwhile, nor ever among what they made.

    Importing torch, Lightning and MLflow makes a million objects that stay. Python's collector goes through them again
    and again while they become more, which takes a good part of the time. They are left to themselves
    once in a process, when nothing but imports has been done: what is frozen later may be somebody's garbage.
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
