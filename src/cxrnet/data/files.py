"""Which files count as images when a folder is searched; whether they are, their content tells later."""

import os
from pathlib import Path

EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def image_files(folder: Path) -> list[Path]:
    """Every file below a folder that is named like an image, sorted; hidden files and folders are passed over."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):  # plain strings: far faster than Path.rglob
        folders[:] = [name for name in folders if not is_hidden(name)]
        images = (name for name in names if name.lower().endswith(EXTENSIONS) and not is_hidden(name))
        found += [f"{place}{os.sep}{name}" for name in images]
    found.sort(key=lambda path: path.split(os.sep))  # noqa: PTH206
    return [Path(path) for path in found if os.path.isfile(path)]  # noqa: PTH113


def is_hidden(name: str) -> bool:
    """Files of the operating system, such as ``.DS_Store`` and the ``__MACOSX`` folder of an archive."""
    return name.startswith(".") or name == "__MACOSX"
