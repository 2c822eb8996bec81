"""Errors of the operating system in one line: a full disk, missing permissions, too many open files."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from traceback import clear_frames

from cxrnet.errors import CxrnetError

_SPACE = "free space there, or give another folder"
_RIGHT = "get the right to write there, or give another folder"
_DISK = "see to the disk or its network"
WHAT_TO_DO = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EACCES: _RIGHT,
    errno.EPERM: _RIGHT,
    errno.EROFS: _RIGHT,
    errno.ENOTDIR: "give another folder, a file stands there",
    errno.EISDIR: "give another name, a folder stands there",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.EMFILE: "allow more open files, by ulimit -n",
    errno.ENFILE: "allow more open files",
}
# A full disk in the words of libraries that write by themselves: torch, safetensors, numpy and SQLite.
FULL = re.compile(
    r"PytorchStreamWriter failed writing|basic_ios::clear: iostream error|unexpected pos \d+ vs \d+|"
    r"\(os error (27|28|122)\)|requested and \d+ written|database or disk is full|No space left on device"
)


@contextmanager
def machine_told() -> Iterator[None]:
    """Turn an error of the operating system into one line for the user.

    Raises:
        CxrnetError: there was one.
    """
    try:
        yield
    except CxrnetError:
        raise
    except Exception as error:
        if (line := machine_error(error)) is None:
            raise
        link: BaseException | None = error
        while link is not None:  # a half-written file that is still open in one of them keeps its space
            clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        raise CxrnetError(line) from error


def machine_error(error: BaseException) -> str | None:
    """Say what the operating system refused and what to do about it; ``None`` for an error of another kind."""
    if isinstance(error, OSError) and (what := WHAT_TO_DO.get(error.errno or 0)) is not None:
        place = f"'{error.filename}'" if error.filename is not None else "a file"
        return f"{place}: {error.strerror}; {what}"
    if FULL.search(str(error)):
        return f"a file can't be written, the disk is full; {_SPACE}"
    return None


def check_writable(folder: Path, key: str) -> None:
    """Make a folder, if need be, and check that files can be written to it; ``key`` of the configuration named it.

    Raises:
        CxrnetError: it can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        what = WHAT_TO_DO.get(error.errno or 0, "give another folder")
        raise CxrnetError(f"{key}: '{folder}' can't be written to ({error.strerror}); {what}") from error
