"""The manifest: one row an image. A data set is its manifest.

It is a plain ``pandas.DataFrame`` that passed :func:`make_manifest`; further columns (``sex``, ``age``, ...) are kept.

===========  =======  ====================================================================================
column       dtype    meaning
===========  =======  ====================================================================================
image_id     string   unique in the table, the same on every machine (relative path, never an absolute one)
path         string   the image file; absolute in memory, relative to the manifest's folder on disk if below it;
                      ``<shards>/images/shard.00000.mds#<place>`` is an image of shards (:mod:`cxrnet.data.shards`)
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
COLUMNS = (
    *("image_id", "path", "label", "split", "patient_id", "view", "source", "mask_path"),
    *("width", "height", "sha256", "group_id"),
)
PATH_COLUMNS = ("path", "mask_path")

_INTEGER_COLUMNS = ("width", "height")
_REQUIRED = ("image_id", "path", "label", "source")
_ODD_PATH = r"//|(?:^|/)\.?$|(?:^|/)\./"  # what pathlib writes in another way: "a//b", "", ".", "a/", "./a"
_ROWS = 100_000  # of a manifest that are text in memory at a time


def make_manifest(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Bring a table into the manifest's shape and check it.

    Args:
        rows: a table with at least ``image_id, path, label, source``; missing optional columns are added empty.
        where: name of the table, for the error messages (``"data/covid"``).

    Returns:
        A new table with the columns of this module first, sorted by ``image_id``, whatever the order of the rows.

    Raises:
        CxrnetError: no rows, a required column is missing or has empty cells, a path that no file can have,
            ``image_id`` is not unique, labels differ in case, spaces or Unicode form only, or a split is not known.
    """
    if (count := len(rows)) == 0:
        raise CxrnetError(f"{where}: no images found; a manifest needs at least one row")
    if missing := [name for name in _REQUIRED if name not in rows]:
        raise CxrnetError(f"{where}: column {', '.join(missing)} missing; a manifest needs {', '.join(_REQUIRED)}")
    given = {name: rows[name].reset_index(drop=True) for name in rows.columns}
    del rows  # a million rows are hundreds of megabytes, which the caller may have let go of
    nothing, columns = pd.Series(pd.NA, range(count), dtype="string"), {}
    for name in COLUMNS:
        column = given.pop(name, nothing).rename(name)
        columns[name] = _integers(column, where) if name in _INTEGER_COLUMNS else _strings(column, where)
    for name in ("patient_id", "group_id"):
        columns[name] = read_ids(columns[name], where)
    for name in _REQUIRED:
        if empty := int((columns[name].fillna("") == "").sum()):
            raise CxrnetError(f"{where}: column {name} is empty in {empty} of {count} rows; fill or drop them")
    columns |= given
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
    if unknown := set(columns["split"].dropna().unique()) - set(SPLITS):
        raise CxrnetError(f"{where}: split '{min(unknown)}' is not known; use train, val, test or leave the cell empty")
    if not np.array_equal(order, np.arange(count)):  # a file that was written here is in order
        for name in columns:
            columns[name] = columns[name].take(order).reset_index(drop=True)
    return pd.DataFrame(columns)


def check_labels(labels: pd.Series, where: str) -> None:
    """Refuse labels that differ in case, spaces or Unicode form only."""
    spellings: dict[str, str] = {}
    for label in sorted(labels.dropna().unique()):
        other = spellings.setdefault("".join(unicodedata.normalize("NFKC", label).casefold().split()), label)
        if other != label:
            raise CxrnetError(
                f"{where}: classes {other!r} and {label!r}, which differ in case, spaces or Unicode form only; give "
                "them one name"
            )


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
    try:
        if path.suffix == ".csv":
            table = as_it_was(pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""]))
        else:
            table = pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"manifest: '{path}' cannot be read as a table ({reason}); use .csv or .parquet") from error
    manifest, root = make_manifest(table, str(path)), path.resolve().parent
    return manifest.assign(**{name: absolute_paths(manifest[name], root) for name in PATH_COLUMNS})


def absolute_paths(paths: pd.Series, root: Path) -> pd.Series:
    """Make paths absolute that count from a folder; absolute ones are left alone."""
    joined, absolute = f"{root}/".replace("//", "/") + paths, paths.str.startswith(("/", "s3://"), na=False)
    if absolute.any():
        joined = joined.mask(absolute, paths)
    return _mend_odd(joined, paths, lambda path: path if path.startswith("s3://") else str(root / path))


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
    """Name a data set by its content: SHA-256 (hex) over id, label, split, patient and image bytes, not places."""
    rows = manifest[["image_id", "label", "split", "patient_id", "sha256"]].sort_values("image_id")
    content = hashlib.sha256()
    for start in range(0, len(rows), _ROWS):
        text = rows.iloc[start : start + _ROWS].to_csv(index=False, header=start == 0, lineterminator="\n")
        content.update(text.encode())
    return content.hexdigest()
