"""Images whose file name, or the name of a folder around them, begins with the label.

Some published collections come with folders for training, testing and trying out, and in the last one nothing but
the name tells the class::

    root/train/covid/anything.png         class by the folder, or root/train/1_covid/anything.png
    root/predict/covid_12.png             class by the name, or root/predict/1-anything.png

A name begins with a label when it does so in any case and no letter follows: ``covid`` is the label of
``covid_12.png``, ``COVID-12.png`` and ``Covid19.jpg``, not of ``covidlike.png``. A number may stand before it:
``1_covid``. The longest label that fits wins. A number is a label where it is given as one, or stands before a label in
the name of a folder; it counts in names that begin with no other label, when neither a letter nor a digit follows, and
that of a folder before that of a file in it.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from cxrnet.data.images.files import find_images, masks_of
from cxrnet.data.manifest import SPLITS, make_manifest
from cxrnet.errors import CxrnetError

_NAMED = 5  # files that an error names

logger = logging.getLogger("cxrnet")


def labelled_names(root: str | Path, labels: Mapping[str, str], folders: Mapping[str, str] | None) -> pd.DataFrame:
    """Read images by the beginnings of their names.

    Args:
        root: the folder with the images.
        labels: class by label, as ``{"covid": "COVID-19", "normal": "Normal"}``; numbers as ``"0"``.
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
    found = find_images(top)
    placed = []
    for part, split in [(top, None)] if folders is None else _split_folders(top, folders):
        files = [image for image in found.images if image.parts[: len(part.parts)] == part.parts]
        if not files:
            raise CxrnetError(f"data.root: '{part}' holds no images; put some there")
        placed += [(file, part, split) for file in files]
    if ignored := len(found.images) - len(placed):
        logger.warning("'%s': left out: %d images outside the folders of data.manifest.folders", top, ignored)
    words = {label: name for label, name in labels.items() if not label.isdigit()}
    given = {label: name for label, name in labels.items() if label.isdigit()}
    numbers = _numbered(
        {name for file, part, _ in placed for name in file.relative_to(part).parts[:-1]}, words, given, top
    )
    rows = pd.DataFrame(
        {
            "image_id": [file.relative_to(top).as_posix() for file, _, _ in placed],
            "path": [str(file) for file, _, _ in placed],
            "label": [label_by_name(file.relative_to(part).parts, words, numbers) for file, part, _ in placed],
            "split": [split for _, _, split in placed],
            "mask_path": masks_of([file for file, _, _ in placed], found.masks, top),
            "source": top.name,
        }
    )
    if without := rows.loc[rows["label"].isna(), "image_id"].tolist():
        raise CxrnetError(
            f"data.root: {len(without)} of {len(rows)} images in '{top}' begin with no label "
            f"({', '.join([*words, *numbers])}), or with one in a folder of another: {', '.join(without[:_NAMED])}; "
            "rename or remove them, or add the label to data.manifest.labels"
        )
    return make_manifest(rows, str(root))


def _split_folders(top: Path, folders: Mapping[str, str]) -> list[tuple[Path, str | None]]:
    """Find the folder of each split, whatever the case of its name.

    Raises:
        CxrnetError: a folder is not there, or its split is none.
    """
    parts: list[tuple[Path, str | None]] = []
    here = {path.name.casefold(): path for path in top.iterdir() if path.is_dir()}
    for name, use in folders.items():
        if use not in SPLITS:
            raise CxrnetError(f"data.manifest.folders: {name}: '{use}' is no split; use {', '.join(SPLITS)}")
        if name.casefold() not in here:
            raise CxrnetError(
                f"data.manifest.folders: '{top}' has no folder '{name}'; name those that are there, or null for none"
            )
        parts.append((here[name.casefold()], use))
    return parts


def _numbered(folders: Iterable[str], words: Mapping[str, str], given: Mapping[str, str], top: Path) -> dict[str, str]:
    """Read the class of each number, as given and from folders: ``{"0": "normal"}`` for ``0_normal``."""
    numbers = dict(given)
    for folder in sorted(folders):
        number = re.match(r"\d+", folder)
        if number is None or (name := _class(folder, words)) is None:
            continue
        if numbers.setdefault(number[0], name) != name:
            raise CxrnetError(
                f"data.root: in '{top}' the number {number[0]} stands before '{numbers[number[0]]}' and '{name}' "
                "in the names of folders; rename one of them"
            )
    if said := ", ".join(f"{number} is {name}" for number, name in numbers.items() if number not in given):
        logger.warning("'%s': %s, where no other label stands in a name, as the folders say", top, said)
    return numbers


def label_by_name(
    parts: Sequence[str], words: Mapping[str, str], numbers: Mapping[str, str] = MappingProxyType({})
) -> str | None:
    """Read the class on which the names of a file and of the folders around it agree; ``None`` where there is none.

    Args:
        parts: the folders and the file.
        words: class by label.
        numbers: class by number that stands for a label.
    """
    found = {name for part in parts if (name := _class(part, words)) is not None}
    if found:
        return found.pop() if len(found) == 1 else None
    begins = (re.match(r"(\d+)(?![^\W_])", part) for part in parts)
    return next((numbers[number[1]] for number in begins if number and number[1] in numbers), None)


def _class(name: str, words: Mapping[str, str]) -> str | None:
    for label in sorted(words, key=len, reverse=True):
        end = r"(?![^\W\d_])" if label[-1:].isalpha() else ""
        if re.match(r"(?:\d+[\W_]*)?" + re.escape(label) + end, name, re.IGNORECASE):
            return words[label]
    return None
