"""Text in Markdown: what a name, a path or a command holds is printed as it is, and never becomes markup or HTML.

Written for CommonMark and GitHub's tables (https://github.github.com/gfm), and for those that pass raw HTML on.
"""

import re
from collections.abc import Iterable

_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")  # of lines: what follows one may begin anything
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|#(?=#*\s*$)")  # "val_loss" is read as it is
_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
_BEGINNING = re.compile(r"([#+=>-])|(\d{1,9})([.)])(?=\s|$)")  # of a heading, a list or a quotation


def plain(text: str) -> str:
    """Escape text inside of a line: a cell of a table, a heading after its mark, the words of a picture."""
    entities = _HTML.sub(lambda found: "&lt;" if found[0] == "<" else "&amp;", _BREAKS.sub(" ", text).strip())
    return _MARKUP.sub(r"\\\g<0>", entities)


def paragraph(text: str) -> str:
    """Escape text that begins a line, or an item of a list."""
    escaped = plain(text)
    if not (found := _BEGINNING.match(escaped)):
        return escaped
    sign, number, dot = found.groups()
    return (f"\\{sign}" if sign else f"{number}\\{dot}") + escaped[found.end() :]


def listed(texts: Iterable[str]) -> str:
    """Write a list, an item for each text."""
    return "\n".join(f"- {paragraph(text)}" for text in texts)


def code(text: str) -> str:
    """Write text as code, as a command is."""
    text = _BREAKS.sub(" ", text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"
