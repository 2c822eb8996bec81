"""The table of the fall as files: CSV, Markdown and one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxrnet.evaluation.comparison_writing import markdown
from cxrnet.evaluation.generalisation import printed_generalisation, verdicts
from cxrnet.evaluation.page import render_page, write_text


def write_generalisation(
    table: pd.DataFrame,
    level: float,
    folder: Path,
    *,
    title: str,
    warnings: Sequence[str],
    data_sets: Mapping[str, Mapping[str, str]],
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
        command: that makes the page again.
        environment: what it was made with.
    """
    printed = printed_generalisation(table, level)
    # What is said of one data set begins with its name, which keeps its spelling.
    sentences = [
        f"{text}." if text.split(":")[0] in data_sets else f"{text[0].upper()}{text[1:]}." for text in warnings
    ]
    facts = [
        f"- {name}: " + "; ".join(f"{key}: {value}" for key, value in of.items()) for name, of in data_sets.items()
    ]
    parts = [f"# {title}", *verdicts(table), "\n".join(f"- {text}" for text in sentences), f"## {printed.title}"]
    parts += [markdown(printed).rstrip(), printed.note, "## Data", "\n".join(facts), f"`{command}`"]
    return [
        write_text(folder / "generalisation.csv", table.to_csv(index=False, lineterminator="\n")),
        write_text(folder / "generalisation.md", "\n\n".join(part for part in parts if part) + "\n"),
        render_page(
            "generalisation.html.j2",
            folder / "generalisation.html",
            title=title,
            verdicts=verdicts(table),
            warnings=sentences,
            table=printed,
            data_sets=data_sets,
            command=command,
            environment=environment,
        ),
    ]
