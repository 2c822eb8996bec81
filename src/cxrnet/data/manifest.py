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
group_id     string   images that must stay in one split for a reason other than the patient (copies)
===========  =======  ====================================================================================

Further columns (``sex``, ``age``, ...) are kept as they are.
"""

import hashlib
from pathlib import Path

import pandas as pd

from cxrnet.errors import CxrnetError

SPLITS = ("train", "val", "test")
STRING_COLUMNS = (
    "image_id",
    "path",
    "label",
    "split",
    "patient_id",
    "view",
    "source",
    "mask_path",
    "sha256",
    "group_id",
)
INTEGER_COLUMNS = ("width", "height")
COLUMNS = (*STRING_COLUMNS[:8], *INTEGER_COLUMNS, *STRING_COLUMNS[8:])
REQUIRED = ("image_id", "path", "label", "source")
PATH_COLUMNS = ("path", "mask_path")


def make_manifest(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Bring a table into the manifest's shape and check it.

    Args:
        rows: a table with at least ``image_id, path, label, source``; missing optional columns are added empty.
        where: what the table is, for the error messages (``"data/covid"``).

    Returns:
        A new table with the columns of this module first, in order, sorted by ``image_id``: the same rows give
        the same table whatever the order in which the file system listed them.

    Raises:
        CxrnetError: no rows, a required column is missing or has empty cells, ``image_id`` is not unique, or
            ``split`` holds anything but ``train``, ``val``, ``test`` or nothing.
    """
    if len(rows) == 0:
        raise CxrnetError(f"{where}: no images found; a manifest needs at least one row")
    if missing := [name for name in REQUIRED if name not in rows.columns]:
        raise CxrnetError(f"{where}: column {', '.join(missing)} missing; a manifest needs {', '.join(REQUIRED)}")
    table = rows.copy()
    for name in STRING_COLUMNS:
        table[name] = table[name].astype("string") if name in table else pd.array([pd.NA] * len(table), "string")
    for name in INTEGER_COLUMNS:
        table[name] = _integers(table[name], where) if name in table else pd.array([pd.NA] * len(table), "Int64")
    for name in REQUIRED:
        if empty := int(table[name].isna().sum() + (table[name] == "").sum()):
            raise CxrnetError(f"{where}: column {name} is empty in {empty} of {len(table)} rows; fill or drop them")
    duplicated = table["image_id"][table["image_id"].duplicated()]
    if len(duplicated):
        raise CxrnetError(
            f"{where}: image_id '{duplicated.iloc[0]}' stands in more than one row "
            f"({duplicated.nunique()} ids in all); image_id must be unique"
        )
    unknown = set(table["split"].dropna()) - set(SPLITS)
    if unknown:
        raise CxrnetError(f"{where}: split '{min(unknown)}' is not known; use train, val, test or leave the cell empty")
    extra = [name for name in table.columns if name not in COLUMNS]
    return table[[*COLUMNS, *extra]].sort_values("image_id", ignore_index=True)


def _integers(column: pd.Series, where: str) -> pd.Series:
    try:
        return pd.to_numeric(column).astype("Int64")
    except (ValueError, TypeError) as error:
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
        table = (
            pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
            if path.suffix == ".csv"
            else pd.read_parquet(path)
        )
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"manifest: '{path}' cannot be read as a table ({reason}); use .csv or .parquet") from error
    manifest = make_manifest(table, str(path))
    root = path.resolve().parent
    for name in PATH_COLUMNS:
        manifest[name] = manifest[name].map(lambda p: str(root / p), na_action="ignore").astype("string")
    return manifest


def write_manifest(manifest: pd.DataFrame, path: str | Path) -> None:
    """Write a manifest as ``.parquet`` or ``.csv``; paths below the file's folder are stored relative to it."""
    path = Path(path)
    root = path.resolve().parent

    def relative(name: str) -> str:
        return Path(name).relative_to(root).as_posix() if Path(name).is_relative_to(root) else name

    table = manifest.copy()
    for name in PATH_COLUMNS:
        table[name] = table[name].map(relative, na_action="ignore").astype("string")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".csv":
        table.to_csv(partial, index=False)
    else:
        table.to_parquet(partial, index=False)
    partial.replace(path)


def digest(manifest: pd.DataFrame) -> str:
    """Name a data set by its content: SHA-256 (hex) over id, label, split, patient and image bytes.

    Neither the folder nor the order of the rows counts, so the digest is the same on every machine.
    """
    columns = ["image_id", "label", "split", "patient_id", "sha256"]
    rows = manifest.sort_values("image_id")[columns].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()
