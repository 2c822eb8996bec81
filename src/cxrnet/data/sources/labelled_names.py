"""Images whose label is the beginning of their file's name, or of the name of a folder around them.

Some published collections come with folders for training, testing and trying out, and in the last one nothing but
the name tells the class::

    root/train/covid/anything.png         class by the folder
    root/test/normal/anything.png
    root/predict/covid_12.png             class by the name
    root/predict/normal (3).jpg

A name begins with a label when it does so in any case and no letter follows: ``covid`` is the label of
``covid_12.png``, ``COVID-12.png`` and ``Covid19.jpg``, not of ``covidlike.png``. The longest label that fits wins.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxrnet.data.files import image_files
from cxrnet.data.manifest import SPLITS, make_manifest
from cxrnet.errors import CxrnetError

NAMED = 5  # files that an error names

logger = logging.getLogger("cxrnet")


def labelled_names(root: str | Path, labels: Mapping[str, str], folders: Mapping[str, str] | None) -> pd.DataFrame:
    """Read images by the beginnings of their names.

    Args:
        root: the folder with the images.
        labels: class by label, as ``{"covid": "COVID-19", "normal": "Normal"}``.
        folders: split by folder of ``root``, as ``{"train": "train", "test": "val", "predict": "test"}``; other folders
            are left out. ``None``: all images below ``root``, not split.

    Returns:
        A manifest: ``image_id`` is the path below ``root``, ``source`` the name of ``root``.

    Raises:
        CxrnetError: a folder is not there or holds no image, its split is none, or an image has no label or labels of
            two classes.
    """
    if not Path(root).is_dir():
        raise CxrnetError(f"data.root: '{root}' is not a folder; give the one that holds the images")
    top = Path(root).resolve()
    rows = [
        {"image_id": file.relative_to(top).as_posix(), "path": str(file), "label": _label(file, folder, labels)}
        | {"split": split}
        for folder, split in _parts(top, folders)
        for file in _images(folder)
    ]
    _check_labels(rows, labels, top)
    if ignored := len(image_files(top)) - len(rows):
        logger.info("%s: %d images outside the folders of data.manifest.folders were left out", top, ignored)
    return make_manifest(pd.DataFrame(rows).assign(source=top.name), str(root))


def _parts(top: Path, folders: Mapping[str, str] | None) -> list[tuple[Path, str | None]]:
    if folders is None:
        return [(top, None)]
    for name, split in folders.items():
        if split not in SPLITS:
            raise CxrnetError(f"data.manifest.folders: {name}: '{split}' is no split; use {', '.join(SPLITS)}")
        if not (top / name).is_dir():
            raise CxrnetError(
                f"data.manifest.folders: '{top}' has no folder '{name}'; name those that are there, or null for none"
            )
    return [(top / name, split) for name, split in folders.items()]


def _images(folder: Path) -> list[Path]:
    files = image_files(folder)
    if not files:
        raise CxrnetError(f"data.root: '{folder}' holds no images; put some there")
    return files


def _label(file: Path, folder: Path, labels: Mapping[str, str]) -> str | None:
    """The class that the file's name and the folders between it and ``folder`` agree on."""
    found = {label for part in file.relative_to(folder).parts if (label := _class(part, labels)) is not None}
    return found.pop() if len(found) == 1 else None


def _class(name: str, labels: Mapping[str, str]) -> str | None:
    for label in sorted(labels, key=len, reverse=True):
        end = r"(?![^\W\d_])" if label[-1:].isalpha() else ""
        if re.match(re.escape(label) + end, name, re.IGNORECASE):
            return labels[label]
    return None


def _check_labels(rows: list[dict[str, str | None]], labels: Mapping[str, str], top: Path) -> None:
    if without := [str(row["image_id"]) for row in rows if row["label"] is None]:
        raise CxrnetError(
            f"data.root: {len(without)} of {len(rows)} images in '{top}' begin with no label ({', '.join(labels)}), or "
            f"with one in a folder of another: {', '.join(without[:NAMED])}; rename or remove them, or add the label "
            "to data.manifest.labels"
        )
