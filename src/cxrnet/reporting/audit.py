"""The audit in words, tables and pictures: its page, and what it adds to the report and the card of the run."""

import re
from collections.abc import Mapping, Sequence
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
from cxrnet.evaluation.audit import (
    ACQUISITION,
    BORDER,
    CORNERS,
    HALF,
    LUNGS_OUT,
    OUTLINE,
    Look,
    Sampling,
    findings,
)
from cxrnet.reporting.audit_tables import map_table, moved_table, planted_table, seen_table, shortened
from cxrnet.reporting.model_card import AUDIT, Section
from cxrnet.reporting.plots.explanation import Caption, explanation
from cxrnet.reporting.rendering import Table, png_uri, render_page, render_text, rich_table
from cxrnet.reporting.wording import grouped, level_text

_FROM = {
    LUNGS_OUT: ("with the lungs blacked out", "most of the signal is not in the lungs"),
    BORDER: ("from the border alone", "the border tells the class"),
    CORNERS: ("from the four corners alone", "markers, letters or frames may stand there"),
    ACQUISITION: (
        "from size, bit depth, colour, black edges and letters in the corners alone",
        "the images of the classes were made in different ways",
    ),
    "source": ("from the source alone", "the classes come from different sources"),
    "view": ("from the view alone", "the classes were taken in different views"),
}
_PLACES = {
    LUNGS_OUT: "what is not in the lungs",
    BORDER: "the border",
    CORNERS: "the corners",
    ACQUISITION: "how the images were made",
    "source": "the source",
    "view": "the view",
    "corners": "the corners",
    "border": "the border",
}
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
    def found(self) -> list[Look]:
        """The looks that find something."""
        return findings(self.looks, self.sampling.level)

    @cached_property
    def tables(self) -> list[Table]:
        """The looks, and the planted regions where there are any."""
        planted = planted_table(self.looks, self.found)
        seen = seen_table(self.looks, self.found, self.lungs, self.sampling.level)
        return [seen, planted] if planted else [seen]

    @property
    def gist(self) -> str:
        """The verdict in one sentence."""
        level, looks = level_text(self.sampling.level), sum(look.counts for look in self.looks)
        if not looks:
            return "There is no verdict: nothing could be looked at."
        if not self.found:
            return f"No shortcut was found: none of {looks} looks finds one, at {level} for all of them together."
        by_label: dict[str, dict[str, None]] = {}
        for look in self.found:
            by_label.setdefault(look.label, {})[_PLACES[look.name]] = None
        said = "; ".join(f"{label} from {_listed(list(places))}" for label, places in by_label.items())
        return f"A shortcut was found: {said} ({looks} looks, {level} for all of them together)."

    @property
    def verdict(self) -> list[str]:
        """The verdict: its gist, a sentence a finding, and how sure one can be of none."""
        sentences = [self.gist, *(self._finding(look) for look in self.found)]
        told = {look.label for look in self.found if look.name == LUNGS_OUT}
        sentences += [
            f"Where the lungs lie tells {look.label} with a ROC-AUC of {_inline(look)}: as the disease may change what "
            "a mask covers, so much of it need not be a shortcut."
            for look in self.looks
            if look.name == OUTLINE and look.label in told and look.low > 0.5
        ]
        undecided = [
            f"{look.label} {_FROM[look.name][0]} {_inline(look)} of {look.whole:.2f}"
            for look in self.looks
            if look.counts and look.kind == "data" and look.low > 0.5 and look.share > HALF and look not in self.found
        ]
        if undecided:
            why = "as chance may make it more than half of what the whole image tells"
            sentences.append(f"Undecided, {why}: {'; '.join(undecided)}.")
        room = [look for look in self.looks if look.counts and look.kind == "data" and not np.isnan(look.high)]
        if not self.found and room:
            most = max(room, key=lambda look: look.high)
            sentences.append(
                f"That is no proof of absence: {_FROM[most.name][0]} the ROC-AUC for {most.label} is {_inline(most)} "
                f"of {most.whole:.2f} with the whole image (n = {grouped(most.n)}), the most that these looks leave "
                "room for."
            )
        return sentences

    def _finding(self, look: Look) -> str:
        if look.kind == "planted":
            return (
                f"The model follows {_PLACES[look.name]}: with those of an image of {look.label}, a share of "
                f"{_inline(look)} of {grouped(look.n)} images of other classes is predicted as {look.label}; with "
                f"those of their own class {look.whole:.2f}."
            )
        how, so = _FROM[look.name]
        if look.name == LUNGS_OUT and self.lungs == "box":
            how = "with the box for the lungs blacked out"
        where = f" Of the corners the one at the {self.corner} tells most." * bool(
            self.corner and look.name == CORNERS and look.kind == "data"
        )
        by = "the model's ROC-AUC" if look.kind == "model" else "the ROC-AUC of a linear probe"
        return (
            f"{look.label}: {how} {by} is {_inline(look)} of {look.whole:.2f} with the whole image "
            f"(n = {grouped(look.n)}): {so}.{where}"
        )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _inline(look: Look) -> str:
    """Write a number with its interval: ``0.93 (0.90 to 0.95)``."""
    ends = "" if np.isnan(look.low) else f" ({look.low:.2f} to {look.high:.2f})"
    return f"{look.value:.2f}{ends}"


def audit_metrics(facts: AuditFacts) -> dict[str, float]:
    """Name the numbers for MLflow: ``audit/data/lungs out/COVID``, with ``.../ci_low`` and ``.../ci_high``."""
    values = {"audit/findings": float(len(facts.found))}
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
        gist=facts.gist,
        sentences=facts.verdict[1:],
        gaps=[f"{text[0].upper()}{text[1:]}." for text in facts.gaps],
        tables=[table for table in tables if table is not None],
        pictures=pictures,
    )


def add_to_report(facts: AuditFacts, report: Path) -> None:
    """Put the verdict before the headline of a run's report, in the place of an earlier one."""
    page = _SECTION.sub("", report.read_text(encoding="utf-8"))
    section = render_text("audit_verdict.html.j2", facts=facts, gist=facts.gist, sentences=facts.verdict[1:])
    before, main, after = page.partition("<main>\n")
    write_text(report, f"{before}{main}{section}\n{after}" if main else page)


def audit_section(facts: AuditFacts) -> Section:
    """Write the model card's section on the audit: the verdict, what was not looked at, and the table."""
    table = facts.tables[0]
    gaps = [f"Not looked at, or only in part: {'; '.join(facts.gaps)}."] if facts.gaps else []
    return Section(AUDIT, [*facts.verdict, *gaps, *table.note.split("\n")], table.flat)


def say_audit(facts: AuditFacts) -> None:
    """Show the looks that count, the verdict, and what could not be looked at."""
    console.show(rich_table(shortened(facts.looks, facts.found)))
    console.heading("Verdict")
    for text in facts.verdict:
        console.say("so", text)
    for text in facts.gaps:
        console.warn(text)
