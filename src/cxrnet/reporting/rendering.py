"""Tables, text and pages in each format: HTML, Markdown, LaTeX, the console.

A name, a path or a command is printed as it is, and never becomes markup or HTML. The Markdown is written for
CommonMark and GitHub's tables (https://github.github.com/gfm), and for readers that pass raw HTML on. A page is one
file: no network, no script, plots inside. Its template extends ``page.html.j2``, which brings the look and a content
policy that forbids anything from outside.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table as RichTable

from cxrnet.core.atomic import write_text
from cxrnet.reporting.wording import interval_text, level_text, number_text

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


def bullets(texts: Iterable[str]) -> str:
    """Write a list, an item for each text."""
    return "\n".join(f"- {paragraph(text)}" for text in texts)


def code(text: str) -> str:
    """Write text as code, as a command is."""
    text = _BREAKS.sub(" ", text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Attributes:
        title: without a full stop.
        rows: strings, the columns by their titles. Where a cell has a second line, it is the smaller one.
        text: columns from the left that hold text; the others hold numbers.
        grouped: the first column names a group of rows that follow each other.
        note: what a reader must know, in sentences; one line a paragraph.
    """

    title: str
    rows: pd.DataFrame
    text: int
    grouped: bool
    note: str

    @property
    def flat(self) -> list[list[str]]:
        """The titles and the rows, each cell in one line."""
        return [[str(cell).replace("\n", " ") for cell in row] for row in (self.rows.columns, *self.rows.to_numpy())]

    def groups(self) -> list[tuple[str, list[list[str]]]]:
        """Yield the groups of rows by name, without the column of their name; one without a name if not grouped."""
        if not self.grouped:
            return [("", self.rows.to_numpy().tolist())]
        groups = self.rows.groupby(self.rows.columns[0], sort=False)
        return [(str(name), rows.iloc[:, 1:].to_numpy().tolist()) for name, rows in groups]

    def lines(self) -> list[list[str]]:
        """Yield the rows with all columns; the name of a group stands in its first row only."""
        if not self.grouped:
            return self.groups()[0][1]
        return [["" if place else name, *row] for name, rows in self.groups() for place, row in enumerate(rows)]


# What LaTeX reads as markup, and what its default fonts lack.
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "–": "--", "\u202f": r"\,", "\u00a0": "~", "\n": " "}
)


def markdown(table: Table) -> str:
    """Write a table as Markdown; what a name holds is text, not markup."""
    columns = list(table.rows.columns)
    rule = ["---" if place < table.text else "---:" for place in range(len(columns))]
    lines = [[plain(cell) for cell in line] for line in (columns, *table.lines())]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:])) + "\n"


def latex_tables(tables: Mapping[str, Table]) -> str:
    """Write tables as LaTeX, one ``table`` each, in the style of booktabs; one that is too wide is made smaller."""
    blocks = [latex(table, f"tab:{name.replace('_', '-')}") for name, table in tables.items()]
    return "\n".join(["% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.", *blocks])


def latex(table: Table, label: str) -> str:
    """Write a table as LaTeX, in the style of booktabs; what a name holds is text, not markup."""
    columns = [str(column).translate(LATEX) for column in table.rows.columns]
    lines = [[cell.translate(LATEX) for cell in line] for line in table.lines()]
    text = (
        pd.DataFrame(lines, columns=columns)
        .style.hide(axis="index")
        .to_latex(
            column_format="l" * table.text + "r" * (len(columns) - table.text),
            hrules=True,
            caption=f"{table.title}. {table.note}".translate(LATEX),
            label=label,
            position="htbp",
            position_float="centering",
        )
    )
    # As wide as it is, but no wider than the page.
    fitting = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    begin, end = r"\begin{tabular}", r"\end{tabular}"
    return str(text).replace(begin, f"{fitting}\n{begin}").replace(end, f"{end}}}")


def rich_table(table: Table) -> RichTable:
    """Lay a table out for the console; a name that is too long breaks, a number doesn't."""
    laid_out = RichTable(box=None, pad_edge=False, padding=(0, 1, 0, 2))
    for place, title in enumerate(map(str, table.rows.columns)):
        text = place < table.text
        longest = max(len(part) for cell in (title, *table.rows.iloc[:, place]) for part in cell.split("\n"))
        justify: Literal["left", "right"] = "left" if text else "right"
        laid_out.add_column(title, justify=justify, overflow="fold", no_wrap=not text, min_width=min(longest, 15))
    for line in table.lines():
        laid_out.add_row(*line)
    return laid_out


def text_of(table: Table, width: int | None = None) -> str:
    """Write a table as plain text, its note below; columns beyond ``width`` follow below, with the rows named again."""
    first, *_ = table.rows.columns
    text = table.rows.set_index(first).rename_axis(None).to_string(line_width=width, col_space=12)
    lines = [line.rstrip(" \\") for line in text.splitlines()]  # pandas marks a table that goes on below
    return "\n".join([*lines, table.note])


def render_page(template: str, path: Path, **values: object) -> Path:
    """Write a page, whole or not at all, and return its path; arguments as for :func:`render_text`."""
    return write_text(path, render_text(template, **values))


def render_text(template: str, **values: object) -> str:
    """Fill in a template.

    Args:
        template: its file name, as ``"comparison.html.j2"``. What it prints is escaped.
        values: what the template calls for; a name without a value is an error.
    """
    environment = Environment(
        loader=PackageLoader("cxrnet", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number_text, interval=interval_text, level=level_text)
    return environment.get_template(template).render(values)


def data_uri(file: Path) -> str:
    """Put a PNG into a page: the value of ``src``."""
    return png_uri(file.read_bytes())


def png_uri(data: bytes) -> str:
    """Put the bytes of a PNG into a page, as :func:`data_uri`."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
