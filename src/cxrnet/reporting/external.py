"""The report of an evaluation on external data: warnings, table of the performance drop, one page, the console."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrnet.core import console
from cxrnet.core.atomic import write_text
from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.external import ExternalSet, KnownImages
from cxrnet.data.leaks import conflict_statement, patients_text
from cxrnet.data.manifest import digest
from cxrnet.evaluation.decision import Mix, threshold_sentence
from cxrnet.evaluation.generalisation import LEADING, PARTS, Sides, generalisation_table
from cxrnet.models.bundle import Bundle
from cxrnet.models.gate import TURNED_AWAY
from cxrnet.reporting.model_card import EXTERNAL, Section
from cxrnet.reporting.pictures import Pictures, fitted, room
from cxrnet.reporting.rendering import Table, data_uri, render_page, rich_table
from cxrnet.reporting.report import captions_of, thumbnail_verdict
from cxrnet.reporting.results import Analysis, Results
from cxrnet.reporting.tables import subgroup_table
from cxrnet.reporting.wording import BASELINES, PER_CLASS, RESULT, level_text, titles


def origin_warnings(known: KnownImages | None, leaked: int, tested: int) -> list[str]:
    """Warn of what isn't known of the bundle's run.

    Args:
        known: the images of the run; ``None`` where they aren't known.
        leaked: number of its test images that were leaked into training.
        tested: number of its other test images.
    """
    sentences = []
    if known is None:
        sentences.append(
            "the images that the bundle was made with are not known (no manifest.parquet of its run beside it): the "
            "data can't be searched for duplicates of them, and the metrics may be flattered"
        )
    elif known.lost:
        sentences.append(
            f"{known.lost} of {len(known.manifest)} images that the bundle was made with can't be read any more: only "
            "duplicates with the same bytes are found of these"
        )
    if leaked:
        sentences.append(
            f"{leaked} of {leaked + tested} internal test images were leaked into training (their patient, or a "
            "duplicate, is in train or val); the internal metrics are without them"
        )
    if not tested:
        missing = "clean internal test images are left" if leaked else "internal test result lies beside the bundle"
        sentences.append(f"no {missing}, so there is no performance drop to state")
    return sentences


def mix_warnings(bundle: Bundle, mix: Mix) -> list[str]:
    """Warn of the class prevalences that the probabilities hold for."""
    if mix.shares is None:
        return [
            f"the probabilities are {mix}: decision curves take the prevalences in each data set for them, and with "
            "class weights or a balanced sampler in training the probabilities hold for no real prevalences"
        ]
    if mix.asked is None:
        return []
    kept = threshold_sentence(mix, bundle.operating_points, bundle.defer_below is not None)
    return [
        f"the probabilities are {mix}, those of the internal result and of the baselines too; the images keep the "
        "prevalences of their data set, so log loss, Brier score and ECE compare the two",
        *([kept] if kept else []),
    ]


def data_warnings(sets: Sequence[ExternalSet]) -> list[str]:
    """Warn of what is wrong with the data sets, each sentence with the name of its set."""
    return [f"{each.name}: {sentence}" for each in sets for sentence in _about(each)]


def _about(each: ExternalSet) -> Iterator[str]:
    yield from each.notes
    if duplicates := sum((each.duplicates or {}).values()):
        yield (
            f"{duplicates} images are duplicates of images that the bundle was made with or tested on; they were "
            "removed. Duplicates that were cropped, turned or mirrored escape the search"
        )
    if each.turned_away:
        yield (
            f"{each.turned_away} of {each.turned_away + len(each.manifest)} images were turned away by the bundle's "
            f"gate ({TURNED_AWAY}) and are left out of the metrics, which may flatter them; gate=false counts all"
        )
    if each.same_patients:
        yield f"{each.same_patients} images are of patients of whom the bundle's run has other images"
    yield from conflict_statement(each.within, each.manifest)
    for other, count in each.shared.items():
        yield f"{count} images are in {other} too; the two results are not independent"
    if each.gap:
        yield f"not evaluated, for {each.gap}"
        return
    if each.lacking:
        yield (
            f"no image is labelled {', '.join(each.lacking)}; metrics that need one are n/a, and means are over the "
            "other classes alone"
        )
    if (each.manifest["source"] == "phantom").any():
        yield "the images are synthetic; the result says nothing about patients"


def data_facts(each: ExternalSet) -> dict[str, str]:
    """Say what was done to a data set, in the order of the steps."""
    facts = {"images": f"{each.listed} listed{', their published split ignored' if each.published else ''}"}
    if each.renamed:
        facts["read as"] = ", ".join(f"{label} as {target}" for label, target in each.renamed.items())
    if each.left_out:
        classes = ", ".join(f"{label} {count}" for label, count in each.left_out.items())
        facts["left out"] = f"{classes}: no class of the bundle"
    if each.unreadable:
        facts["unreadable"] = str(each.unreadable)
    if each.duplicates is None:
        facts["duplicates"] = "not searched for: the images that the bundle was made with are not known"
    else:
        splits = ", ".join(f"{count} of {split}" for split, count in each.duplicates.items())
        facts["duplicates"] = f"{sum(each.duplicates.values())} removed{f' ({splits})' if splits else ''}"
    if each.turned_away is not None:
        facts["gate"] = f"{each.turned_away} turned away, each of which {TURNED_AWAY}"
    if each.gap:
        return facts | {"evaluated": f"nothing: {each.gap}"}
    counts = each.manifest["label"].value_counts().sort_index()
    facts["evaluated"] = f"{len(each.manifest)} images: {', '.join(f'{k} {n}' for k, n in counts.items())}"
    return facts | {"patients": patients_text(each.manifest), "digest": digest(each.manifest)}


@dataclass(frozen=True)
class ExternalFacts:
    """Facts of the page on an evaluation.

    Attributes:
        title: title of the page.
        sets: the data sets, duplicates removed.
        results: by name of the data set; one that can't be evaluated has none.
        sides: by name of the data set, its metrics beside the internal ones.
        baseline_gap: which baselines are missing and why; empty where none is.
        level: level of the confidence intervals.
        warnings: sentences about the run and the data.
        command: command that makes the page again.
        environment: what it was made with.
        pictures: by name of the data set, its errors and hits.
    """

    title: str
    sets: Sequence[ExternalSet]
    results: Mapping[str, Results]
    sides: Mapping[str, Sides]
    baseline_gap: str
    level: float
    warnings: Sequence[str]
    command: str
    environment: Mapping[str, str]
    pictures: Mapping[str, Pictures] = field(default_factory=dict)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The performance drop (:func:`cxrnet.evaluation.generalisation.generalisation_table`)."""
        return generalisation_table(self.sides, {each.name: each.gap for each in self.sets if each.gap})

    @property
    def all_warnings(self) -> list[str]:
        """The warnings, and those that follow from the metrics."""
        verdicts = {
            name: thumbnail_verdict(each.external, each.baselines["thumbnail"])
            for name, each in self.sides.items()
            if "thumbnail" in each.baselines
        }
        return [*self.warnings, *(f"{name}: {text.removesuffix('.')}" for name, text in verdicts.items() if text)]

    @property
    def analyses(self) -> dict[str, Analysis]:
        """By name of the data set, what its metrics mean."""
        return {name: each.analyses["test"] for name, each in self.results.items()}


def drop_table(table: pd.DataFrame, level: float, parts: Sequence[str] = PARTS) -> Table:
    """Print the performance drop: the metrics of each data set, the leading one first.

    Args:
        table: from :func:`cxrnet.evaluation.generalisation.generalisation_table`.
        level: level of its confidence intervals.
        parts: parts of the table, and baselines.
    """
    overall = table[(table["class"] == "") & table["metric"].isin(RESULT)]
    leading = overall["metric"] == LEADING
    of_class = table[(table["class"] != "") & table["metric"].isin(PER_CLASS)]
    shown = pd.concat([overall[leading], overall[~leading], of_class])
    rows = [
        [data, _title(row), *(_inline(row, part).replace(" (", "\n(", 1) for part in parts)]
        for data in table["data"].unique()
        for row in shown[shown["data"] == data].to_dict("records")
    ]
    reasons = dict.fromkeys(f"{row['data']}: {row['reason']}" for row in shown.to_dict("records") if row["reason"])
    stated = f"Each metric with its {level_text(level)} confidence interval" if has_intervals(table) else "No intervals"
    note = (
        f"{stated}. Internal: the bundle's own test images of the classes that the external data have, without those "
        "whose patient, or a duplicate, is in train or val. Change: external minus internal. ROC-AUC, sensitivity, "
        "specificity and balanced accuracy do not depend on the mix of classes, which the data sets don't share; the "
        "other metrics do."
    )
    missing = f" Missing: {'; '.join(reasons)}." if reasons else ""
    columns = ["Data", "Metric", *(BASELINES.get(part, part.capitalize()) for part in parts)]
    return Table("Performance drop", pd.DataFrame(rows, columns=columns), 2, True, note + missing)


def has_intervals(table: pd.DataFrame) -> bool:
    """Tell whether any metric has a confidence interval: none has where none were asked for."""
    return bool(table["external_low"].notna().any())


def verdicts(table: pd.DataFrame) -> list[str]:
    """State the change of the leading metric on each data set; of a single class, that of its sensitivity."""
    sentences = []
    for _, of_data in table.groupby("data", sort=False):
        rows = of_data.to_dict("records")
        (row,) = (row for row in rows if row["metric"] == LEADING)
        known = [row for row in rows if row["metric"] == "sensitivity" and not np.isnan(row["external"])]
        if np.isnan(row["external"]) and len(known) == 1:
            row = known[0]
        said, external = f"{row['data']}: {_title(row)}", _inline(row, "external")
        between = f"from {_inline(row, 'internal')} on the internal test images to {external}"
        if np.isnan(row["external"]):
            said += f" can't be computed ({row['reason']})."
        elif np.isnan(row["change"]):
            said += f" is {external}; there is nothing internal to compare it with."
        elif row["change_high"] < 0:
            drop = f"{-row['change']:.3f} ({-row['change_high']:.3f} to {-row['change_low']:.3f})"
            said += f" drops by {drop}, {between}."
        else:
            said += f" goes {between}; the change of {_inline(row, 'change')} is not shown to be a drop."
        sentences.append(said)
    return sentences


def _title(row: Mapping[str, Any]) -> str:
    if row["class"]:
        return f"{PER_CLASS[row['metric']]}, {row['class']}"
    over = f" of {row['over']} alone" if row["over"] else ""
    return f"{RESULT[row['metric']]}{over}"


def _inline(row: Mapping[str, Any], part: str) -> str:
    """Write a metric and its interval; changes carry their sign."""
    sign, between = ("+", " to ") if part == "change" else ("", "–")
    value, low, high = (row[part + end] for end in ("", "_low", "_high"))
    if np.isnan(value):
        return "n/a"
    ends = "" if np.isnan(low) else f" ({low:{sign}.3f}{between}{high:{sign}.3f})"
    return f"{value:{sign}.3f}{ends}".replace("-", "−")


def write_external(facts: ExternalFacts, folder: Path) -> list[Path]:
    """Write ``generalisation.csv`` and ``generalisation.html``, each whole or not at all."""
    analyses, names = facts.analyses, {each.name for each in facts.sets}
    curves = {
        data: {
            name: data_uri(facts.results[data].plots[f"decision_{place}"])
            for place, name in enumerate(analysis.predictive)
            if name in analysis.decisions
        }
        for data, analysis in analyses.items()
        if analysis.decisions
    }
    drop = drop_table(facts.table, facts.level, [*PARTS, *BASELINES])
    note = (
        f"{drop.note} {' and '.join(BASELINES.values())}: trivial baselines on the external data, trained on the "
        f"training images of the bundle's run{f' ({facts.baseline_gap})' if facts.baseline_gap else ''}."
    )
    groups = subgroup_table(analyses)
    page = render_page(
        "generalisation.html.j2",
        folder / "generalisation.html",
        facts=facts,
        verdicts=verdicts(facts.table),
        # A sentence about one data set begins with its name, which keeps its spelling.
        warnings=[
            f"{text}." if text.split(":")[0] in names else f"{text[0].upper()}{text[1:]}."
            for text in facts.all_warnings
        ],
        tables=[replace(drop, note=note), *([groups] if groups else [])],
        curves=curves,
        pictures=fitted(facts.pictures, room(uri for each in curves.values() for uri in each.values())),
        caption=captions_of(any(each.has_bands for each in analyses.values()))["decision"],
        data_sets={each.name: data_facts(each) | known_issues(each) for each in facts.sets},
    )
    return [write_text(folder / "generalisation.csv", to_csv(facts.table, lineterminator="\n")), page]


def known_issues(each: ExternalSet) -> dict[str, str]:
    """Say what is documented to be wrong with a data set; :func:`data_warnings` says what was found."""
    sentences = [f"{source}: {text}." for source, issues in each.known_issues.items() for text in issues]
    return {"known issues": " ".join(sentences) or "none is documented"}


def external_section(facts: ExternalFacts) -> Section:
    """Write the model card's section on the external data: verdicts, warnings and the table of the drop."""
    printed = drop_table(facts.table, facts.level)
    sentences = [" ".join(verdicts(facts.table)), *(f"{text}." for text in facts.all_warnings), printed.note]
    return Section(EXTERNAL, sentences, printed.flat)


def say_external(facts: ExternalFacts) -> None:
    """Show the main metrics, the verdicts and the warnings."""
    table = facts.table
    main = drop_table(table[(table["class"] == "") & table["metric"].isin(titles("summary"))], facts.level)
    console.heading(main.title)
    console.show(rich_table(main))
    console.say("note", f"{main.note.split('. ')[0]}; all metrics are on the page")
    for text in verdicts(table):
        console.say("so", text)
    for text in facts.all_warnings:
        console.warn(text)
