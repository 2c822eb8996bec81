"""The table of the fall as files: CSV, Markdown and one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from cxrnet.core.atomic import write_text
from cxrnet.core.spreadsheet import to_csv
from cxrnet.evaluation.generalisation import LEADING
from cxrnet.evaluation.metrics import Evaluation, Metric
from cxrnet.evaluation.subgroups import METRICS
from cxrnet.reporting.analysis import Analysis
from cxrnet.reporting.model_card import EXTERNAL, Section
from cxrnet.reporting.rendering import Table, bullets, code, data_uri, markdown, paragraph, plain, render_page
from cxrnet.reporting.report import captions_of
from cxrnet.reporting.wording import BASELINES, HEADLINE, PER_CLASS, grouped, metric_text, percent, value_gaps

_PRINTED = {
    **{name: HEADLINE[name] for name in ("roc_auc_macro", "accuracy", "balanced_accuracy", "macro_f1", "log_loss")},
    "brier": "Brier score (lower is better)",
    "ece": "ECE (lower is better)",
}
_PRINTED_PER_CLASS = ("sensitivity", "specificity", "roc_auc")


def printed_generalisation(table: pd.DataFrame, level: float) -> Table:
    """The table of the fall as it is printed: the figures of each data set, each with its interval.

    Args:
        table: from :func:`generalisation_table`.
        level: of its intervals.
    """
    classes = len(set(table["class"]) - {""})
    titles = [_title(row, classes) for _, row in table.iterrows()]
    shown = table.assign(title=titles).dropna(subset="title")
    place, order = pd.factorize(shown["data"])[0], list(_PRINTED)
    rank = [order.index(metric) if metric in order else len(order) for metric in shown["metric"]]
    shown = shown.iloc[np.lexsort((rank, place))]
    rows = [
        [row["data"], row["title"], *(_number(row, part) for part in ("internal", "external", "change"))]
        for _, row in shown.iterrows()
    ]
    reasons = dict.fromkeys(f"{row['data']}: {row['reason']}" for _, row in shown.iterrows() if row["reason"])
    stated = f"Each figure with its {level:.0%} interval" if has_intervals(table) else "Without intervals"
    note = (
        f"{stated}. Internal: the bundle's own test images of the classes that the "
        "external data have, without those whose patient, or a copy, is in train or val. Change: external minus "
        "internal. Accuracy, F1, log loss, Brier score and ECE depend "
        "on the mix of classes, which the data sets don't share; ROC-AUC, sensitivity, specificity and balanced "
        "accuracy don't."
    )
    missing = f" Missing: {'; '.join(reasons)}." if reasons else ""
    columns = ["Data", "Figure", "Internal", "External", "Change"]
    return Table("The fall", pd.DataFrame(rows, columns=columns), 2, True, note + missing)


def has_intervals(table: pd.DataFrame) -> bool:
    """Whether any figure has one: none has where none were asked for."""
    return bool(table["external_low"].notna().any())


def verdicts(table: pd.DataFrame) -> list[str]:
    """What becomes of the leading figure on each data set, a sentence each; of a single class, of its sensitivity."""
    leading = [_leading(rows) for _, rows in table.groupby("data", sort=False)]
    return [_verdict(str(row["data"]), str(_title(row, 0)), row) for row in leading]


def _leading(rows: pd.DataFrame) -> pd.Series:
    """The row of one data set that its verdict is of."""
    (leading,) = (row for _, row in rows[rows["metric"] == LEADING].iterrows())
    known = rows[(rows["metric"] == "sensitivity") & rows["external"].notna()]
    return known.iloc[0] if np.isnan(leading["external"]) and len(known) == 1 else leading


def _verdict(data: str, title: str, row: pd.Series) -> str:
    if np.isnan(row["external"]):
        return f"{data}: {title} can't be computed ({row['reason']})."
    if np.isnan(row["change"]):
        return f"{data}: {title} is {_inline(row, 'external')}; there is nothing internal to compare it with."
    between = f"from {_inline(row, 'internal')} on the internal test images to {_inline(row, 'external')}"
    if row["change_high"] < 0:
        fall = f"{-row['change']:.3f} ({-row['change_high']:.3f} to {-row['change_low']:.3f})"
        return f"{data}: {title} falls by {fall}, {between}."
    return f"{data}: {title} goes {between}; the change of {_inline(row, 'change')} is not shown to be a fall."


def _title(row: pd.Series, classes: int) -> str | None:
    """Name of a figure that is printed; of two classes each has the AUC of the other."""
    metric, label = str(row["metric"]), row["class"]
    if not label:
        over = f" of {row['over']} alone" if row["over"] else ""
        return f"{_PRINTED[metric]}{over}" if metric in _PRINTED else None
    if metric not in _PRINTED_PER_CLASS or (metric == "roc_auc" and classes == 2):
        return None
    return f"{PER_CLASS[metric]}, {label}"


def _number(row: pd.Series, part: str) -> str:
    """A figure, and its interval on a second line."""
    return "\n(".join(_inline(row, part).split(" (", 1))


def _inline(row: pd.Series, part: str) -> str:
    """A figure and its interval; changes carry their sign."""
    sign, between = ("+", " to ") if part == "change" else ("", "–")
    value, low, high = (row[part + end] for end in ("", "_low", "_high"))
    if np.isnan(value):
        return "n/a"
    ends = "" if np.isnan(low) else f" ({low:{sign}.3f}{between}{high:{sign}.3f})"
    return f"{value:{sign}.3f}{ends}".replace("-", "−")


def write_generalisation(
    table: pd.DataFrame,
    level: float,
    folder: Path,
    *,
    title: str,
    warnings: Sequence[str],
    data_sets: Mapping[str, Mapping[str, str]],
    analyses: Mapping[str, Analysis],
    figures: Mapping[str, Mapping[str, Path]],
    baselines: Table,
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
        analyses: by name, what its figures mean; a data set without a result has none.
        figures: by name, its figures (:func:`cxrnet.reporting.results.save_analysis`), below ``folder``.
        baselines: from :func:`printed_baselines`.
        command: that makes the page again.
        environment: what it was made with.
    """
    tables = [printed_generalisation(table, level), baselines, printed_worth(analyses), *printed_subgroups(analyses)]
    curves = _decision_curves(analyses, figures)
    caption = captions_of(any(each.has_bands for each in analyses.values()))["decision"]
    # What is said of one data set begins with its name, which keeps its spelling.
    sentences = [f"{text}." if text.split(":")[0] in data_sets else _sentence(text) for text in warnings]
    parts = [f"# {plain(title)}", *map(paragraph, verdicts(table)), bullets(sentences), *_tables(tables)]
    parts += [*_worth_in_words(analyses), *_pictures(curves, caption, folder), *_data(data_sets), code(command)]
    return [
        write_text(folder / "generalisation.csv", to_csv(table, lineterminator="\n")),
        write_text(folder / "generalisation.md", "\n\n".join(part for part in parts if part) + "\n"),
        render_page(
            "generalisation.html.j2",
            folder / "generalisation.html",
            title=title,
            verdicts=verdicts(table),
            warnings=sentences,
            tables=tables,
            worth={name: analysis.triage for name, analysis in analyses.items()},
            curves={data: {name: data_uri(file) for name, file in of.items()} for data, of in curves.items()},
            caption=caption,
            data_sets=data_sets,
            command=command,
            environment=environment,
        ),
    ]


def _tables(tables: Sequence[Table]) -> list[str]:
    return [
        part for each in tables for part in (f"## {plain(each.title)}", markdown(each).rstrip(), paragraph(each.note))
    ]


def _data(data_sets: Mapping[str, Mapping[str, str]]) -> list[str]:
    facts = (f"{name}: {'; '.join(f'{key}: {value}' for key, value in of.items())}" for name, of in data_sets.items())
    return ["## Data", bullets(facts)]


def _worth_in_words(analyses: Mapping[str, Analysis]) -> list[str]:
    """What a call is worth, in paragraphs of Markdown."""
    parts = []
    for data, analysis in analyses.items():
        parts += [f"## What a call is worth on {plain(data)}"]
        parts += [
            part for sentences in analysis.triage.values() for part in (paragraph(sentences[0]), bullets(sentences[1:]))
        ]
    return parts


def _pictures(curves: Mapping[str, Mapping[str, Path]], caption: str, folder: Path) -> list[str]:
    """The decision curves, in paragraphs of Markdown that lies in ``folder``."""
    parts = []
    for data, of in curves.items():
        places = {name: quote(file.relative_to(folder).as_posix()) for name, file in of.items()}
        parts += [f"## Decision curves, {plain(data)}", paragraph(caption)]
        parts += ["\n".join(f"![Net benefit, {plain(name)}]({place})" for name, place in places.items())]
    return parts


def _decision_curves(
    analyses: Mapping[str, Analysis], figures: Mapping[str, Mapping[str, Path]]
) -> dict[str, dict[str, Path]]:
    """By data set and class, the picture of the decision curve; without those that have none."""
    return {
        data: {
            name: figures[data][f"decision_{place}"]
            for place, name in enumerate(analysis.predictive)
            if name in analysis.decisions
        }
        for data, analysis in analyses.items()
        if analysis.decisions
    }


def printed_baselines(
    networks: Mapping[str, Evaluation], baselines: Mapping[str, Mapping[str, Evaluation]], gap: str
) -> Table:
    """The trivial baselines beside the network, as they are printed.

    Args:
        networks: by data set, the figures of the network.
        baselines: by data set, those of ``majority`` and ``thumbnail``, as far as there are any.
        gap: why some are missing; empty where none is.
    """
    rows = [
        [data, title, *(_stacked(of[key]) if of else "n/a" for of in (network, *map(baselines[data].get, BASELINES)))]
        for data, network in networks.items()
        for key, title in HEADLINE.items()
    ]
    note = (
        "Both were trained on the training images of the bundle's run. Means over classes are over those that the data "
        "have, as above."
    )
    gaps = [
        f"{data}: {text}"
        for data, network in networks.items()
        for text in value_gaps((title, network[key]) for key, title in HEADLINE.items())
    ]
    gaps += [gap] if gap else []
    note += f" n/a: {'; '.join(gaps)}." if gaps else ""
    columns = ["Data", "Figure", "Network", *BASELINES.values()]
    return Table("Trivial baselines", pd.DataFrame(rows, columns=columns), 2, True, note)


def printed_worth(analyses: Mapping[str, Analysis]) -> Table:
    """What a call is worth at the stated prevalences, as it is printed, of the classes of which it can be said."""
    rows = [
        [data, name, percent(row["prevalence"]), _stacked(row["ppv"]), _stacked(row["npv"])]
        for data, analysis in analyses.items()
        for name, row in _known(analysis)
    ]
    columns = ["Data", "Class", "Prevalence", "A positive call is right (PPV)", "A negative call is right (NPV)"]
    gaps = [f"{data}: {text}" for data, analysis in analyses.items() for text in _unknown(analysis)]
    note = f"n/a: {'; '.join(gaps)}." if gaps else ""
    return Table("What a call is worth", pd.DataFrame(rows, columns=columns), 2, True, note)


def _known(analysis: Analysis) -> list[tuple[str, dict[str, Any]]]:
    """Class and row of the predictive values, of the classes that have any."""
    rows = [(name, row) for name, table in analysis.predictive.items() for row in table.to_dict("records")]
    return [(name, row) for name, row in rows if not ("reason" in row["ppv"] and "reason" in row["npv"])]


def _unknown(analysis: Analysis) -> list[str]:
    """Which predictive values of a data set are missing, and why."""
    values = [
        (f"{figure.upper()} of {name}", row[figure]) for name, row in _known(analysis) for figure in ("ppv", "npv")
    ]
    return value_gaps(dict(values).items())


def _stacked(metric: Metric) -> str:
    """A figure, and its interval on a second line."""
    return metric_text(metric).replace(" (", "\n(")


def printed_subgroups(analyses: Mapping[str, Analysis]) -> list[Table]:
    """The figures in each subgroup as they are printed, with the warnings as their note; no table without groups."""
    rows = [
        [data, f"{row['attribute']} {row['group']}", row["class"], grouped(row["n"]), grouped(row["positives"])]
        + [_stacked(row[name]) for name in METRICS]
        for data, analysis in analyses.items()
        for row in analysis.subgroups.to_dict("records")
    ]
    if not rows:
        return []
    columns = ["Data", "Group", "Class", "Images", "Of the class", *(PER_CLASS[name] for name in METRICS)]
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
