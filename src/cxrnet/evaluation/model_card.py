"""The model card: for whom a model is, what it was made of, how well it did, and what nobody has looked at.

``MODEL_CARD.md`` and ``model_card.html`` say the same, from the numbers of the report. M. Mitchell et al., "Model Cards
for Model Reporting", FAT* 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrnet.evaluation.claim import OPEN, claim_items
from cxrnet.evaluation.facts import RunFacts
from cxrnet.evaluation.metrics import Evaluation, Metric
from cxrnet.evaluation.page import render_page, write_text
from cxrnet.evaluation.report import all_warnings, columns_of, data_rows, weighed
from cxrnet.evaluation.subgroups import FIGURES
from cxrnet.evaluation.wording import HEADLINE, PER_CLASS, SPLIT_NAMES, figure_text, grouped

NOT_VALIDATED = "NOT EXTERNALLY VALIDATED: every figure on this card is of images from the data set of the training."
USES = (
    "Meant for research on methods that read chest radiographs: to measure them and to compare them.",
    "Must not be used to diagnose, to triage patients, or to rule a disease out: it is no medical device.",
    "Must not be used on images of another kind than those below: other patients, views, devices, or other modalities.",
    "Its classes are all it knows: an image of anything else is called one of them.",
)


@dataclass(frozen=True)
class Section:
    """A part of the card.

    Attributes:
        title: of the part.
        sentences: one item of a list each.
        rows: of a table, its titles first; empty for none.
    """

    title: str
    sentences: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def write_model_card(facts: RunFacts, folder: Path, external: Section | None = None) -> list[Path]:
    """Write the card as Markdown and as one HTML file; return both.

    Args:
        facts: of the run.
        folder: where to write.
        external: the result on external data, its first sentence the gist; None where there is none.
    """
    sections = card_sections(facts, external)
    return [
        write_text(folder / "MODEL_CARD.md", markdown_card(facts, sections)),
        render_page("model_card.html.j2", folder / "model_card.html", facts=facts, sections=sections, open=OPEN),
    ]


def card_sections(facts: RunFacts, external: Section | None) -> list[Section]:
    """Put the parts of the card together, in the order of reading."""
    headline = SPLIT_NAMES[facts.headline].lower()
    analysis, methods = facts.analyses[facts.headline], facts.methods
    return [
        Section("Intended use", [*USES, f"Who would use it, where and for what. {OPEN}."]),
        Section("Known faults", all_warnings(facts) or ["None was found by the checks of this program."]),
        Section(
            "Data", [f"Sources: {methods['sources']}.", f"Split: {methods['split']}; {methods['level']}."], _data(facts)
        ),
        Section("Model", _model(facts)),
        Section(
            f"Result, {headline} images",
            [f"With each figure its {100 * facts.level:g} % interval, of other patients in the same mix of classes."],
            _result(facts),
        ),
        Section(f"Each class against the rest, {headline} images", (), _classes(facts.metrics[facts.headline])),
        Section("What a call is worth", [text for name in weighed(facts) for text in analysis.triage[name]]),
        Section("Subgroups", analysis.warnings or _no_groups(facts), _subgroups(facts)),
        Section("External data", external.sentences, external.rows)
        if external
        else Section("External data", [NOT_VALIDATED]),
        Section("CLAIM 2024 checklist", (), _claim(facts, external)),
        Section("How to reproduce it", [facts.command], [["", ""], *map(list, facts.environment.items())]),
    ]


def markdown_card(facts: RunFacts, sections: Sequence[Section]) -> str:
    """Write the card as Markdown."""
    parts = [f"# Model card: {facts.title}", f"{facts.summary} {facts.created}."]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.sentences:
            parts.append("\n".join(f"- {text}" for text in section.sentences))
        if section.rows:
            head, *rows = (
                f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in section.rows
            )
            parts.append("\n".join([head, "|---" * len(section.rows[0]) + "|", *rows]))
    return "\n\n".join([*parts, "Research use only. Not a medical device."]) + "\n"


def _data(facts: RunFacts) -> list[list[str]]:
    rows = [[name, *map(grouped, counts)] for name, counts in data_rows(facts).items()]
    patients = ["not known" if part.patients is None else grouped(part.patients) for part in facts.data.values()]
    return [["Images", *(SPLIT_NAMES[split] for split in facts.data), "All"], *rows, ["Patients", *patients, ""]]


def _model(facts: RunFacts) -> list[str]:
    temperature = facts.temperature
    scaled = f"fitted on {temperature.n} validation images" if temperature.reason is None else temperature.reason
    points = [
        f"{name} is called from a probability of {point.threshold:.4g} on ({point.chosen})."
        for name, point in facts.points.items()
    ]
    return [
        f"Images: {facts.methods['preprocessing']}.",
        f"Temperature of the probabilities: {temperature.value:.3g} ({scaled}).",
        *(points or ["The class of the largest probability is called; no threshold was asked for."]),
    ]


def _result(facts: RunFacts) -> list[list[str]]:
    columns = columns_of(facts)
    rows = [
        [title, *(figure_text(column[key]) for column in columns.values())]  # type: ignore[literal-required]
        for key, title in HEADLINE.items()
    ]
    images = ["Images", *(grouped(column["accuracy"]["n"]) for column in columns.values())]
    return [["", *columns], *rows, images]


def _classes(metrics: Evaluation) -> list[list[str]]:
    rows = [
        [name, grouped(figures["sensitivity"]["n"]), *(figure_text(figures[key]) for key in PER_CLASS)]
        for name, figures in metrics["per_class"].items()
    ]
    return [["Class", "Images", *PER_CLASS.values()], *rows]


def _no_groups(facts: RunFacts) -> list[str]:
    if len(facts.analyses[facts.headline].subgroups):
        return []
    return ["The data tell of no groups: source, view, sex and age are missing, or the same for all images."]


def _subgroups(facts: RunFacts) -> list[list[str]]:
    table = facts.analyses[facts.headline].subgroups
    if table.empty:
        return []
    rows = [
        [row["attribute"], row["group"], row["class"], grouped(row["n"]), grouped(row["positives"]), *_figures(row)]
        for row in table.to_dict("records")
    ]
    titles = ["", "Group", "Class", "Images", "Of the class", *(PER_CLASS[name] for name in FIGURES)]
    return [titles, *rows]


def _figures(row: dict[str, Metric]) -> list[str]:
    return [figure_text(row[name]) for name in FIGURES]


def _claim(facts: RunFacts, external: Section | None) -> list[list[str]]:
    items = claim_items(facts, external.sentences[0] if external else None)
    return [["Item", "Asks for", "Answer"], *([str(item.number), item.wording, item.answer or OPEN] for item in items)]
