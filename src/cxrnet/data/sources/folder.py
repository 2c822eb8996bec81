"""A folder of images, one folder a class: the layout in which most public collections come.

Two layouts are read; the names of the folders in ``root`` decide::

    root/CLASS/**/image.png                     not split yet
    root/{train,val,test}/CLASS/**/image.png    split as published; also training, testing, valid, dev, ..., any case

Where ``root`` holds one folder alone, as after unpacking an archive, which holds folders and no images, that one is
read. The name of a class is the name of its folder, spaces included. What is left out (masks, hidden files,
other kinds of files) is counted on the console, see :mod:`cxrnet.data.images.files`.
"""

import logging
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from cxrnet.data.images.dicom import DicomError, header_facts
from cxrnet.data.images.files import PICTURES, find_images, is_hidden, is_mask_folder, masks_of
from cxrnet.data.manifest import make_manifest
from cxrnet.errors import CxrnetError

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SET = re.compile(r"[ _-]*(set|data|split|images?|folder)$")
_ALIKE = re.compile(
    r"(train(ing)?|val(id|idation)?|dev|test(ing)?|eval(uation)?|hold[ _-]?out|predict(ion)?)s?[\W_\d]*"
    r"((set|data|split|images?|folder|fold|part|copy|new|old|final)[\W_\d]*)*"
)
# A folder of this name holds classes and is none.
_WRAPPER = re.compile(r"data|archive|collection|images|x[ _-]?ray|radiograph", re.IGNORECASE)
_NAMED = 5  # folders that a line names

logger = logging.getLogger("cxrnet")


def split_of(name: str) -> str | None:
    """Read ``train``, ``val`` or ``test`` from a name in any case, as ``Training`` or ``test_set``; else ``None``."""
    return _SPLITS.get(_SET.sub("", name.strip().casefold()))


def folder(root: str | Path, header: bool = False) -> pd.DataFrame:
    """Read class folders, or class folders in split folders, into a manifest.

    With ``header`` the columns ``view``, ``sex`` and ``age`` (years) are read from DICOM files, and nothing else.

    ``image_id`` is the path below ``root`` with forward slashes (below the one folder in ``root``, where there is one
    alone), ``source`` the name of ``root``, ``mask_path`` the mask that fits by its name.

    Raises:
        CxrnetError: no such folder, one class folder alone, no class folders, a class folder without images, class
            names that differ in case only or are those of splits, images or masks, two folders of one split, a folder
            that is only like one of a split, class folders and split folders side by side, or a folder that can't be
            read.
    """
    if not Path(root).is_dir():
        raise CxrnetError(f"data.root: '{root}' is not a folder; give the one that holds the class folders")
    resolved = Path(root).resolve()
    top = _top(resolved)
    splits = _split_folders(top)
    labels = {label: split for split, part in splits for label in _class_folders(part)}
    found = find_images(resolved)
    by_parts = {label.parts: label for label in labels}
    depth = len(next(iter(by_parts)))
    placed = [(image, by_parts.get(image.parts[:depth])) for image in found.images]
    images = [(image, label) for image, label in placed if label is not None]
    if empty := sorted(labels.keys() - {label for _, label in images}):
        raise CxrnetError(f"data.root: '{empty[0]}' holds no images; put those of the class there or remove it")
    if outside := len(placed) - len(images):
        logger.warning("'%s': left out: %d images outside the class folders", top, outside)
    below = len(top.as_posix().rstrip("/")) + 1
    rows = {
        "image_id": [image.as_posix()[below:] for image, _ in images],
        "path": [str(image) for image, _ in images],
        "label": [label.name for _, label in images],
        "split": [labels[label] for _, label in images],
        "mask_path": masks_of([image for image, _ in images], found.masks, resolved),
    }
    table = pd.DataFrame(rows).assign(source=resolved.name)
    return make_manifest(_with_headers(table) if header else table, str(root))


def _with_headers(table: pd.DataFrame) -> pd.DataFrame:
    """Add what the headers of DICOM files say of view, sex and age; a file that can't be read is told as an image."""
    facts: list[dict[str, str | float]] = []
    for path in table["path"]:
        try:
            facts.append(header_facts(path))
        except (DicomError, OSError):
            facts.append({})
    columns = pd.DataFrame(facts, index=table.index)
    logger.warning(
        "headers: %s", ", ".join(f"{name} of {columns[name].notna().sum()} images" for name in columns) or "none"
    )
    return table.join(columns)


def _top(root: Path) -> Path:
    """Find the folder that holds the split or class folders: ``root``, or the only folder in it, however deep."""
    passed = [root]
    while len(only := _folders(passed[-1])) == 1 and split_of(only[0].name) is None and _folders(only[0]):
        passed += only
    if (top := passed[-1]) == root:
        return root
    inner = ", ".join([path.name for path in _folders(top)][:_NAMED])
    odd = [
        path for path in passed[1:] if path.name.casefold() != root.name.casefold() and not _WRAPPER.search(path.name)
    ]
    if odd and not _holds_splits(top):  # a class whose images lie in folders of their own looks the same
        raise CxrnetError(
            f"data.root: '{root}' holds one folder alone, '{odd[0].name}'; if it is a class, put another beside it; if "
            f"the classes are {inner}, give data.root='{top}'"
        )
    logger.warning("'%s' holds one folder alone, so '%s' is read: %s", root, top, inner)
    return top


def _split_folders(top: Path) -> list[tuple[str | None, Path]]:
    """Pair splits and folders; one pair without a split where ``top`` holds the classes itself."""
    folders = _folders(top)
    splits = {path: split for path in folders if (split := split_of(path.name)) is not None}
    others = [path for path in folders if path not in splits]
    if not splits:
        return [(None, top)]
    for split, count in Counter(splits.values()).items():
        if count > 1:
            names = ", ".join(path.name for path, each in splits.items() if each == split)
            raise CxrnetError(f"data.root: '{top}' holds several folders that are {split} ({names}); leave one of them")
    if odd := next((path.name for path in others if _ALIKE.fullmatch(path.name.strip().casefold())), None):
        raise CxrnetError(
            f"data.root: '{top}' holds '{odd}', which is not known as the name of a split; call it train, val or test"
        )
    if classes := [path.name for path in others if not _holds_splits(path)]:
        raise CxrnetError(
            f"data.root: '{top}' holds split folders ({', '.join(path.name for path in splits)}) and class folders "
            f"({', '.join(classes[:_NAMED])}) side by side; put the class folders into the split folders"
        )
    if others:
        names = ", ".join(f"'{path.name}'" for path in others)
        logger.warning("'%s': left out: %s, which holds split folders of its own", top, names)
    if any(path.name.casefold() != split for path, split in splits.items()):
        logger.warning("'%s': %s", top, ", ".join(f"'{path.name}' is {split}" for path, split in splits.items()))
    return [(split, path) for path, split in splits.items()]


def _class_folders(part: Path) -> list[Path]:
    classes = _folders(part)
    if not classes:
        raise CxrnetError(f"data.root: '{part}' holds no class folders; make one for each class")
    for path in classes:
        if _ALIKE.fullmatch(path.name.strip().casefold()) or PICTURES.fullmatch(path.name):
            kind = "images" if PICTURES.fullmatch(path.name) else "a split"
            raise CxrnetError(
                f"data.root: '{path}' stands where a class does and has the name of {kind}; give it the name of "
                "the class, or give the folder that holds the class folders"
            )
        if _holds_splits(path):
            raise CxrnetError(
                f"data.root: '{path}' stands where a class does and holds split folders; put the class folders into "
                "the split folders, or give that folder itself"
            )
    return classes


def _holds_splits(path: Path) -> bool:
    return any(split_of(inner.name) for inner in _folders(path))


def _folders(parent: Path) -> list[Path]:
    """List the folders that may be of a split or a class, sorted; those of masks are not."""
    try:
        return sorted(
            path
            for path in parent.iterdir()
            if path.is_dir() and not is_hidden(path.name) and not is_mask_folder(path.name)
        )
    except OSError:  # the search says it
        return []
