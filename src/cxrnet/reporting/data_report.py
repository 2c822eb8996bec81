"""``data_report.html``: one page on a data set, before anything is trained on it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import patients_text
from cxrnet.reporting.data_pictures import PAIRS, Looks, doubted_group, pair_groups, sheets
from cxrnet.reporting.data_tables import (
    acquisition_table,
    age_table,
    fix_table,
    format_table,
    patients_table,
    size_table,
    split_table,
    value_table,
)
from cxrnet.reporting.data_verdict import Checks, Verdict
from cxrnet.reporting.pictures import NONE_ASKED, Pictures, fitted, room
from cxrnet.reporting.rendering import Table, data_uri, render_page
from cxrnet.reporting.wording import grouped, metric_text

_CAPTIONS = {
    "class_distribution": "Images of each class in each split.",
    "image_sizes": "Sizes of the files of each class: a size that only one class has tells the class.",
}


@dataclass(frozen=True)
class DataPage:
    """What the page on a data set says besides what follows from its images.

    Attributes:
        title: name of the data set.
        verdict: what the checks came to.
        checks: the checks.
        known_issues: documented issues, a sentence each.
        notes: what was said while the data were read.
        images: pictures of each group; 0 leaves all pictures out.
        command: command that makes the page again; empty where there was none.
        environment: what it was made with.
        fixes: from :func:`cxrnet.data.fixes.fix_manifest`; ``None`` where none were asked for.
        plots: PNG files by name.
    """

    title: str
    verdict: Verdict
    checks: Checks
    known_issues: Sequence[str]
    notes: Sequence[str]
    images: int
    command: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    fixes: pd.DataFrame | None = None
    plots: Mapping[str, Path] = field(default_factory=dict)


def render_data_report(page: DataPage, data: XrayDataModule, path: Path) -> Path:
    """Write the page, whole or not at all, and return its path.

    Args:
        page: what it says.
        data: read, and split where it can be.
        path: the file to write.
    """
    manifest, classes, checks = data.manifest, data.classes, page.checks
    plots = {name: data_uri(file) for name, file in page.plots.items()}
    pictures = data_pictures(page, data, room(plots.values()))
    return render_page(
        "data_report.html.j2",
        path,
        page=page,
        created=time.strftime("%Y-%m-%d %H:%M"),
        summary=_summary(manifest, classes),
        verdict={name: list(map(sentence, texts)) for name, texts in vars(page.verdict).items()},
        splits=split_table(manifest, classes),
        patients=patients_table(manifest),
        columns=_columns(manifest, classes),
        formats=format_table(checks, manifest["label"], classes),
        sizes=size_table(manifest, classes),
        source=source_text(checks),
        acquisition=acquisition_table(checks.acquisition),
        labels=_label_text(checks),
        notes=list(map(sentence, page.notes)),
        fixes=None if page.fixes is None else fix_table(page.fixes),
        plots=plots,
        captions=_CAPTIONS,
        pictures=pictures,
    )


def _summary(manifest: pd.DataFrame, classes: Sequence[str]) -> str:
    counts = manifest["label"].value_counts()
    each = ", ".join(f"{name} {grouped(int(counts.get(name, 0)))}" for name in classes)
    return f"{grouped(len(manifest))} images: {each}. Patients: {patients_text(manifest)}."


def data_pictures(page: DataPage, data: XrayDataModule, limit: int) -> dict[str, Pictures]:
    """Make the pictures of the page, at most ``limit`` bytes of them: ``sheets``, ``pairs``, ``labels``."""
    if page.images == 0:
        return dict.fromkeys(("sheets", "pairs", "labels"), Pictures(note=NONE_ASKED))
    looks, found = Looks(data.manifest, data.images), page.checks.labels.found
    doubted = [doubted_group(found, looks, 2 * page.images, "doubted_labels.csv")] if len(found) else []
    parts = {
        "sheets": Pictures(sheets(data, looks, page.images)),
        "pairs": Pictures(pair_groups(page.checks.pairs, looks, PAIRS * page.images, "duplicates.csv")),
        "labels": Pictures(doubted),
    }
    return fitted(parts, limit)


def sentence(text: str) -> str:
    """Write a text of the console as a page has it."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def _columns(manifest: pd.DataFrame, classes: Sequence[str]) -> dict[str, Table | None]:
    """Tabulate by class what is known of the images; ``None`` for what is known of none."""
    tables: dict[str, Table | None] = {}
    for name in ("source", "view", "sex"):
        values = manifest[name] if name in manifest else pd.Series(pd.NA, index=manifest.index, dtype="string")
        tables[name.capitalize()] = value_table(values, manifest["label"], classes, name.capitalize())
    return {**tables, "Age": age_table(manifest, classes)}


def source_text(checks: Checks) -> str:
    """Say how far the source tells the class."""
    found = checks.source
    if found.value is None:
        return f"Whether the source tells the class can't be told: {found.reason}."
    between = "" if found.interval is None else f" (95 % CI {found.interval[0]:.2f} to {found.interval[1]:.2f})"
    reason = f" There is no interval: {found.reason}." if found.interval is None else ""
    return (
        f"Cramér's V of class and source, corrected for bias: {found.value:.2f}{between}, n = {grouped(found.n)}; 0 "
        "says that the source tells nothing of the class, 1 that it tells it. Each patient, or group of duplicates, "
        f"counts once for each pair of class and source.{reason}"
    )


def _label_text(checks: Checks) -> str:
    """Say how labels were doubted, or why they were not."""
    labels = checks.labels
    told = f" Its ROC-AUC (macro) is {metric_text(labels.auc)}." if labels.auc is not None else ""
    if labels.gap:
        return f"Nobody's label is doubted: {labels.gap}.{told}"
    return (
        f"A linear model on {labels.features}, which hasn't seen the image, its patient or its duplicates, says "
        "another class than the label, as surely as it says that class of images that bear it (confident learning, "
        f"Northcutt et al. 2021).{told} A doubted label is a reason to look, no finding: difficult images are "
        "doubted too."
    )
