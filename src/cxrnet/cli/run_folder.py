"""The folder that a command writes to: never over what is there, and called as a person would type it."""

from collections.abc import Mapping
from pathlib import Path

from cxrnet.core import console
from cxrnet.errors import CxrnetError


def refuse_used(folder: Path, file: str, what: str, key: str = "hydra.run.dir") -> None:
    """Refuse to write over what another command wrote.

    Args:
        folder: where to write.
        file: that stands there where it was used before.
        what: the folder then holds: ``a comparison``.
        key: of the configuration, which names the folder.

    Raises:
        CxrnetError: the file is there.
    """
    if (folder / file).exists():
        raise CxrnetError(f"'{folder}' holds {what} already; give another {key}=<folder>, or leave it out")


def shown(folder: Path) -> Path:
    """Return the folder from where the person is, if it lies below; else the whole of it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def say_places(places: Mapping[str, str]) -> None:
    """Say where things are, by what they are."""
    console.heading("Where things are")
    for label, place in places.items():
        console.say(label, place)
