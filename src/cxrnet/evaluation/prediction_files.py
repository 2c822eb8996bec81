"""Files of predictions that grow while predictions are made, so that none of them has to wait in memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def growing_file(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write tables of predictions, one after the other, to a ``.parquet`` or ``.csv`` file.

    The file is there when all are in it; where something goes wrong there is none.

    Yields:
        A function that adds a table. All tables have the same columns.
    """
    partial = path.with_name(path.name + ".partial")
    grow = _csv if path.suffix == ".csv" else _parquet
    try:
        with grow(partial) as add:
            yield add
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield lambda table: table.to_csv(file, index=False, header=file.tell() == 0)


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
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
