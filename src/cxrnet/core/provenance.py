"""Provenance of a result: the code's git revision and the versions of packages."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

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
