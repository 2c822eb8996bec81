"""CSV without formulas: text in it stays text when a spreadsheet opens it.

Excel and others compute a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break, so text that does
gets an apostrophe before it (https://owasp.org/www-community/attacks/CSV_Injection); numbers get none, also as text.
:func:`as_it_was` takes the apostrophe away again and leaves one that was there before.
"""

import csv
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


_SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four are the first four, as wide as a Chinese letter
_NOT_TEXT = "biufcmM"  # kinds of columns: numbers and times
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_FORMULA = re.compile(rf"(?!{_NUMBER}\Z)(?='*[{re.escape(_SIGNS)}])")
_WRITTEN = re.compile(rf"'(?='*[{re.escape(_SIGNS)}])")


def to_csv(table: "pd.DataFrame", file: Any = None, **options: Any) -> str:  # noqa: ANN401 (what pandas takes)
    """Write a table without its index, as ``DataFrame.to_csv`` does; return the text if no file is given."""
    written = _replaced(table, _FORMULA, "'")
    # Python's writer quotes a cell with a line feed, but not one with a carriage return, which would end the row too.
    texts = [column for _, column in written.items() if column.dtype.kind not in _NOT_TEXT]
    broken = any(column.astype("string").str.contains("\r", regex=False, na=False).any() for column in texts)
    quoting = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
    return str(written.to_csv(file, index=False, quoting=quoting, **options))


def as_it_was(table: "pd.DataFrame") -> "pd.DataFrame":
    """Undo :func:`to_csv` in a table that was read from its file."""
    return _replaced(table, _WRITTEN, "")


def _replaced(table: "pd.DataFrame", beginning: re.Pattern[str], by: str) -> "pd.DataFrame":
    """Replace the beginning of all texts, the header included; return a new table, or the same."""

    def one(cell: Any) -> Any:  # noqa: ANN401
        return beginning.sub(by, cell, count=1) if isinstance(cell, str) and beginning.match(cell) else cell

    result = table.set_axis([one(name) for name in table.columns], axis=1)
    for place, kind in enumerate(table.dtypes):
        if kind.kind in _NOT_TEXT:
            continue
        column = table.iloc[:, place]
        suspect = column.astype("string").str.startswith(("'", *_SIGNS), na=False).to_numpy(bool)
        if suspect.any():  # few, if any, of perhaps a million
            cells = column.astype(object)
            cells[suspect] = [one(cell) for cell in cells[suspect]]
            result.isetitem(place, cells.astype(kind) if kind.name != "category" else cells)
    return result
