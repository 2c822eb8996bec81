"""A folder of images, one folder a class: the layout in which most public collections come.

Two layouts are read, told by the names of the folders in ``root``::

    root/CLASS/**/image.png                     not split yet
    root/{train,val,test}/CLASS/**/image.png    split as published; also valid, validation; any case

The name of a class is the name of its folder, spaces included. Hidden files and files that are no images by
their extension are left out and counted in the log.
"""

import logging
import os
from pathlib import Path

import pandas as pd

from cxrnet.data.files import image_files, is_hidden
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

logger = logging.getLogger("cxrnet")


def folder(root: str | Path) -> pd.DataFrame:
    """Read class folders, or class folders in split folders, into a manifest.

    Args:
        root: the folder that holds them.

    Returns:
        A manifest: ``image_id`` is the path below ``root`` with forward slashes, ``source`` the name of
            ``root``.

    Raises:
        CxrnetError: no such folder, no class folders, a class folder without images, class names that differ in
            case only, or class folders and split folders side by side.
    """
    if not Path(root).is_dir():
        raise CxrnetError(f"data.root: '{root}' is not a folder; give the one that holds the class folders")
    top = Path(root).resolve()
    parts = _split_folders(top)
    below = len(top.as_posix().rstrip("/")) + 1
    rows = [
        {"path": str(file), "image_id": file.as_posix()[below:], "label": label.name, "split": split}
        for split, part in parts
        for label in _class_folders(part)
        for file in _image_files(label)
    ]
    _check_classes({row["label"] for row in rows if row["label"]}, top)
    _log_ignored(top, len(rows))
    return make_manifest(pd.DataFrame(rows).assign(source=top.name), str(root))


def _split_folders(top: Path) -> list[tuple[str | None, Path]]:
    """Pairs of split and folder; one pair without a split where ``top`` holds the classes itself."""
    found = [(SPLIT_FOLDERS.get(path.name.lower()), path) for path in _folders(top)]
    classes = [path.name for split, path in found if split is None]
    if len(classes) == len(found):
        return [(None, top)]
    if classes:
        splits = [path.name for split, path in found if split is not None]
        raise CxrnetError(
            f"data.root: '{top}' holds split folders ({', '.join(splits)}) and class folders "
            f"({', '.join(classes[:5])}) side by side; put the class folders into the split folders"
        )
    return [*found]


def _class_folders(part: Path) -> list[Path]:
    classes = _folders(part)
    if not classes:
        raise CxrnetError(f"data.root: '{part}' holds no class folders; make one for each class")
    return classes


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not is_hidden(path.name))


def _image_files(label: Path) -> list[Path]:
    files = image_files(label)
    if not files:
        raise CxrnetError(f"data.root: '{label}' holds no images; put those of the class there or remove it")
    return files


def _check_classes(labels: set[str], top: Path) -> None:
    spellings: dict[str, str] = {}
    for label in sorted(labels):
        other = spellings.setdefault(label.casefold().strip(), label)
        if other != label:
            raise CxrnetError(
                f"data.root: '{top}' holds classes '{other}' and '{label}', which differ in case or spaces "
                "only; give their folders one name"
            )


def _log_ignored(top: Path, images: int) -> None:
    files = sum(len(names) for _, _, names in os.walk(top))
    if files > images:
        logger.info("%s: %d files that are hidden or no images were left out", top, files - images)
