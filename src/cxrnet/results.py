"""What a finished run leaves behind: tables, texts, figures and the report, in its folder and in MLflow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrnet.evaluation.curves import save_curves
from cxrnet.evaluation.figures import save_figures
from cxrnet.evaluation.metrics import Evaluation, evaluate, flat
from cxrnet.evaluation.predictions import write_predictions
from cxrnet.evaluation.text import classification_report_text, roc_auc_text


@dataclass(frozen=True)
class Results:
    """The numbers of a run.

    Attributes:
        headline: the split that the result is stated on: ``test``, or ``val`` where there is no test.
        metrics: by split.
        baselines: on the headline split, by name of the baseline.
        figures: by name, the PNG files.
    """

    headline: str
    metrics: dict[str, Evaluation]
    baselines: dict[str, Evaluation]
    figures: dict[str, Path]


def write_results(
    folder: Path,
    predictions: pd.DataFrame,
    baselines: Mapping[str, pd.DataFrame],
    classes: Sequence[str],
    history: pd.DataFrame | None = None,
    kept_epoch: int = 0,
) -> Results:
    """Compute every figure from the tables and write all files but the report.

    Args:
        folder: of the run.
        predictions: of the kept weights, on val and test.
        baselines: predictions of each baseline on the headline split.
        classes: in the order of the logits.
        history: one row an epoch; ``None`` where several trainings are pooled.
        kept_epoch: the epoch whose weights were kept.
    """
    by_split = dict(iter(predictions.groupby("split", sort=False)))
    headline = "test" if "test" in by_split else "val"
    metrics = {name: evaluate(rows) for name, rows in by_split.items()}
    baseline_metrics = {name: evaluate(rows) for name, rows in baselines.items()}
    write_predictions(predictions, folder / "predictions.parquet")
    _write_json(folder / "metrics.json", {**metrics, "baselines": {headline: baseline_metrics}})
    _write_json(folder / "class_indices.json", {name: index for index, name in enumerate(classes)})
    (folder / "classification_report.txt").write_text(_by_split(by_split, classification_report_text), encoding="utf-8")
    (folder / "roc_auc.txt").write_text(_by_split(by_split, roc_auc_text), encoding="utf-8")
    figures: dict[str, Path] = {}
    if history is not None:
        history.to_csv(folder / "history.csv", index=False)
        figures |= save_curves(history, kept_epoch, folder)
    for name, rows in by_split.items():
        figures |= save_figures(rows, folder, "" if name == headline else f"_{name}")
    return Results(headline, metrics, baseline_metrics, figures)


def flat_metrics(results: Results) -> dict[str, float]:
    """The final figures for MLflow: ``test_accuracy``, ``test_sensitivity_<class>``, ``baseline_thumbnail_accuracy``.

    The figures of val are named ``final_val_...``: ``val_...`` are the ones of each epoch. What is n/a is left out.
    """
    named = [(f"{'final_' if split == 'val' else ''}{split}", metrics) for split, metrics in results.metrics.items()]
    named += [(f"baseline_{name}", metrics) for name, metrics in results.baselines.items()]
    return {f"{prefix}_{name}": value for prefix, metrics in named for name, value in figures_of(metrics).items()}


def figures_of(metrics: Evaluation) -> dict[str, float]:
    """The values by name, ``sensitivity_<class>`` for those of a class; what is n/a is left out."""
    return {name: metric["value"] for name, _, metric in flat(metrics) if metric["value"] is not None}


def _by_split(by_split: Mapping[Any, pd.DataFrame], text: Any) -> str:  # noqa: ANN401
    return "\n".join(f"{name} (n = {len(rows)})\n\n{text(rows)}" for name, rows in reversed(list(by_split.items())))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
