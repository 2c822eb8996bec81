"""Results on disk that are made once, by whoever needs them first, and shared by all runs.

A result is a folder whose name says what it was made of; it is there as a whole or not at all. Deleting it, or all of
the cache, costs the time to make it again and nothing else. Its files have checksums, which are checked whenever a
process opens it: what was damaged is made anew.
"""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from cxrnet.core.checksums import damage, write_checksums
from cxrnet.errors import CxrnetError

logger = logging.getLogger("cxrnet")


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a result's folder, after making it where it isn't there yet, or not as it was made.

    Of several processes that ask at the same time one makes it, the others wait. When that one dies, the next goes on.
    A result that is whole is only read. Who has files of a damaged one open keeps them, on POSIX, as they are.

    Args:
        folder: of the result.
        make: fills the folder that it gets, which may hold what a process that died had made of this result. The folder
            is renamed when it is filled.

    Raises:
        CxrnetError: the disk is full, or the place can't be written.
    """
    if not (wrong := _wrong(folder)):
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(f"{folder.name}.lock")):
            if wrong := _wrong(folder):  # else another process has made it while this one waited
                if os.path.lexists(folder):
                    logger.warning("cache: %s; making '%s' anew", wrong, folder.name)
                    _remove(folder)
                partial.mkdir(exist_ok=True)
                make(partial)
                write_checksums(partial, folder.name)
                _settle(partial)
                partial.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        state = f"{wrong}, and '{folder}'" if os.path.lexists(folder) else f"'{folder}'"
        raise CxrnetError(
            f"cache: {state} can't be written ({reason}); free space, give cache=<another folder>, or cache=null"
        ) from error
    return folder


def _wrong(folder: Path) -> str | None:
    """What keeps a result from being used; ``None`` where it is as it was made."""
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises where a folder above can't be entered)
        return f"'{folder}' is no folder"
    return damage(folder)


def _remove(folder: Path) -> None:
    """Remove what is damaged; who is killed meanwhile leaves what is damaged too."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def new_array(file: Path, shape: Sequence[int], dtype: npt.DTypeLike) -> np.memmap:
    """Make a ``.npy`` file of zeros, mapped into memory for writing.

    The space on the disk is claimed at once: a process that writes to a page for which there is none is killed without
    a word.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=tuple(shape))
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return array


def wait_for_disk(array: np.memmap) -> None:
    """Wait until all that was written into a mapped file is on the disk, while other threads go on.

    Raises:
        OSError: the disk failed.
    """
    if sys.platform == "linux":  # where fsync knows of mapped pages; flush() lets no other thread run meanwhile
        with Path(str(array.filename)).open("rb") as file:
            os.fsync(file.fileno())
    else:
        array.flush()


def _settle(folder: Path) -> None:
    """Bring the files of a folder to the disk, before its name says that they are there."""
    for file in filter(Path.is_file, folder.iterdir()):
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    waiting = FileLock(lock)
    try:
        waiting.acquire(timeout=0)
    except NotImplementedError as error:
        raise OSError("the file system has no locks") from error
    except Timeout:
        logger.warning("another process is making '%s'; waiting for it", lock.with_suffix(""))
        waiting.acquire()
    try:
        yield
    finally:
        waiting.release()
