"""The manifest: one row an image. A data set is its manifest.

A manifest is a plain ``pandas.DataFrame`` that passed :func:`make_manifest`. Columns:

===========  =======  ====================================================================================
column       dtype    meaning
===========  =======  ====================================================================================
image_id     string   unique in the table, the same on every machine (relative path, never an absolute one)
path         string   the image file; absolute in memory, relative to the manifest's folder on disk if below it
label        string   name of the class
split        string   ``train``, ``val``, ``test`` or missing (not split yet)
patient_id   string   missing where unknown
view         string   ``PA``, ``AP``, ...; missing where unknown
source       string   where the image comes from (hospital, collection)
mask_path    string   lung mask; missing where there is none
width        Int64    of the file, in pixels; missing until the image was read
height       Int64    of the file, in pixels; missing until the image was read
sha256       string   of the file's bytes; missing until the image was read
group_id     string   images that must stay in one split for a reason other than the patient (duplicates)
===========  =======  ====================================================================================

Further columns (``sex``, ``age``, ...) are kept as they are.
"""

import hashlib
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cxrnet.core.atomic import write_table
from cxrnet.core.grouping import read_ids
from cxrnet.core.spreadsheet import as_it_was
from cxrnet.errors import CxrnetError

SPLITS = ("train", "val", "test")
INTEGER_COLUMNS = ("width", "height")
COLUMNS = (
    *("image_id", "path", "label", "split", "patient_id", "view", "source", "mask_path"),
    *INTEGER_COLUMNS,
    *("sha256", "group_id"),
)
REQUIRED = ("image_id", "path", "label", "source")
PATH_COLUMNS = ("path", "mask_path")
ID_COLUMNS = ("patient_id", "group_id")

_ODD_PATH = r"//|(?:^|/)\.?$|(?:^|/)\./"  # what pathlib writes in another way: "a//b", "", ".", "a/", "./a"
_ROWS = 100_000  # of a manifest that are text in memory at a time


def make_manifest(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Bring a table into the manifest's shape and check it.

    Args:
        rows: a table with at least ``image_id, path, label, source``; missing optional columns are added empty.
        where: name of the table, for the error messages (``"data/covid"``).

    Returns:
        A new table with the columns of this module first, in order, sorted by ``image_id``: the same rows give
        the same table whatever the order in which the file system listed them.

    Raises:
        CxrnetError: no rows, a required column is missing or has empty cells, a path that no file can have,
            ``image_id`` is not unique, labels differ in case, spaces or Unicode form only, or ``split`` holds anything
            but ``train``, ``val``, ``test`` or nothing.
    """
    if len(rows) == 0:
        raise CxrnetError(f"{where}: no images found; a manifest needs at least one row")
    if missing := [name for name in REQUIRED if name not in rows]:
        raise CxrnetError(f"{where}: column {', '.join(missing)} missing; a manifest needs {', '.join(REQUIRED)}")
    given = {name: rows[name].reset_index(drop=True) for name in rows.columns}
    del rows  # a million rows are hundreds of megabytes, which the caller may have let go of
    columns = _columns(given, where)
    ids = columns["image_id"]
    order = ids.argsort().to_numpy()
    ordered = ids.array[order]
    if (ordered[1:] == ordered[:-1]).any():
        duplicated = ids[ids.duplicated()]
        raise CxrnetError(
            f"{where}: image_id '{duplicated.iloc[0]}' stands in more than one row "
            f"({duplicated.nunique()} ids in all); image_id must be unique"
        )
    check_labels(columns["label"], where)
    unknown = set(columns["split"].dropna().unique()) - set(SPLITS)
    if unknown:
        raise CxrnetError(f"{where}: split '{min(unknown)}' is not known; use train, val, test or leave the cell empty")
    if not np.array_equal(order, np.arange(len(order))):  # a file that was written here is in order
        for name in columns:
            columns[name] = columns[name].take(order).reset_index(drop=True)
    return pd.DataFrame(columns)


def check_labels(labels: pd.Series, where: str) -> None:
    """Refuse one class under several spellings.

    Raises:
        CxrnetError: labels differ in case, spaces or Unicode form only.
    """
    spellings: dict[str, str] = {}
    for label in sorted(labels.dropna().unique()):
        other = spellings.setdefault("".join(unicodedata.normalize("NFKC", label).casefold().split()), label)
        if other != label:
            raise CxrnetError(
                f"{where}: classes {other!r} and {label!r}, which differ in case, spaces or Unicode form only; give "
                "them one name"
            )


def _columns(given: dict[str, pd.Series], where: str) -> dict[str, pd.Series]:
    """Put the columns of a manifest in order and in their types; ``given`` is emptied."""
    rows = len(given["image_id"])
    nothing = pd.Series(pd.NA, range(rows), dtype="string")
    columns = {}
    for name in COLUMNS:
        column = given.pop(name, nothing).rename(name)
        columns[name] = _integers(column, where) if name in INTEGER_COLUMNS else _strings(column, where)
    for name in ID_COLUMNS:
        columns[name] = read_ids(columns[name], where)
    for name in REQUIRED:
        if empty := int((columns[name].fillna("") == "").sum()):
            raise CxrnetError(f"{where}: column {name} is empty in {empty} of {rows} rows; fill or drop them")
    return columns | given


def _strings(column: pd.Series, where: str) -> pd.Series:
    try:
        strings = column.astype("string")
    except UnicodeEncodeError as error:
        name = str(error.object).encode(errors="backslashreplace").decode()
        raise CxrnetError(f"{where}: column {column.name} holds '{name}', which is not UTF-8; rename it") from error
    if column.name in PATH_COLUMNS and (odd := strings.str.contains("\0", regex=False).fillna(False)).any():
        raise CxrnetError(f"{where}: column {column.name} holds {strings[odd].iloc[0]!r}, no name of a file; mend it")
    return strings


def _integers(column: pd.Series, where: str) -> pd.Series:
    try:
        return pd.to_numeric(column).astype("Int64")
    except (ValueError, TypeError, OverflowError) as error:  # the last of 1e400
        raise CxrnetError(f"{where}: column {column.name} holds something else than whole numbers; mend it") from error


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read a manifest from a ``.parquet`` or ``.csv`` file; relative paths count from the file's folder.

    Raises:
        CxrnetError: the file is not there, cannot be read as a table, or does not pass :func:`make_manifest`.
    """
    path = Path(path)
    if not path.is_file():
        raise CxrnetError(f"manifest: '{path}' is not a file; write one with cxrnet.data.manifest.write_manifest")
    manifest = make_manifest(_read_table(path), str(path))
    root = path.resolve().parent
    for name in PATH_COLUMNS:
        manifest[name] = absolute_paths(manifest[name], root)
    return manifest


def _read_table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            return as_it_was(pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""]))
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"manifest: '{path}' cannot be read as a table ({reason}); use .csv or .parquet") from error


def absolute_paths(paths: pd.Series, root: Path) -> pd.Series:
    """Make paths absolute that count from a folder; absolute ones are left alone."""
    joined, absolute = f"{root}/".replace("//", "/") + paths, paths.str.startswith("/", na=False)
    if absolute.any():
        joined = joined.mask(absolute, paths)
    return _mend_odd(joined, paths, lambda path: str(root / path))


def relative_paths(paths: pd.Series, root: Path) -> pd.Series:
    """Make paths below a folder relative to it; others are left alone."""

    def relative(path: str) -> str:
        return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path

    return _mend_odd(paths.str.removeprefix(f"{root}/".replace("//", "/")), paths, relative)


def _mend_odd(done: pd.Series, paths: pd.Series, one: Callable[[str], str]) -> pd.Series:
    """Repair one by one what can't be done to a column: odd paths, and all with drives and backslashes."""
    odd = (paths.str.contains(_ODD_PATH, na=False) if os.sep == "/" else paths.notna()).to_numpy(bool)
    if odd.any():
        done = done.copy()
        done.iloc[np.flatnonzero(odd)] = [one(path) for path in paths[odd]]
    return done


def write_manifest(manifest: pd.DataFrame, path: str | Path) -> None:
    """Write a manifest as ``.parquet`` or ``.csv``; paths below the file's folder are stored relative to it."""
    path = Path(path)
    root = path.resolve().parent
    table = manifest.assign(**{name: relative_paths(manifest[name].astype("string"), root) for name in PATH_COLUMNS})
    write_table(table, path)


def digest(manifest: pd.DataFrame) -> str:
    """Name a data set by its content: SHA-256 (hex) over id, label, split, patient and image bytes.

    Neither the folder nor the order of the rows counts, so the digest is the same on every machine.
    """
    columns = ["image_id", "label", "split", "patient_id", "sha256"]
    rows = manifest[columns].sort_values("image_id")
    content = hashlib.sha256()
    for start in range(0, len(rows), _ROWS):
        text = rows.iloc[start : start + _ROWS].to_csv(index=False, header=start == 0, lineterminator="\n")
        content.update(text.encode())
    return content.hexdigest()
