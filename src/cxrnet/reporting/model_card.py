"""The model card: for whom a model is, what it was made of, how well it did, and what nobody has looked at.

``MODEL_CARD.md`` and ``model_card.html`` say the same, from the numbers of the report. M. Mitchell et al., "Model Cards
for Model Reporting", FAT* 2019. The checklist is CLAIM 2024 (A. S. Tejani et al., doi:10.1148/ryai.240300).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cxrnet.core.atomic import write_json, write_text
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.decision import decision_text
from cxrnet.reporting.rendering import bullets, code, paragraph, plain, render_page
from cxrnet.reporting.report import RunFacts, classes_first, data_table
from cxrnet.reporting.tables import class_table, result_table, subgroup_table
from cxrnet.reporting.wording import PER_CLASS, RESULT, SPLIT_NAMES, metric_text, offset_text, percent

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


def claim_answers(facts: RunFacts) -> dict[int, str]:
    """Answer the items of the checklist, counted from 1, that a run can; its model has seen no external data yet."""
    methods, rule, results = facts.methods, facts.rule, facts.results
    rules = [f"{name} from {point:.4g} on ({facts.chosen_for[name]})" for name, point in rule.points.items()]
    if rule.deciding_weights is not None:
        decision = f"predicted is {decision_text(rule.deciding_weights, rule.points)}"
    else:
        decision = f"predicted is the most probable class{' of those without a threshold' if rules else ''}"
    if rules:
        decision = f"thresholds: {', '.join(rules)}; where none is reached, {decision}"
    if rule.defer_below is not None:
        decision += f"; deferred to a reader where its {rule.certainty_name} is below {rule.defer_below:.4g}"
    result = results.metrics[results.headline]
    notes = [result_table(results, RESULT).note, class_table(result, results.headline).note]
    images = [f"{split} {sum(part.images.values())}" for split, part in facts.data.items()]
    patients = [f"{split} {part.patients}" for split, part in facts.data.items() if part.patients is not None]
    per_class = [
        f"{name}: " + ", ".join(f"{key} {metric_text(of_class[key])}" for key in ("sensitivity", "specificity"))
        for name, of_class in result["per_class"].items()
    ]
    answers = {
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
        29: " ".join([f"{facts.method}.", *filter(None, notes)]).replace("\n", " "),
        32: f"{results.headline} images of the same data set",
        33: "not done",
        35: f"images: {', '.join(images)}; patients: {', '.join(patients) or 'not known'}; {methods['selection']}",
        36: methods["characteristics"],
        37: f"accuracy {metric_text(result['accuracy'])}; balanced accuracy "
        f"{metric_text(result['balanced_accuracy'])}; ROC-AUC, macro {metric_text(result['roc_auc_macro'])}",
        38: "; ".join(per_class),
    }
    return {number: answer for number, answer in answers.items() if answer}


NOT_VALIDATED = (
    "NOT EXTERNALLY VALIDATED as of this run: every metric on this card is of images from the data set of the "
    "training. python -m cxrnet.evaluate bundle=<this run> data=<other data> writes a card with the external results "
    "into a folder of its own below evaluations/; this one stays as it is."
)
EXTERNAL, _CLAIM = "External data", "CLAIM 2024 checklist"
AUDIT = "Audit: what the model looks at"
_CHECKS = "Found by the checks of this program"
_CLAIM_AUDIT = ("30", "31")  # the items of the checklist on robustness and on explanation
_CLAIM_EXTERNAL = "33"  # the item of the checklist on external data
CARD = "model_card.json"
_USES = (
    "Meant for research on methods that read chest radiographs: to measure them and to compare them.",
    "Must not be used to diagnose, to triage patients, or to rule a disease out: it is no medical device.",
    "Must not be used on images of another kind than those below: other patients, views, devices, or other modalities.",
    "Its classes are all it knows: an image of anything else is predicted as one of them.",
)


@dataclass(frozen=True)
class Section:
    """A part of the card.

    Attributes:
        title: title of the part.
        sentences: one item of a list each.
        rows: rows of a table, its titles first; empty for none.
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
        title: title of the run.
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
    results, methods = facts.results, facts.methods
    analysis, metrics = results.analyses[results.headline], results.metrics[results.headline]
    result = result_table(results, RESULT, f"{facts.method}.")
    classes = class_table(metrics, results.headline, fractions=())
    groups = subgroup_table({"": analysis})
    of_no_group = "No subgroups can be formed: source, view, sex and age are missing, or the same for all images."
    answers = claim_answers(facts)
    claim = [[str(number), asked, answers.get(number, OPEN)] for number, asked in enumerate(ITEMS, start=1)]
    split = f"Split: {methods['split']}; {methods['level']}."
    sections = [
        Section("Intended use", [*_USES, f"Who would use it, where and for what. {OPEN}."]),
        Section("Known issues of the data", facts.known_issues or ["None are documented."]),
        Section(_CHECKS, facts.all_warnings or ["Nothing."]),
        Section("Data", [f"Sources: {methods['sources']}.", split], data_table(facts).flat),
        Section("Model", _model(facts)),
        Section(result.title, result.note.split("\n"), result.flat),
        Section(classes.title, list(filter(None, classes.note.split("\n"))), classes.flat),
        Section(
            "Predictive values at a prevalence",
            [text for name in classes_first(facts, facts.rule.points) for text in analysis.triage[name]],
        ),
        Section("Subgroups", analysis.warnings, groups.flat) if groups else Section("Subgroups", [of_no_group]),
        Section(EXTERNAL, [NOT_VALIDATED]),
        Section(_CLAIM, (), [["Item", "Asks for", "Answer"], *claim]),
        Section("How to reproduce it", (), [["", ""], *map(list, facts.environment.items())], facts.command),
    ]
    return Card(facts.title, facts.summary, facts.created, sections)


def _model(facts: RunFacts) -> list[str]:
    temperature, rule, results = facts.temperature, facts.rule, facts.results
    scaled = f"fitted on {temperature.n} validation images" if temperature.reason is None else temperature.reason
    moved = offset_text(temperature, facts.classes)
    sentences = [
        f"Images: {facts.methods['preprocessing']}.",
        f"Temperature of the probabilities: {temperature.value:.3g} ({scaled}{f'; {moved}' if moved else ''}).",
        *facts.weighing,
    ]
    sentences += [
        f"{name} is predicted from a probability of {point:.4g} on ({facts.chosen_for[name]})."
        for name, point in rule.points.items()
    ]
    if not rule.points and not facts.weighing:
        sentences.append("The most probable class is predicted; no threshold was asked for.")
    test = results.analyses[results.headline].deferral
    if rule.defer_below is not None and facts.deferred_share is not None and test is not None:
        others = "no other is left"
        if test.kept is not None:
            others = f"the accuracy of the others is {metric_text(test.kept['accuracy'])}"
        sentences.append(
            f"A prediction is deferred to a reader where its {rule.certainty_name} is below {rule.defer_below:.4g}, "
            f"the threshold that defers {percent(facts.deferred_share)} of the validation images. Of the "
            f"{SPLIT_NAMES[results.headline].lower()} images it defers a share of {metric_text(test.deferred)}; "
            f"{others}."
        )
    return sentences


def with_external(card: Card, external: Section) -> Card:
    """Say on a card what came of external data, where it said that there were none.

    Args:
        card: card of the run.
        external: the result, its first sentence the gist.
    """
    answered = _answered(card, (_CLAIM_EXTERNAL,), external.sentences[0])
    return replace(answered, sections=[external if each.title == EXTERNAL else each for each in answered.sections])


def with_audit(card: Card, audit: Section) -> Card:
    """Say on a card what came of an audit, in the place of what an earlier one found.

    Args:
        card: card of the run.
        audit: the result under the title :data:`AUDIT`, its first sentence the gist.
    """
    answered = _answered(card, _CLAIM_AUDIT, audit.sentences[0])
    sections = [section for section in answered.sections if section.title != AUDIT]
    place = next((place for place, section in enumerate(sections) if section.title == _CHECKS), 0)
    return replace(answered, sections=[*sections[:place], audit, *sections[place:]])


def _answered(card: Card, items: Sequence[str], answer: str) -> Card:
    """Answer items of the checklist."""
    sections = []
    for section in card.sections:
        if section.title == _CLAIM:
            rows = [[*row[:2], answer] if row[0] in items else row for row in section.rows]
            sections.append(replace(section, rows=rows))
        else:
            sections.append(section)
    return replace(card, sections=sections)


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
