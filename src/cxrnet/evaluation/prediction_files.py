"""Files of predictions: read and checked, or written while predictions are made.

A file that grows holds what has been predicted so far on disk, so that none of it has to wait in memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import (
    NEEDED_COLUMNS,
    OPTIONAL_COLUMNS,
    ROW_COLUMNS,
    check_predictions,
    classes_of,
)
from cxrnet.linking import read_ids
from cxrnet.spreadsheet import as_it_was, to_csv
from cxrnet.whole_file import whole_file


def read_predictions(path: str | Path) -> pd.DataFrame:
    """Read a table of predictions from a ``.parquet`` or ``.csv`` file; further columns are kept.

    Raises:
        CxrnetError: the file is not there, is not a table, or does not pass
            :func:`cxrnet.evaluation.predictions.check_predictions`.
    """
    path = Path(path)
    if not path.is_file():
        raise CxrnetError(f"predictions: '{path}' is not a file; give a predictions.parquet or .csv")
    try:
        table = _read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CxrnetError(
            f"predictions: '{path}' cannot be read as a table ({reason}); use .csv or .parquet"
        ) from error
    for name in table.columns:
        if name in (*ROW_COLUMNS, *OPTIONAL_COLUMNS, "predicted"):
            table[name] = table[name].astype("string")
        elif name.startswith(("prob_", "logit_")):
            table[name] = _numbers(table[name], str(path))
        if name in ("patient_id", "group_id"):
            table[name] = read_ids(table[name], str(path))
    table = _filled(table)
    check_predictions(table, str(path))
    return table


def _numbers(column: pd.Series, where: str) -> pd.Series:
    """Read a column of logits or probabilities."""
    numbers = pd.to_numeric(column, errors="coerce")
    if (text := column[numbers.isna() & column.notna()]).size:
        raise CxrnetError(
            f"{where}: column {column.name} holds '{text.iloc[0]}' ({len(text)} of {len(column)} rows), which is no "
            "number; give numbers"
        )
    return numbers.astype(np.float32 if str(column.name).startswith("logit_") else np.float64)


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that another program need not write."""
    missing = [name for name in ROW_COLUMNS if name not in table and name not in NEEDED_COLUMNS]
    empty = {name: pd.array([pd.NA] * len(table), dtype="string") for name in missing}
    if any(name.startswith("logit_") for name in table.columns):
        return table.assign(**empty)
    # The softmax of log(prob) is prob; a probability of 0 has no finite logarithm.
    least = np.finfo(np.float32).tiny
    logits = {f"logit_{name}": np.log(table[f"prob_{name}"].clip(lower=least)) for name in classes_of(table)}
    return table.assign(**empty, **{name: column.astype(np.float32) for name, column in logits.items()})


def _read_csv(path: Path) -> pd.DataFrame:
    """Read every cell as it was written: ids keep their zeros, and a class may be called None or NA."""
    text = dict.fromkeys((*ROW_COLUMNS, *OPTIONAL_COLUMNS, "predicted"), "string")
    return as_it_was(pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""]))


@contextmanager
def growing_file(path: Path) -> Iterator[Callable[[pd.DataFrame], object]]:
    """Write tables of predictions, one after the other, to a ``.parquet`` or ``.csv`` file.

    The file is there when all are in it; where something goes wrong an older one stays as it was.

    Yields:
        A function that adds a table. All tables have the same columns.
    """
    grow = _csv if path.suffix == ".csv" else _parquet
    with whole_file(path) as partial, grow(partial) as add:
        yield add


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[pd.DataFrame], object]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield lambda table: to_csv(table, file, header=file.tell() == 0)


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pd.DataFrame], object]]:
    writer: pq.ParquetWriter | None = None

    def add(table: pd.DataFrame) -> None:
        nonlocal writer
        rows = pa.Table.from_pandas(table, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, rows.schema)
        writer.write_table(rows)

    try:
        yield add
    finally:
        if writer is not None:
            writer.close()
