"""Tables of images from a spreadsheet or a script; what is guessed of their format is said on the console."""

import csv
import logging
import os
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd

from cxrnet.core.spreadsheet import as_it_was
from cxrnet.data.manifest import COLUMNS, PATH_COLUMNS, absolute_paths, check_labels, make_manifest, relative_paths
from cxrnet.data.sources.folder import split_of
from cxrnet.errors import CxrnetError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_STRIPPED = ("label", "split", "patient_id", "view", "source")

logger = logging.getLogger("cxrnet")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table, one row an image, into a manifest; relative paths count from the table's folder.

    ``path`` and ``label`` are needed. Without ``image_id`` it is the path as the table has it, without ``source`` that
    is the name of the table. ``.parquet``, ``.xlsx``, or text with commas, semicolons, tabs or bars between the cells
    (``.csv``, ``.tsv``, ``.txt``).

    Raises:
        CxrnetError: the file is not there, cannot be read as a table, lacks a column, holds labels that differ in case
            or spaces only, or does not pass :func:`cxrnet.data.manifest.make_manifest`.
    """
    path = Path(path)
    if not path.is_file():
        raise CxrnetError(f"data.root: '{path}' is not a file; give a table with the columns path and label")
    table = _with_names(_read(path), path)
    if table.empty:
        raise CxrnetError(f"data.root: '{path}' has no rows; a table needs one for each image")
    for name in table.columns.intersection(_STRIPPED):  # spaces would part one class or patient into two
        column = table[name].astype("string")
        if name == "label":
            check_labels(column, f"data.root: '{path}'")
        table[name] = column.str.strip().replace("", pd.NA)
        if (changed := int((table[name] != column).sum())) and name == "label":
            logger.warning("'%s': spaces around %d labels are left out", path, changed)
    if "split" in table:
        read_as = {name: split_of(name) or name for name in table["split"].dropna().unique()}  # unknown names stay
        if renamed := ", ".join(f"'{name}' is {split}" for name, split in read_as.items() if name != split):
            logger.warning("'%s': %s", path, renamed)
        table["split"] = table["split"].map(read_as).astype("string")
    root = path.resolve().parent
    for name in table.columns.intersection(PATH_COLUMNS):
        table[name] = absolute_paths(table[name].astype("string").replace("", pd.NA), root)
    if "image_id" not in table:
        ids = relative_paths(table["path"], root)  # the same on every machine
        outside = ids.str.startswith("/", na=False)
        if outside.any():
            beside = [os.path.relpath(each, root) for each in ids[outside]]
            ids = ids.mask(outside, pd.Series(beside, ids.index[outside]))
        if ids.duplicated().any():
            raise CxrnetError(
                f"data.root: '{path}' names the file '{ids[ids.duplicated()].iloc[0]}' in more than one row; leave one "
                "of them, or give the rows an image_id each"
            )
        table["image_id"] = ids
    if "source" not in table:
        table["source"] = path.stem
    return make_manifest(table, str(path))


def _read(path: Path) -> pd.DataFrame:
    ending = path.suffix.lower()
    try:
        if ending in (".parquet", ".pq"):
            return pd.read_parquet(path)
        if ending == ".xlsx":
            return pd.read_excel(path, dtype=str, keep_default_na=False, na_values=[""])
        if ending in (".csv", ".tsv", ".tab", ".txt"):
            return _read_text(path)
    except (ValueError, OSError, KeyError, csv.Error, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(f"data.root: '{path}' cannot be read as a table ({reason}); mend it") from error
    raise CxrnetError(f"data.root: '{path}' cannot be read as a table; give .csv, .tsv, .txt, .xlsx or .parquet")


def _read_text(path: Path) -> pd.DataFrame:
    with path.open("rb") as file:
        first = file.readline()
    encoding = "utf-16" if first.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return _read_encoded(path, encoding)
    except UnicodeDecodeError:
        logger.warning("'%s' is not UTF-8; it is read as Latin-1 (Windows-1252)", path)
        return _read_encoded(path, "cp1252")


def _read_encoded(path: Path, encoding: str) -> pd.DataFrame:
    with path.open(encoding=encoding, newline="") as file:
        header = file.readline()
    if not header.strip():
        raise CxrnetError(
            f"data.root: '{path}' begins with an empty line or is empty; give a table with path and label"
        )
    outside = "".join(header.split('"')[::2])  # of quotes
    separator = max(_SEPARATORS, key=outside.count)
    if separator != ("," if path.suffix.lower() == ".csv" else "\t"):
        logger.warning("'%s': read as a table with %s between the cells", path, _SEPARATORS[separator])
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the header
        try:
            table = pd.read_csv(
                path,
                sep=separator,
                encoding=encoding,
                dtype=str,
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                skipinitialspace=f"{separator} " in header,
            )
        except pd.errors.ParserWarning as warning:
            raise CxrnetError(
                f"data.root: '{path}' has rows with more cells than its header; quote cells that hold the separator"
            ) from warning
    return as_it_was(table)


def _with_names(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Rename columns to the manifest's own spelling."""
    found = [str(name).strip() for name in table.columns]
    plain = [name.casefold() if name.casefold() in COLUMNS else name for name in found]
    if twice := [name for name, count in Counter(plain).items() if count > 1]:
        raise CxrnetError(f"data.root: '{path}' has several columns '{twice[0]}'; leave one of them")
    if missing := [name for name in ("path", "label") if name not in plain]:
        raise CxrnetError(
            f"data.root: '{path}' has no column {' and no column '.join(missing)}; its columns are {', '.join(found)}: "
            f"rename those that hold the image files and the classes to path and label"
        )
    if renamed := [f"'{name}' as {new}" for name, new in zip(table.columns, plain, strict=True) if name != new]:
        logger.warning("'%s': columns are read under other names: %s", path, ", ".join(renamed))
    return table.set_axis(plain, axis=1)
