"""What a finished run leaves behind: tables, texts, figures and the report, in its folder and in MLflow."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrnet.evaluation.analysis import UNKNOWN, Analysis, analyse, evaluator, save_analysis
from cxrnet.evaluation.curves import save_curves
from cxrnet.evaluation.figures import save_figures
from cxrnet.evaluation.metrics import Evaluation, flat
from cxrnet.evaluation.prior import Mix
from cxrnet.evaluation.text import classification_report_text, roc_auc_text
from cxrnet.evaluation.wording import HEADLINE
from cxrnet.spreadsheet import to_csv
from cxrnet.whole_file import write_json, write_table, write_text


@dataclass(frozen=True)
class Results:
    """The numbers of a run.

    Attributes:
        headline: the split that the result is stated on: ``test``, or ``val`` where there is no test.
        metrics: by split.
        analyses: by split, what the metrics mean.
        baselines: on the headline split, by name of the baseline.
        unseen: on what is left of the headline split without the images that were seen before; ``None`` where all are
            left, or none.
        figures: by name, the PNG files.
    """

    headline: str
    metrics: dict[str, Evaluation]
    analyses: dict[str, Analysis]
    baselines: dict[str, Evaluation]
    unseen: Evaluation | None
    figures: dict[str, Path]


def write_results(
    folder: Path,
    predictions: pd.DataFrame,
    baselines: Mapping[str, pd.DataFrame],
    classes: Sequence[str],
    settings: Mapping[str, Any],
    history: pd.DataFrame | None = None,
    kept_epoch: int = 0,
    temperature: float | None = 1.0,
    seen: Collection[str] = (),
    mix: Mix = UNKNOWN,
    offset: Sequence[float] = (),
) -> Results:
    """Compute every figure of any table of predictions and write all files but the report.

    Whatever evaluates calls this: a run, the pooled predictions of several, a bundle on other data. It knows nothing of
    models and images.

    Args:
        folder: where to write; it is there.
        predictions: labelled, of the splits ``val`` and ``test``, or of one of them. Other data are a ``test`` split.
        baselines: predictions of each baseline on the headline split; may be empty.
        classes: in the order of the logits.
        settings: the group ``evaluation`` of the configuration, plain, seed included, checked
            (:func:`cxrnet.evaluation.settings.check_settings`).
        history: one row an epoch; ``None`` where nothing was trained, or several trainings are pooled.
        kept_epoch: the epoch whose weights were kept.
        temperature: by which the logits of the predictions were divided; ``None`` where not all by the same.
        seen: ``image_id`` of what was seen in training (:func:`cxrnet.data.leaks.seen_before`): the headline figures
            are computed without it too.
        mix: that the probabilities of the predictions are of.
        offset: of the classes, that goes with the temperature, (K,); empty where there is none.

    Raises:
        CxrnetError: a label is missing.
    """
    evaluated = evaluator(settings)
    by_split = {str(name): rows for name, rows in predictions.groupby("split", sort=False)}
    headline = "test" if "test" in by_split else "val"
    metrics = {name: evaluated(rows) for name, rows in by_split.items()}
    baseline_metrics = {name: evaluated(rows) for name, rows in baselines.items()}
    left = by_split[headline][~by_split[headline]["image_id"].isin(list(seen))]
    unseen = evaluated(left) if 0 < len(left) < len(by_split[headline]) else None
    analyses = {
        name: analyse(rows, metrics[name], settings, temperature, mix, offset) for name, rows in by_split.items()
    }
    write_table(predictions, folder / "predictions.parquet")
    kept = {name: each.band.kept for name, each in analyses.items() if each.band is not None and each.band.kept}
    _write_metrics(folder, metrics, headline, baseline_metrics, unseen, kept)
    write_json(folder / "class_indices.json", {name: index for index, name in enumerate(classes)})
    write_text(folder / "classification_report.txt", _by_split(by_split, classification_report_text))
    write_text(folder / "roc_auc.txt", _by_split(by_split, roc_auc_text))
    figures: dict[str, Path] = {}
    if history is not None:
        to_csv(history, folder / "history.csv")
        figures |= save_curves(history, kept_epoch, folder)
    for name, rows in by_split.items():
        suffix = "" if name == headline else f"_{name}"
        figures |= save_figures(rows, folder, suffix) | save_analysis(analyses[name], folder, suffix)
    return Results(headline, metrics, analyses, baseline_metrics, unseen, figures)


def _write_metrics(
    folder: Path,
    metrics: Mapping[str, Evaluation],
    headline: str,
    baselines: Mapping[str, Evaluation],
    unseen: Evaluation | None,
    kept: Mapping[str, Evaluation],
) -> None:
    others = {} if unseen is None else {"without_seen": {headline: unseen}}
    if kept:
        others["without_referred"] = dict(kept)
    write_json(folder / "metrics.json", {**metrics, "baselines": {headline: baselines}, **others})


def flat_metrics(results: Results) -> dict[str, float]:
    """The final figures for MLflow: ``test_accuracy``, ``test_sensitivity_<class>``, ``baseline_thumbnail_accuracy``.

    The figures of val are named ``final_val_...``: ``val_...`` are the ones of each epoch. What is n/a is left out. The
    ends of the intervals, ``test_accuracy_low`` and ``_high``, join what the result is stated with.
    """
    named = [(_prefix(split), metrics) for split, metrics in results.metrics.items()]
    named += [(f"baseline_{name}", metrics) for name, metrics in results.baselines.items()]
    named += [(f"{_prefix(results.headline)}_without_seen", results.unseen)] if results.unseen else []
    bands = [(_prefix(split), each.band) for split, each in results.analyses.items() if each.band]
    named += [(f"{prefix}_without_referred", band.kept) for prefix, band in bands if band.kept]
    values = {f"{prefix}_{name}": value for prefix, metrics in named for name, value in figures_of(metrics).items()}
    values |= {f"{prefix}_referred": band.referred["value"] or 0.0 for prefix, band in bands}
    for name, (_, figure), metric in flat(results.metrics[results.headline]):
        if figure in HEADLINE and "interval" in metric:
            for end, value in zip(("low", "high"), metric["interval"], strict=True):
                values[f"{_prefix(results.headline)}_{name}_{end}"] = value
    return values


def _prefix(split: str) -> str:
    return f"final_{split}" if split == "val" else split


def figures_of(metrics: Evaluation) -> dict[str, float]:
    """The values by name, ``sensitivity_<class>`` for those of a class; what is n/a is left out."""
    return {name: metric["value"] for name, _, metric in flat(metrics) if metric["value"] is not None}


def _by_split(by_split: Mapping[Any, pd.DataFrame], text: Any) -> str:  # noqa: ANN401
    return "\n".join(f"{name} (n = {len(rows)})\n\n{text(rows)}" for name, rows in reversed(list(by_split.items())))
