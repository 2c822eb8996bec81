"""The CLAIM 2024 checklist: what a run can answer is filled in, the rest is left to a person.

A. S. Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update", Radiology:
Artificial Intelligence 6(4), 2024, e240300 (doi:10.1148/ryai.240300). Numbers and order are those of the checklist, the
items are in our own words.
"""

from dataclasses import dataclass

from cxrnet.evaluation.facts import RunFacts
from cxrnet.evaluation.wording import (
    HEADLINE,
    PER_CLASS,
    RESULT,
    class_figures,
    figure_text,
    interval_gaps,
    interval_method,
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
    """What the run answers; None where a person must."""


def claim_items(facts: RunFacts) -> list[ClaimItem]:
    """Fill in the checklist of a run, whose model has seen no external data yet."""
    answers = {**_of_methods(facts), **_of_results(facts), 33: "not done"}
    return [ClaimItem(number, wording, answers.get(number) or None) for number, wording in enumerate(ITEMS, start=1)]


def _of_methods(facts: RunFacts) -> dict[int, str]:
    methods = facts.methods
    rules = [f"{name} from {point.threshold:.4g} on ({point.chosen})" for name, point in facts.points.items()]
    calls = f"thresholds chosen on validation: {', '.join(rules)}" if rules else "the largest probability is called"
    if facts.band is not None:
        calls += f"; a call of a probability below {facts.band.cutoff:.4g} is left to a reader"
    return {
        7: f"{methods['sources']}; known faults: {' '.join(facts.known_faults) or 'none are documented'}",
        9: methods["preprocessing"],
        10: methods["selection"],
        19: methods["split"],
        20: methods["level"],
        22: f"{facts.summary} {calls[0].upper()}{calls[1:]}.",
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
    missing = interval_gaps((HEADLINE[key], result[key]) for key in HEADLINE)  # type: ignore[literal-required]
    missing += interval_gaps(class_figures(result))
    method = interval_method(result, facts.level, facts.analyses[facts.headline].unit)
    return "; no interval: ".join([method, *(["; ".join(missing)] if missing else [])])


def _of_results(facts: RunFacts) -> dict[int, str]:
    result = facts.metrics[facts.headline]
    images = [f"{split} {sum(part.images.values())}" for split, part in facts.data.items()]
    patients = [f"{split} {part.patients}" for split, part in facts.data.items() if part.patients is not None]
    per_class = [
        f"{name}: sensitivity {figure_text(figures['sensitivity'])}, specificity {figure_text(figures['specificity'])}"
        for name, figures in result["per_class"].items()
    ]
    included = f"images: {', '.join(images)}; patients: {', '.join(patients) or 'not known'}"
    return {
        32: f"{facts.headline} images of the same data set",
        35: f"{included}; {facts.methods['selection']}",
        36: facts.methods["characteristics"],
        37: f"accuracy {figure_text(result['accuracy'])}; balanced accuracy "
        f"{figure_text(result['balanced_accuracy'])}; ROC-AUC, macro {figure_text(result['roc_auc_macro'])}",
        38: "; ".join(per_class),
    }
