"""The CLAIM 2024 checklist: what a run can answer is filled in, the rest is left to a person.

A. S. Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update", Radiology:
Artificial Intelligence 6(4), 2024, e240300 (doi:10.1148/ryai.240300); the items in our own words.
"""

from dataclasses import dataclass

from cxrnet.evaluation.facts import RunFacts
from cxrnet.evaluation.wording import HEADLINE, class_figures, figure_text, interval_gaps, interval_method

OPEN = "OPEN: for a person to write"

ITEMS = (
    "Title: says that it is a study of AI, and of which kind",
    "Abstract: design, methods, results, conclusions",
    "Background, and the intended use and role of the AI",
    "Aims and hypotheses",
    "Prospective or retrospective",
    "Goal of the study",
    "Sources of the data",
    "Who and what was included and excluded",
    "Preprocessing",
    "Selection of parts of the data",
    "De-identification",
    "Missing data",
    "How the images were acquired",
    "Reference standard: how it was obtained",
    "Reference standard: why this one",
    "Reference standard: who annotated",
    "Annotation of the test set",
    "Agreement between and within annotators",
    "How data were assigned to partitions",
    "At which level the partitions are disjoint",
    "Intended sample size",
    "The model in detail",
    "Software",
    "Initial weights",
    "Training",
    "How the final model was chosen",
    "Ensembles",
    "Metrics",
    "Uncertainty and significance",
    "Robustness or sensitivity analysis",
    "Explainability",
    "Evaluation on internal data",
    "Testing on external data",
    "Registration of a clinical trial",
    "Numbers included and excluded",
    "Demographic and clinical characteristics of each partition",
    "Performance with its uncertainty",
    "Diagnostic performance and its precision",
    "Analysis of failures",
    "Limitations",
    "Implications for practice",
    "Study protocol or further technical details",
    "Availability of software, model and data",
    "Funding and its role",
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
    return {
        7: methods["sources"],
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
        28: "; ".join(HEADLINE.values()) + "; of each class sensitivity, specificity, PPV, NPV, F1, ROC-AUC, PR-AUC; "
        "ECE, Brier score",
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
    return {
        32: f"{facts.headline} images of the same data set",
        35: f"images: {', '.join(images)}; patients: {', '.join(patients) or 'not known'}",
        36: facts.methods["characteristics"],
        37: f"accuracy {figure_text(result['accuracy'])}; balanced accuracy "
        f"{figure_text(result['balanced_accuracy'])}; ROC-AUC, macro {figure_text(result['roc_auc_macro'])}",
        38: "; ".join(per_class),
    }
