"""The audit in words, tables and pictures: its page, and what it adds to the report and the card of the run."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core import console
from cxrnet.core.atomic import write_text
from cxrnet.data.images.decode import UInt8Array
from cxrnet.evaluation.audit import Look, Sampling
from cxrnet.reporting.audit_tables import map_table, moved_table, planted_table, seen_table, shortened
from cxrnet.reporting.audit_verdict import Verdict
from cxrnet.reporting.model_card import AUDIT, Section
from cxrnet.reporting.plots.explanation import Caption, explanation
from cxrnet.reporting.rendering import Table, png_uri, render_page, render_text, rich_table

_SECTION = re.compile(r'<section id="audit">.*?</section>\n', re.DOTALL)


@dataclass(frozen=True)
class Explained:
    """An image and its maps.

    Attributes:
        name: ``image_id``.
        label: its class.
        predicted: the predicted class, which is explained.
        probability: of that.
        image: ``(H, W) uint8``.
        maps: by method, the map ``(H, W)`` in 0..1 and what is wrong with it.
    """

    name: str
    label: str
    predicted: str
    probability: float
    image: UInt8Array
    maps: Mapping[str, tuple[npt.NDArray[np.floating], str]]

    def pictures(self) -> dict[str, bytes]:
        """Draw each map beside the image, as PNG, by method."""
        drawn = {}
        for method, (heat, caution) in self.maps.items():
            right = "right" if self.label == self.predicted else f"label {self.label}"
            words = [f"{method} of {self.predicted}, probability {self.probability:.2f} ({right})", self.name]
            file = BytesIO()
            explanation(self.image, heat, Caption(words, caution)).save(file, "PNG", optimize=True)
            drawn[method] = file.getvalue()
        return drawn


@dataclass(frozen=True)
class AuditFacts:
    """Everything that is said of an audit.

    Attributes:
        title: ``"mobilenet_v2 on covid_chestxray"``.
        classes: of the bundle.
        looks: all looks.
        changes: from :func:`cxrnet.evaluation.audit.change_table`.
        inside: from :func:`cxrnet.evaluation.attribution.inside_table`, with ``method``, ``fails`` and ``of``.
        explained: images on the page.
        corner: the corner that tells most; empty where no finding is in the corners.
        lungs: ``masks`` or ``box``.
        gaps: what was not looked at, or only in part, without full stops.
        sampling: settings of the bootstrap.
        command: as it is typed.
        environment: facts to reproduce it.
    """

    title: str
    classes: Sequence[str]
    looks: Sequence[Look]
    changes: pd.DataFrame
    inside: pd.DataFrame
    explained: Sequence[Explained]
    corner: str
    lungs: str
    gaps: Sequence[str]
    sampling: Sampling
    command: str
    environment: Mapping[str, str]

    @cached_property
    def verdict(self) -> Verdict:
        """What the looks find, in words."""
        return Verdict(self.looks, self.classes, self.corner, self.lungs, self.sampling.level)

    @cached_property
    def tables(self) -> list[Table]:
        """The looks, and the planted regions where there are any."""
        found = self.verdict.found
        planted = planted_table(self.looks, found)
        seen = seen_table(self.looks, found, self.lungs, self.sampling.level)
        return [seen, planted] if planted else [seen]


def audit_metrics(facts: AuditFacts) -> dict[str, float]:
    """Name the numbers for MLflow: ``audit/data/lungs out/COVID``, with ``.../ci_low`` and ``.../ci_high``."""
    values = {"audit/findings": float(len(facts.verdict.found))}
    for look in facts.looks:
        if not np.isnan(look.value):
            path = f"audit/{look.kind}/{look.name}/{look.label}"
            values[path] = look.value
            if not np.isnan(look.low):
                values |= {f"{path}/ci_low": look.low, f"{path}/ci_high": look.high}
    return values


def write_audit(facts: AuditFacts, folder: Path) -> Path:
    """Write ``audit.html``, whole or not at all, and return its path."""
    tables = [*facts.tables, moved_table(facts.changes, facts.sampling.level), map_table(facts.inside)]
    pictures = [(each, {method: png_uri(data) for method, data in each.pictures().items()}) for each in facts.explained]
    return render_page(
        "audit.html.j2",
        folder / "audit.html",
        facts=facts,
        gaps=[f"{text[0].upper()}{text[1:]}." for text in facts.gaps],
        tables=[table for table in tables if table is not None],
        pictures=pictures,
    )


def add_to_report(facts: AuditFacts, report: Path) -> Path:
    """Put the verdict before the headline of a run's report, in the place of an earlier one; return the report."""
    page = _SECTION.sub("", report.read_text(encoding="utf-8"))
    section = render_text("audit_verdict.html.j2", facts=facts)
    before, main, after = page.partition("<main>\n")
    return write_text(report, f"{before}{main}{section}\n{after}" if main else page)


def audit_section(facts: AuditFacts) -> Section:
    """Write the model card's section on the audit: the verdict, what was not looked at, and the table."""
    table = facts.tables[0]
    gaps = [f"Not looked at, or only in part: {'; '.join(facts.gaps)}."] if facts.gaps else []
    return Section(
        AUDIT, [*facts.verdict.sentences, f"Audited: {facts.title}.", *gaps, *table.note.split("\n")], table.flat
    )


def say_audit(facts: AuditFacts, heard: Collection[str] = ()) -> None:
    """Show the looks that count, the verdict, and what could not be looked at and was not ``heard`` yet."""
    console.show(rich_table(shortened(facts.looks, facts.verdict.found)))
    console.heading("Verdict")
    for text in facts.verdict.sentences:
        console.say("so", text)
    for text in facts.gaps:
        if text not in heard:
            console.warn(text)
