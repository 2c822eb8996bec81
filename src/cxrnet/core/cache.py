"""Cache on disk: results that are computed once, by whoever needs them first, and shared by all runs.

A result is a folder whose name says what it was made from; it exists as a whole or not at all. Deleting it costs the
time to compute it again and nothing else. Each mebibyte of its files has a CRC-32, checked whenever a process opens the
result (2.6 GB/s a core): what is damaged is made anew. Checksums are no protection against forgery.
"""

import json
import logging
import os
import shutil
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from cxrnet.errors import CxrnetError

CHECKSUMS = "checksums.json"

_BLOCK = 2**20  # bytes
_TOGETHER = 64  # blocks that a thread takes at a time

logger = logging.getLogger("cxrnet")


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a result's folder, after making it if it is missing or damaged.

    When several processes ask at the same time, one makes it and the others wait. When it dies, the next one goes on.
    On POSIX, readers of a damaged file keep it open as it is.

    Args:
        folder: the folder that holds the result.
        make: fills the folder that it gets, which is renamed afterwards. It may hold what a process that died had made.

    Raises:
        CxrnetError: the disk is full, or the folder can't be written.
    """
    if not (wrong := damage(folder)):
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(f"{folder.name}.lock")):
            if wrong := damage(folder):  # else another process has made it while this one waited
                if os.path.lexists(folder):
                    logger.warning("cache: %s; making '%s' anew", wrong, folder.name)
                    remove = shutil.rmtree if folder.is_dir() and not folder.is_symlink() else Path.unlink
                    remove(folder)
                partial.mkdir(exist_ok=True)
                make(partial)
                write_checksums(partial, folder.name)
                for file in filter(Path.is_file, partial.iterdir()):  # to the disk, before the name says so
                    with file.open("r+b") as opened:
                        os.fsync(opened.fileno())
                partial.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        state = f"{wrong}, and '{folder}'" if os.path.lexists(folder) else f"'{folder}'"
        raise CxrnetError(
            f"cache: {state} can't be written ({reason}); free space, give cache=<another folder>, or cache=null"
        ) from error
    return folder


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


def new_array(file: Path, shape: Sequence[int], dtype: npt.DTypeLike) -> np.memmap:
    """Make a ``.npy`` file of zeros, mapped into memory for writing.

    The disk space is claimed at once: writing to a mapped page without space behind it kills the process.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=tuple(shape))
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with file.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
    return array


def wait_for_disk(array: np.memmap) -> None:
    """Wait until a mapped file is on the disk, while other threads go on.

    Raises:
        OSError: the disk failed.
    """
    if sys.platform == "linux":  # where fsync knows of mapped pages; flush() lets no other thread run meanwhile
        with Path(str(array.filename)).open("rb") as file:
            os.fsync(file.fileno())
    else:
        array.flush()


def write_checksums(folder: Path, name: str) -> None:
    """Write checksums of all files in and below a folder, links left out.

    Args:
        folder: where the files are.
        name: the name that the folder is about to get; under another one it would be the result of something else.
    """
    files = {
        file.relative_to(folder).as_posix(): {
            "bytes": (size := file.stat().st_size),
            "crc32": list(_checksums(file, 0, -(-size // _BLOCK))),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink() and file != folder / CHECKSUMS
    }
    (folder / CHECKSUMS).write_text(json.dumps({"of": name, "files": files}), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """Compare a folder's files with their checksums; say what is wrong, or ``None``.

    Large results are read on all processors.
    """
    note = folder / CHECKSUMS
    if not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises where a folder above can't be entered)
        return f"'{folder}' is no folder"
    if not note.is_file():
        return f"'{note}' is missing"
    try:
        noted = json.loads(note.read_bytes())
        files = [(folder / name, int(file["bytes"]), list(file["crc32"])) for name, file in noted["files"].items()]
        of = noted["of"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"'{note}' can't be read"
    wrong = [] if of == folder.name else [f"'{folder}' is of '{of}'"]
    for file, size, checksums in files:
        try:
            found = os.lstat(file)
        except OSError:
            wrong.append(f"'{file}' is missing")
            continue
        if not stat.S_ISREG(found.st_mode):
            wrong.append(f"'{file}' is no file")
        elif found.st_size != size:
            wrong.append(f"'{file}' has {found.st_size} bytes of {size}")
        elif len(checksums) != -(-size // _BLOCK):
            wrong.append(f"'{file}' lacks checksums")
    if wrong:
        return wrong[0]
    parts = [
        (file, first, checksums[first : first + _TOGETHER])
        for file, _, checksums in files
        for first in range(0, len(checksums), _TOGETHER)
    ]
    with ThreadPoolExecutor() as pool:  # which has no threads before they are asked for
        apply = pool.map if sum(len(checksums) for _, _, checksums in files) > _TOGETHER else map
        return next(filter(None, apply(lambda part: _wrong_block(*part), parts)), None)


def _wrong_block(file: Path, first: int, noted: Sequence[int]) -> str | None:
    try:
        for place, checksum in enumerate(_checksums(file, first, len(noted))):
            if checksum != noted[place]:
                return f"'{file}' has changed in its MiB {first + place + 1}"
    except OSError as error:
        return f"'{file}' can't be read ({error.strerror})"
    return None


def _checksums(file: Path, first: int, number: int) -> Iterator[int]:
    """Compute the CRC-32 of some blocks of a file, the last of which may be short."""
    block = memoryview(bytearray(_BLOCK))
    with file.open("rb") as opened:  # a reader with a buffer reads a block whole, and large ones past its buffer
        opened.seek(first * _BLOCK)
        for _ in range(number):
            yield zlib.crc32(block[: opened.readinto(block)])
