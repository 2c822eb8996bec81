"""The table of the fall as files: CSV, Markdown and one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxrnet.evaluation.analysis import Analysis
from cxrnet.evaluation.comparison_tables import Table
from cxrnet.evaluation.comparison_writing import markdown
from cxrnet.evaluation.generalisation import printed_generalisation, verdicts
from cxrnet.evaluation.model_card import EXTERNAL, Section
from cxrnet.evaluation.page import render_page, write_text
from cxrnet.evaluation.subgroups import FIGURES
from cxrnet.evaluation.wording import PER_CLASS, figure_text, grouped


def write_generalisation(
    table: pd.DataFrame,
    level: float,
    folder: Path,
    *,
    title: str,
    warnings: Sequence[str],
    data_sets: Mapping[str, Mapping[str, str]],
    analyses: Mapping[str, Analysis],
    command: str,
    environment: Mapping[str, str],
) -> list[Path]:
    """Write ``generalisation.csv``, ``.md`` and ``.html``, each whole or not at all.

    Args:
        table: from :func:`cxrnet.evaluation.generalisation.generalisation_table`.
        level: of its intervals.
        folder: where to write.
        title: of the page.
        warnings: what a reader must know before the numbers.
        data_sets: by name, what was done to it.
        analyses: by name, what is known of its subgroups; a data set without a result has none.
        command: that makes the page again.
        environment: what it was made with.
    """
    tables = [printed_generalisation(table, level), *printed_subgroups(analyses)]
    # What is said of one data set begins with its name, which keeps its spelling.
    sentences = [f"{text}." if text.split(":")[0] in data_sets else _sentence(text) for text in warnings]
    facts = [
        f"- {name}: " + "; ".join(f"{key}: {value}" for key, value in of.items()) for name, of in data_sets.items()
    ]
    parts = [f"# {title}", *verdicts(table), "\n".join(f"- {text}" for text in sentences)]
    parts += [part for each in tables for part in (f"## {each.title}", markdown(each).rstrip(), each.note)]
    parts += ["## Data", "\n".join(facts), f"`{command}`"]
    return [
        write_text(folder / "generalisation.csv", table.to_csv(index=False, lineterminator="\n")),
        write_text(folder / "generalisation.md", "\n\n".join(part for part in parts if part) + "\n"),
        render_page(
            "generalisation.html.j2",
            folder / "generalisation.html",
            title=title,
            verdicts=verdicts(table),
            warnings=sentences,
            tables=tables,
            data_sets=data_sets,
            command=command,
            environment=environment,
        ),
    ]


def printed_subgroups(analyses: Mapping[str, Analysis]) -> list[Table]:
    """The figures in each subgroup as they are printed, with the warnings as their note; no table without groups."""
    rows = [
        [data, f"{row['attribute']} {row['group']}", row["class"], grouped(row["n"]), grouped(row["positives"])]
        + [figure_text(row[name]).replace(" (", "\n(") for name in FIGURES]
        for data, analysis in analyses.items()
        for row in analysis.subgroups.to_dict("records")
    ]
    if not rows:
        return []
    columns = ["Data", "Group", "Class", "Images", "Of the class", *(PER_CLASS[name] for name in FIGURES)]
    note = " ".join(f"{data}: {text}" for data, analysis in analyses.items() for text in analysis.warnings)
    return [Table("Subgroups", pd.DataFrame(rows, columns=columns), 3, True, note)]


def external_section(table: pd.DataFrame, level: float, warnings: Sequence[str]) -> Section:
    """What the model card says of the external data: the verdicts, the warnings and the table of the fall."""
    printed = printed_generalisation(table, level)
    rows = [[cell.replace("\n", " ") for cell in row] for row in printed.rows.to_numpy().tolist()]
    sentences = [" ".join(verdicts(table)), *(f"{text}." for text in warnings), printed.note]
    return Section(EXTERNAL, sentences, [list(printed.rows.columns), *rows])


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
