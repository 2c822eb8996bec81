"""Tables for people, and how they are written in Markdown and LaTeX."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd
from rich.table import Table as RichTable

from cxrnet.reporting.markdown import plain


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Attributes:
        title: without a full stop.
        rows: strings, the columns by their titles. Where a cell has a second line, it is the smaller one.
        text: columns from the left that hold text; the others hold numbers.
        grouped: the first column names a group of rows that follow each other.
        note: what a reader must know, in sentences.
    """

    title: str
    rows: pd.DataFrame
    text: int
    grouped: bool
    note: str

    def groups(self) -> list[tuple[str, list[list[str]]]]:
        """The groups of rows by name, without the column of their name; one group without a name if not grouped."""
        if not self.grouped:
            return [("", self.rows.to_numpy().tolist())]
        groups = self.rows.groupby(self.rows.columns[0], sort=False)
        return [(str(name), rows.iloc[:, 1:].to_numpy().tolist()) for name, rows in groups]

    def lines(self) -> list[list[str]]:
        """The rows with all columns; the name of a group stands in its first row only."""
        if not self.grouped:
            return self.groups()[0][1]
        return [["" if place else name, *row] for name, rows in self.groups() for place, row in enumerate(rows)]


# What LaTeX reads as markup, and what its default fonts lack.
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "–": "--", "\u202f": r"\,", "\u00a0": "~", "\n": " "}
)

# As wide as it is, but no wider than the page.
FITTING = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


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

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cell.translate(LATEX) for cell in cells) + r" \\"

    columns = "l" * table.text + "r" * (len(table.rows.columns) - table.text)
    lines = [r"\begin{table}[htbp]", r"\centering", rf"\caption{{{f'{table.title}. {table.note}'.translate(LATEX)}}}"]
    lines += [rf"\label{{{label}}}", FITTING, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines.append(line(table.rows.columns))
    for place, row in enumerate(table.lines()):
        if place == 0 or (table.grouped and row[0]):
            lines.append(r"\midrule")
        lines.append(line(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}}", r"\end{table}", ""])


def rich_table(table: Table) -> RichTable:
    """Lay a table out for the console; a name that is too long breaks, a number doesn't."""
    laid_out = RichTable(box=None, pad_edge=False, padding=(0, 1, 0, 2))
    for place, title in enumerate(table.rows.columns):
        text = place < table.text
        laid_out.add_column(str(title), justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for line in table.lines():
        laid_out.add_row(*line)
    return laid_out
