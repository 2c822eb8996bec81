"""What a user wants predicted: a file, a folder, a pattern or a zip archive, and the labels that may come with it."""

import glob
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pandas as pd

from cxrnet.data.images.decode import MAX_MEMORY
from cxrnet.data.images.files import EXTENSIONS, check_name, find_images
from cxrnet.data.manifest import make_manifest
from cxrnet.data.sources.labelled_names import label_by_name
from cxrnet.errors import CxrnetError

_IMAGE_COLUMNS = ("image_id", "image", "filename", "file", "path", "name")
_LABEL_COLUMNS = ("label", "class", "finding", "diagnosis")
_NAME = 255  # bytes of a name on a disk
_PACKED = 1000  # times that a file of an archive may grow: more is a bomb, radiographs grow by less than ten
# What a damaged archive makes Python's reader raise.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    IndexError,
    NotImplementedError,
    EOFError,
    OSError,
    ValueError,
)


@dataclass(frozen=True)
class Input:
    """Images to predict.

    Attributes:
        manifest: one row an image, without labels; ``path`` can be read.
        archive: the zip file that they were in; ``None`` for files and folders.
    """

    manifest: pd.DataFrame
    archive: Path | None = None

    def shown(self, table: pd.DataFrame) -> pd.DataFrame:
        """Give a table of some of the images the paths that the user knows."""
        if self.archive is None:
            return table
        return table.assign(path=(f"{self.archive}/" + table["image_id"]).astype("string"))


@contextmanager
def opened_input(text: str) -> Iterator[Input]:
    """Find the images of an input; those of an archive are unpacked, and gone when the ``with`` is left.

    Args:
        text: an image file, a folder, a pattern as ``images/**/*.png``, or a zip archive.

    Raises:
        CxrnetError: there is nothing, no image, or an archive that is damaged, locked or unsafe.
    """
    path = Path(text)
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds what no name can
        there = False
    if not there and glob.has_magic(text):
        yield Input(_manifest(*_matching(text), source=text))
        return
    if not there:
        raise CxrnetError(f"input: '{path}' doesn't exist; give an image file, a folder, a pattern or a zip archive")
    if not path.is_file() and not path.is_dir():
        raise CxrnetError(f"input: '{path}' is a pipe, device or socket; give an image file or a folder of images")
    check_name(str(path), "input")
    if path.is_file() and zipfile.is_zipfile(path) and path.suffix.lower() not in EXTENSIONS:
        with TemporaryDirectory() as scratch:
            _unpack(path, Path(scratch))
            yield Input(_manifest(_below(Path(scratch), str(path)), Path(scratch), source=path.name), path)
        return
    files, top = ([path], path.parent) if path.is_file() else (_below(path, str(path)), path)
    yield Input(_manifest(files, top, source=path.resolve().name or str(path)))  # of "." and ".." too


def _below(folder: Path, named: str) -> list[Path]:
    if not (files := find_images(folder, "input").images):
        raise CxrnetError(f"input: no images below '{named}'; it looks for {', '.join(EXTENSIONS)}")
    return files


def _matching(pattern: str) -> tuple[list[Path], Path]:
    """Find the files that fit a pattern, and the images below folders that do; and the folder that holds all."""
    found = [Path(each) for each in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 (Path.glob takes no pattern from /)
    files = [path for path in found if path.is_file()]
    for folder in (path for path in found if path.is_dir() and "**" not in pattern):
        files += find_images(folder, "input").images
    files = list(dict.fromkeys(files))
    if not files:
        raise CxrnetError(f"input: nothing fits '{pattern}'; quote it, and look at it with ls")
    for path in files:
        check_name(str(path), "input")
    return files, Path(os.path.commonpath([path.parent for path in files]))


def _manifest(files: Sequence[Path], top: Path, source: str) -> pd.DataFrame:
    ids = [file.relative_to(top).as_posix() for file in files]
    rows = {"image_id": ids, "path": [str(file) for file in files], "label": "unknown", "source": source}
    return make_manifest(pd.DataFrame(rows), source).assign(label=pd.array([pd.NA] * len(ids), dtype="string"))


def _unpack(archive: Path, scratch: Path) -> None:
    """Unpack the files of an archive that may be images, none of them outside the folder.

    Raises:
        CxrnetError: see :func:`opened_input`.
    """

    def refused(reason: str) -> CxrnetError:
        return CxrnetError(f"input: '{archive}' {reason}; unpack it yourself and give the folder")

    try:
        with zipfile.ZipFile(archive) as packed:
            members = [each for each in packed.infolist() if not each.is_dir() and _may_be_image(each)]
            if sum(each.file_size for each in members) > shutil.disk_usage(scratch).free // 2:
                raise refused("needs more than half of the room on the disk that holds temporary files")
            for each in members:
                parts = PurePosixPath(each.filename.replace("\\", "/")).parts
                if each.flag_bits & 1:
                    raise refused("is locked by a password")
                if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0]:
                    raise refused(f"holds '{each.filename}', which leads out of it")
                if each.file_size > min(MAX_MEMORY, _PACKED * max(each.compress_size, 1)):
                    raise refused(f"holds '{each.filename}', which unpacks to more than an image has")
                place = scratch.joinpath(*parts)
                if (
                    max(map(len, map(str.encode, parts))) > _NAME
                    or place.exists()
                    or any(map(Path.is_file, place.parents))
                ):
                    raise refused(f"holds '{each.filename}' twice, or under a name that a disk can't have")
                place.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(each) as source, place.open("wb") as target:  # never more than file_size
                    shutil.copyfileobj(source, target)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        IndexError,
        NotImplementedError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's
        raise CxrnetError(f"input: '{archive}' is damaged ({error}); copy it again") from error


def _may_be_image(member: zipfile.ZipInfo) -> bool:
    """Tell a file that may be one by its ending; links and what is no plain file may not."""
    mode = member.external_attr >> 16
    ending = PurePosixPath(member.filename).suffix.lower()
    return (not stat.S_IFMT(mode) or stat.S_ISREG(mode)) and (ending in EXTENSIONS or not ending[1:].isalpha())


def labels_of(manifest: pd.DataFrame, classes: Sequence[str], given: str) -> tuple[pd.Series, str]:
    """Find the labels of images.

    Args:
        manifest: of :class:`Input`.
        classes: those of the bundle.
        given: ``auto``: by the folder of an image or the beginning of its name, where these name a class of the bundle
            (:mod:`cxrnet.data.sources.labelled_names`); ``none``; or a CSV file of images and labels.

    Returns:
        The labels in the order of the rows, empty where there is none, and where they are from, in words.

    Raises:
        CxrnetError: the file can't be read, lacks a column, names an image twice or none of them, or names no class.
    """
    ids = manifest["image_id"]
    if given == "none":
        return pd.Series(pd.NA, manifest.index, dtype="string"), ""
    if given == "auto":
        words = {name: name for name in classes}
        found = [label_by_name(PurePosixPath(each).parts, words) for each in ids]
        return pd.Series(found, manifest.index, dtype="string"), "the names of folders and files"
    table = _read_labels(given)
    if unknown := sorted(set(table) - set(classes)):
        raise CxrnetError(
            f"labels: '{given}' names '{unknown[0]}', which is no class of the bundle ({', '.join(classes)}); "
            "rename it or leave its rows out"
        )
    by_file = ids.map(lambda each: PurePosixPath(each).name)
    by_stem = by_file.map(lambda each: PurePosixPath(each).stem)
    labels = pd.Series(pd.NA, manifest.index, dtype="string")
    for names in (ids, manifest["path"], by_file, by_stem):
        alone = names.where(~names.duplicated(keep=False) | (names is ids))
        labels = labels.fillna(alone.map(table).astype("string"))
    if labels.isna().all():
        raise CxrnetError(f"labels: '{given}' names none of the {len(ids)} images (the first is '{ids.iloc[0]}')")
    return labels, f"'{given}'"


def _read_labels(file: str) -> pd.Series:
    """Read labels by image."""
    try:
        table = pd.read_csv(file, dtype="string", keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"labels: '{file}' can't be read ({reason}); give auto, none or a .csv file") from error
    columns = {name.strip().casefold(): name for name in table.columns}
    image = next((columns[name] for name in _IMAGE_COLUMNS if name in columns), None)
    label = next((columns[name] for name in _LABEL_COLUMNS if name in columns), None)
    if image is None or label is None:
        lacking = "image" if image is None else "label"
        raise CxrnetError(f"labels: '{file}' has no column {lacking}; it needs image and label")
    table = table[table[label] != ""]
    if (twice := table[image][table[image].duplicated()]).size:
        raise CxrnetError(f"labels: '{file}' names '{twice.iloc[0]}' twice; an image has one label")
    return table.set_index(image)[label]
