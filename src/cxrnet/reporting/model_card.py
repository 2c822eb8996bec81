"""The model card: for whom a model is, what it was made of, how well it did, and what nobody has looked at.

``MODEL_CARD.md`` and ``model_card.html`` say the same, from the numbers of the report. M. Mitchell et al., "Model Cards
for Model Reporting", FAT* 2019.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cxrnet.core.atomic import write_json, write_text
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import Evaluation, Metric
from cxrnet.evaluation.subgroups import METRICS
from cxrnet.reporting.rendering import bullets, code, paragraph, plain, render_page
from cxrnet.reporting.report import all_warnings, classes_first, columns_of, data_rows
from cxrnet.reporting.report_data import RunFacts
from cxrnet.reporting.sentences import offset_text
from cxrnet.reporting.wording import (
    HEADLINE,
    PER_CLASS,
    RESULT,
    SPLIT_NAMES,
    class_metrics,
    grouped,
    has_intervals,
    interval_gaps,
    interval_method,
    level_text,
    metric_text,
    percent,
)

OPEN = "OPEN: for a person to write"

ITEMS = (
    "Title or abstract: says that it is a study of AI methods, and of which kind",
    "Abstract: design, methods, results, conclusions",
    "Scientific or clinical background, with the intended use and role of the AI",
    "Aims, objectives and hypotheses",
    "Prospective or retrospective",
    "Goal of the study",
    "Sources of the data",
    "Criteria of inclusion and exclusion",
    "Preprocessing",
    "Selection of parts of the data",
    "De-identification",
    "How missing data were handled",
    "Protocol of the image acquisition",
    "Reference standard: how it was obtained",
    "Reference standard: why this one",
    "Reference standard: where the annotations come from",
    "Annotation of the test set",
    "Variability between and within annotators",
    "How data were assigned to partitions",
    "At which level the partitions are disjoint",
    "Intended sample size",
    "The model in detail",
    "Software libraries, frameworks and packages",
    "Initial weights",
    "Training",
    "How the final model was chosen",
    "Ensembles",
    "Metrics of performance",
    "Statistical measures of uncertainty and significance",
    "Robustness or sensitivity analysis",
    "Methods of explanation or interpretation",
    "Evaluation on internal data",
    "Testing on external data",
    "Registration of a clinical trial",
    "Numbers of patients or examinations included and excluded",
    "Demographic and clinical characteristics of the cases in each partition",
    "Performance and its statistical uncertainty",
    "Estimates of diagnostic performance and their precision",
    "Analysis of the wrong results",
    "Limitations of the study",
    "Implications for practice, with the intended use or clinical role",
    "Where the study protocol or further technical details are",
    "Availability of software, trained model and data",
    "Funding and other support, and the role of the funders",
)


@dataclass(frozen=True)
class ClaimItem:
    """One item of the checklist."""

    number: int
    wording: str
    answer: str | None
    """The answer that the run gives; None where a person must."""


def claim_items(facts: RunFacts) -> list[ClaimItem]:
    """Fill in the checklist of a run, whose model has seen no external data yet."""
    answers = {**_of_methods(facts), **_of_results(facts), 33: "not done"}
    return [ClaimItem(number, wording, answers.get(number) or None) for number, wording in enumerate(ITEMS, start=1)]


def _of_methods(facts: RunFacts) -> dict[int, str]:
    methods = facts.methods
    rules = [f"{name} from {point.threshold:.4g} on ({point.chosen})" for name, point in facts.points.items()]
    most_probable = f"the most probable class{' of those without a threshold' if rules else ''}"
    decision = f"predicted is {facts.decision or most_probable}"
    if rules:
        decision = f"thresholds: {', '.join(rules)}; where none is reached, {decision}"
    if facts.deferral is not None:
        deferral = facts.deferral
        decision += f"; deferred to a reader where its {deferral.certainty} is below {deferral.threshold:.4g}"
    return {
        7: f"{methods['sources']}; known issues: {' '.join(facts.known_issues) or 'none are documented'}",
        9: methods["preprocessing"],
        10: methods["selection"],
        19: methods["split"],
        20: methods["level"],
        22: f"{facts.summary} {decision[0].upper()}{decision[1:]}.",
        23: methods["software"],
        24: methods["initial weights"],
        25: methods["training"],
        26: methods["final model"],
        27: "none: one network",
        28: f"{'; '.join(RESULT.values())}; of each class {', '.join(PER_CLASS.values())}",
        29: _uncertainty(facts),
    }


def _uncertainty(facts: RunFacts) -> str:
    result = facts.metrics[facts.headline]
    missing = interval_gaps((HEADLINE[key], result[key]) for key in HEADLINE)
    missing += interval_gaps(class_metrics(result))
    method = interval_method(result, facts.level, facts.analyses[facts.headline].cluster)
    return "; no confidence interval: ".join([method, *(["; ".join(missing)] if missing else [])])


def _of_results(facts: RunFacts) -> dict[int, str]:
    result = facts.metrics[facts.headline]
    images = [f"{split} {sum(part.images.values())}" for split, part in facts.data.items()]
    patients = [f"{split} {part.patients}" for split, part in facts.data.items() if part.patients is not None]
    per_class = [
        f"{name}: " + ", ".join(f"{key} {metric_text(of_class[key])}" for key in ("sensitivity", "specificity"))
        for name, of_class in result["per_class"].items()
    ]
    included = f"images: {', '.join(images)}; patients: {', '.join(patients) or 'not known'}"
    return {
        32: f"{facts.headline} images of the same data set",
        35: f"{included}; {facts.methods['selection']}",
        36: facts.methods["characteristics"],
        37: f"accuracy {metric_text(result['accuracy'])}; balanced accuracy "
        f"{metric_text(result['balanced_accuracy'])}; ROC-AUC, macro {metric_text(result['roc_auc_macro'])}",
        38: "; ".join(per_class),
    }


NOT_VALIDATED = (
    "NOT EXTERNALLY VALIDATED as of this run: every metric on this card is of images from the data set of the "
    "training. python -m cxrnet.evaluate bundle=<this run> data=<other data> writes a card with the external results "
    "into a folder of its own below evaluations/; this one stays as it is."
)
EXTERNAL, CLAIM = "External data", "CLAIM 2024 checklist"
CLAIM_EXTERNAL = "33"
"""The item of the checklist on external data."""
CARD = "model_card.json"
MOST_PROBABLE = "The most probable class is predicted; no threshold was asked for."
USES = (
    "Meant for research on methods that read chest radiographs: to measure them and to compare them.",
    "Must not be used to diagnose, to triage patients, or to rule a disease out: it is no medical device.",
    "Must not be used on images of another kind than those below: other patients, views, devices, or other modalities.",
    "Its classes are all it knows: an image of anything else is predicted as one of them.",
)


@dataclass(frozen=True)
class Section:
    """A part of the card.

    Attributes:
        title: of the part.
        sentences: one item of a list each.
        rows: of a table, its titles first; empty for none.
        command: printed as it is typed; empty for none.
    """

    title: str
    sentences: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    command: str = ""


@dataclass(frozen=True)
class Card:
    """A model card in words, as an evaluation on other data reads it again.

    Attributes:
        title: of the run.
        summary: one or two sentences.
        created: date and time of the run, as a person reads it.
        sections: in the order of reading.
    """

    title: str
    summary: str
    created: str
    sections: Sequence[Section]


def make_card(facts: RunFacts) -> Card:
    """Make the card of a run, whose model has seen no external data yet."""
    return Card(facts.title, facts.summary, facts.created, _sections(facts))


def with_external(card: Card, external: Section) -> Card:
    """Say on a card what came of external data, where it said that there were none.

    Args:
        card: of the run.
        external: the result, its first sentence the gist.
    """
    return replace(card, sections=[_with_external(section, external) for section in card.sections])


def _with_external(section: Section, external: Section) -> Section:
    if section.title == EXTERNAL:
        return replace(external, title=EXTERNAL)
    if section.title != CLAIM:
        return section
    return replace(
        section,
        rows=[[*row[:2], external.sentences[0]] if row[0] == CLAIM_EXTERNAL else row for row in section.rows],
    )


def write_card(card: Card, folder: Path) -> list[Path]:
    """Write a card as Markdown, as one HTML file, and as JSON for :func:`read_card`; return all three."""
    return [
        write_text(folder / "MODEL_CARD.md", markdown_card(card)),
        render_page("model_card.html.j2", folder / "model_card.html", card=card, open=OPEN),
        write_json(folder / CARD, asdict(card)),
    ]


def read_card(folder: Path) -> Card | None:
    """Read the card of a run; ``None`` where there is none.

    Raises:
        CxrnetError: the file is damaged.
    """
    file = folder / CARD
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return Card(**{**known, "sections": [Section(**section) for section in known["sections"]]})
    except (ValueError, TypeError, KeyError) as error:
        raise CxrnetError(f"bundle: '{file}' is no model card; delete it to evaluate without one") from error


def _sections(facts: RunFacts) -> list[Section]:
    """Put the parts of the card together, in the order of reading."""
    headline = SPLIT_NAMES[facts.headline].lower()
    analysis, methods = facts.analyses[facts.headline], facts.methods
    return [
        Section("Intended use", [*USES, f"Who would use it, where and for what. {OPEN}."]),
        Section("Known issues of the data", facts.known_issues or ["None are documented."]),
        Section("Found by the checks of this program", all_warnings(facts) or ["Nothing."]),
        Section(
            "Data", [f"Sources: {methods['sources']}.", f"Split: {methods['split']}; {methods['level']}."], _data(facts)
        ),
        Section("Model", _model(facts)),
        Section(
            f"Result, {headline} images",
            [_intervals(facts)],
            _result(facts),
        ),
        Section(f"Each class against the rest, {headline} images", (), _classes(facts.metrics[facts.headline])),
        Section(
            "Predictive values at a prevalence",
            [text for name in classes_first(facts) for text in analysis.triage[name]],
        ),
        Section("Subgroups", analysis.warnings or _no_groups(facts), _subgroups(facts)),
        Section(EXTERNAL, [NOT_VALIDATED]),
        Section(CLAIM, (), _claim(facts)),
        Section("How to reproduce it", (), [["", ""], *map(list, facts.environment.items())], facts.command),
    ]


def markdown_card(card: Card) -> str:
    """Write the card as Markdown."""
    parts = [f"# Model card: {plain(card.title)}", paragraph(f"{card.summary} {card.created}.")]
    for section in card.sections:
        parts.append(f"## {plain(section.title)}")
        if section.sentences:
            parts.append(bullets(section.sentences))
        if section.command:
            parts.append(code(section.command))
        if section.rows:
            head, *rows = (f"| {' | '.join(map(plain, row))} |" for row in section.rows)
            parts.append("\n".join([head, "|---" * len(section.rows[0]) + "|", *rows]))
    return "\n\n".join([*parts, "Research use only. Not a medical device."]) + "\n"


def _data(facts: RunFacts) -> list[list[str]]:
    rows = [[name, *map(grouped, counts)] for name, counts in data_rows(facts).items()]
    patients = ["not known" if part.patients is None else grouped(part.patients) for part in facts.data.values()]
    return [["Images", *(SPLIT_NAMES[split] for split in facts.data), "All"], *rows, ["Patients", *patients, ""]]


def _model(facts: RunFacts) -> list[str]:
    temperature = facts.temperature
    scaled = f"fitted on {temperature.n} validation images" if temperature.reason is None else temperature.reason
    moved = offset_text(temperature, facts.classes)
    points = [
        f"{name} is predicted from a probability of {point.threshold:.4g} on ({point.chosen})."
        for name, point in facts.points.items()
    ]
    return [
        f"Images: {facts.methods['preprocessing']}.",
        f"Temperature of the probabilities: {temperature.value:.3g} ({scaled}{f'; {moved}' if moved else ''}).",
        *facts.weighing,
        *(points or ([] if facts.weighing else [MOST_PROBABLE])),
        *_deferral(facts),
    ]


def _deferral(facts: RunFacts) -> list[str]:
    chosen, test = facts.deferral, facts.analyses[facts.headline].deferral
    if chosen is None or test is None:
        return []
    left = (
        "; no other is left"
        if test.kept is None
        else f"; the accuracy of the others is {metric_text(test.kept['accuracy'])}"
    )
    return [
        f"A prediction is deferred to a reader where its {chosen.certainty} is below {chosen.threshold:.4g}, the "
        f"threshold that defers {percent(chosen.share)} of the validation images. Of the "
        f"{SPLIT_NAMES[facts.headline].lower()} images it defers a share of {metric_text(test.deferred)}{left}."
    ]


def _intervals(facts: RunFacts) -> str:
    if not has_intervals(facts.metrics[facts.headline]):
        return "Without confidence intervals: none were asked for (evaluation.resamples)."
    return (
        f"Each metric stands with its {level_text(facts.level)} confidence interval (CI), which holds for other "
        "patients in the same mix of classes."
    )


def _result(facts: RunFacts) -> list[list[str]]:
    columns = columns_of(facts)
    rows = [[title, *(metric_text(column[key]) for column in columns.values())] for key, title in RESULT.items()]
    images = ["Images", *(grouped(column["accuracy"]["n"]) for column in columns.values())]
    return [["", *columns], *rows, images]


def _classes(metrics: Evaluation) -> list[list[str]]:
    rows = [
        [name, grouped(of_class["sensitivity"]["n"]), *(metric_text(of_class[key]) for key in PER_CLASS)]
        for name, of_class in metrics["per_class"].items()
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
        [row["attribute"], row["group"], row["class"], grouped(row["n"]), grouped(row["positives"]), *_metrics(row)]
        for row in table.to_dict("records")
    ]
    titles = ["", "Group", "Class", "Images", "Positives", *(PER_CLASS[name] for name in METRICS)]
    return [titles, *rows]


def _metrics(row: dict[str, Metric]) -> list[str]:
    return [metric_text(row[name]) for name in METRICS]


def _claim(facts: RunFacts) -> list[list[str]]:
    items = claim_items(facts)
    return [["Item", "Asks for", "Answer"], *([str(item.number), item.wording, item.answer or OPEN] for item in items)]
