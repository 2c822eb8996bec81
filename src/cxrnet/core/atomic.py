"""Atomic writing: a reader finds the new file, the one before it, or none, and never a half-written one.

Each has one writer at a time; where several may want to write, they take turns by a lock (:mod:`cxrnet.core.cache`).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cxrnet.core.spreadsheet import to_csv

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under another name and rename it when the block ends; make its folder if need be.

    Yields:
        ``<name>.partial`` beside it, to write to; removed where the block fails, left only by a killed process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with suppress(OSError):  # nothing was written yet, or Windows removes no open file: tell of what came before
            partial.unlink()
        raise


def write_text(path: Path, text: str) -> Path:
    """Write a text atomically; return its path."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: object) -> Path:
    """Write plain values as JSON atomically; return the path."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table atomically and without its index, as CSV if the file is called ``.csv``, else as Parquet."""
    with whole_file(path) as partial:
        if path.suffix == ".csv":
            to_csv(table, partial)
        else:
            table.to_parquet(partial, index=False)
