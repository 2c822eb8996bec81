"""The figures as plain text: ``classification_report.txt`` and ``roc_auc.txt``."""

from collections.abc import Sequence

import pandas as pd

from cxrnet.evaluation.metrics import Evaluation, Metric, evaluate, mean_over_classes


def classification_report_text(predictions: pd.DataFrame) -> str:
    """Write the figures of one split in the look of scikit-learn's ``classification_report``.

    Specificity and NPV join its columns; what cannot be computed is ``n/a``, with the reason below the table.
    """
    figures = evaluate(predictions)
    columns = ("precision", "sensitivity", "specificity", "npv", "f1")
    return _table(figures, columns, accuracy=figures["accuracy"])


def roc_auc_text(predictions: pd.DataFrame) -> str:
    """Write the one-vs-rest ROC-AUC of each class, their macro mean and their mean weighted by support."""
    return "ROC-AUC, each class against the rest\n\n" + _table(evaluate(predictions), ("roc_auc",))


def _table(figures: Evaluation, columns: Sequence[str], accuracy: Metric | None = None) -> str:
    """Lay out one line a class, then the means over classes, then why figures are missing."""
    per_class, n = figures["per_class"], figures["accuracy"]["n"]
    support = [metrics["sensitivity"]["n"] for metrics in per_class.values()]
    width = max(map(len, (*per_class, "weighted avg")))

    def line(name: str, cells: Sequence[str], images: int | str) -> str:
        return f"{name:>{width}} " + "".join(f"{cell:>12}" for cell in (*cells, str(images)))

    def means(weights: Sequence[int] | None) -> list[str]:
        return [_number(mean_over_classes(per_class, column, n, weights)) for column in columns]

    lines = [line("", columns, "support"), ""]
    for (name, metrics), images in zip(per_class.items(), support, strict=True):
        lines.append(line(name, [_number(metrics[column]) for column in columns], images))
    lines.append("")
    if accuracy:
        lines.append(line("accuracy", [*[""] * (len(columns) - 1), _number(accuracy)], n))
    lines += [line("macro avg", means(None), n), line("weighted avg", means(support), n)]
    cells = [metrics[column] for metrics in per_class.values() for column in columns]
    reasons = list(dict.fromkeys(f"n/a: {cell['reason']}" for cell in cells if "reason" in cell))
    return "\n".join([*lines, *([""] if reasons else []), *reasons]) + "\n"


def _number(metric: Metric) -> str:
    return "n/a" if metric["value"] is None else f"{metric['value']:.4f}"
