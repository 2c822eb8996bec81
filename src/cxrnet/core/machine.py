"""The machine: errors of its operating system in one line, the packages it has, the git revision of a folder."""

import errno
import importlib.metadata
import os
import platform
import re
import subprocess
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


PACKAGES = (
    "cxrnet", "torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "mlflow", "pillow", "scikit-learn",
    "numpy",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Look up versions of Python and of the installed packages that decide a result."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def git_revision(folder: Path) -> dict[str, str | bool]:
    """Ask git for the state of a folder inside a working tree.

    Returns:
        ``{"commit": <40 hex digits>, "branch": <name, or HEAD when detached>, "dirty": <bool>}``; dirty means that
        tracked files differ from the commit. Empty without git, repository or commit.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    return {"commit": commit, "branch": branch or "HEAD", "dirty": changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    # A git hook sets GIT_DIR, which would win over the folder; optional locks would disturb a git command of the
    # user that runs at the same moment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
