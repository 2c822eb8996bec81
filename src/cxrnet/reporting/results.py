"""The results of a finished run: tables, texts and plots in its folder, and their numbers for MLflow."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrnet.core.atomic import write_json, write_table, write_text
from cxrnet.core.spreadsheet import to_csv
from cxrnet.evaluation.metrics import Evaluation, flat
from cxrnet.evaluation.prior import Mix
from cxrnet.evaluation.subgroups import METRICS
from cxrnet.reporting.analysis import UNKNOWN, Analysis, analyse, evaluator
from cxrnet.reporting.plots.classification import save_curves, save_plots
from cxrnet.reporting.plots.decisions import decision_plot, reliability_diagram, risk_coverage_plot
from cxrnet.reporting.plots.style import save
from cxrnet.reporting.text import classification_report_text, roc_auc_text


def save_analysis(analysis: Analysis, folder: Path, suffix: str = "") -> dict[str, Path]:
    """Draw the plots of an analysis as PNG and write its tables as CSV.

    Args:
        analysis: of one split.
        folder: where to write.
        suffix: end of the names, as of :func:`cxrnet.reporting.plots.classification.save_plots`.

    Returns:
        Name of a plot (``"reliability_val"``, ``"decision_0"`` for the first class) to file.
    """
    if len(analysis.subgroups):
        to_csv(_flat_subgroups(analysis.subgroups), folder / f"subgroups{suffix}.csv")
    if analysis.decisions:
        to_csv(_of_classes(analysis.decisions), folder / f"decision_curves{suffix}.csv")
    to_csv(analysis.risk, folder / f"risk_coverage{suffix}.csv")
    to_csv(_flat_predictive(analysis.predictive), folder / f"predictive_values{suffix}.csv")
    plots = {
        "reliability": reliability_diagram(analysis.reliability),
        "risk_coverage": risk_coverage_plot(analysis.risk, analysis.area),
    }
    for place, name in enumerate(analysis.predictive):
        if name in analysis.decisions:
            plots[f"decision_{place}"] = decision_plot(analysis.decisions[name], name)
    return {f"{name}{suffix}": save(plot, folder / f"{name}{suffix}.png") for name, plot in plots.items()}


def _flat_subgroups(subgroups: pd.DataFrame) -> pd.DataFrame:
    return _flat(subgroups, METRICS)


def _flat_predictive(predictive: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return _flat(_of_classes(predictive), ("ppv", "npv"))


def _of_classes(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack the tables of the classes, the class in the first column."""
    return pd.concat(tables, names=["class"]).reset_index("class")


def _flat(table: pd.DataFrame, metrics: tuple[str, ...]) -> pd.DataFrame:
    """Write each metric as its value and the ends of its confidence interval; empty where there is none."""
    columns = {name: table[name] for name in table if name not in metrics}
    for name in metrics:
        columns[name] = [metric["value"] for metric in table[name]]
        for end, place in (("low", 0), ("high", 1)):
            columns[f"{name}_{end}"] = [
                metric["interval"][place] if "interval" in metric else None for metric in table[name]
            ]
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class Results:
    """The numbers of a run.

    Attributes:
        headline: the split that the result is stated on: ``test``, or ``val`` where there is no test.
        metrics: by split.
        analyses: by split, what the metrics mean.
        baselines: on the headline split, by name of the baseline.
        without_leaked: on the headline split without the images that leaked into training; ``None`` where all are
            left, or none.
        plots: by name, the PNG files.
    """

    headline: str
    metrics: dict[str, Evaluation]
    analyses: dict[str, Analysis]
    baselines: dict[str, Evaluation]
    without_leaked: Evaluation | None
    plots: dict[str, Path]


def write_results(
    folder: Path,
    predictions: pd.DataFrame,
    baselines: Mapping[str, pd.DataFrame],
    classes: Sequence[str],
    settings: Mapping[str, Any],
    history: pd.DataFrame | None = None,
    kept_epoch: int = 0,
    temperature: float | None = 1.0,
    leaked: Collection[str] = (),
    mix: Mix = UNKNOWN,
    offset: Sequence[float] = (),
) -> Results:
    """Compute every metric of any table of predictions and write all files but the report.

    Whatever evaluates calls this: a run, the pooled predictions of several, a bundle on other data. It knows nothing of
    models and images.

    Args:
        folder: where to write; it is there.
        predictions: labelled, of the splits ``val`` and ``test``, or of one of them. Other data are a ``test`` split.
        baselines: predictions of each baseline on the headline split; may be empty.
        classes: in the order of the logits.
        settings: the group ``evaluation`` of the configuration, plain, seed included, checked
            (:class:`cxrnet.evaluation.settings.Evaluation`).
        history: one row an epoch; ``None`` where nothing was trained, or several trainings are pooled.
        kept_epoch: the epoch whose weights were kept.
        temperature: by which the logits of the predictions were divided; ``None`` where not all by the same.
        leaked: ``image_id`` of the images that leaked into training (:func:`cxrnet.data.leaks.leaked_images`): the
            headline metrics are computed without them too.
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
    left = by_split[headline][~by_split[headline]["image_id"].isin(list(leaked))]
    without_leaked = evaluated(left) if 0 < len(left) < len(by_split[headline]) else None
    analyses = {
        name: analyse(rows, metrics[name], settings, temperature, mix, offset) for name, rows in by_split.items()
    }
    write_table(predictions, folder / "predictions.parquet")
    kept = {
        name: each.deferral.kept for name, each in analyses.items() if each.deferral is not None and each.deferral.kept
    }
    _write_metrics(folder, metrics, headline, baseline_metrics, without_leaked, kept)
    write_json(folder / "class_indices.json", {name: index for index, name in enumerate(classes)})
    write_text(folder / "classification_report.txt", _by_split(metrics, classification_report_text))
    write_text(folder / "roc_auc.txt", _by_split(metrics, roc_auc_text))
    plots: dict[str, Path] = {}
    if history is not None:
        to_csv(history, folder / "history.csv")
        plots |= save_curves(history, kept_epoch, folder)
    for name, rows in by_split.items():
        suffix = "" if name == headline else f"_{name}"
        plots |= save_plots(rows, metrics[name], folder, suffix) | save_analysis(analyses[name], folder, suffix)
    return Results(headline, metrics, analyses, baseline_metrics, without_leaked, plots)


def _write_metrics(
    folder: Path,
    metrics: Mapping[str, Evaluation],
    headline: str,
    baselines: Mapping[str, Evaluation],
    without_leaked: Evaluation | None,
    kept: Mapping[str, Evaluation],
) -> None:
    others = {} if without_leaked is None else {"without_leaked": {headline: without_leaked}}
    if kept:
        others["without_deferred"] = dict(kept)
    write_json(folder / "metrics.json", {**metrics, "baselines": {headline: baselines}, **others})


def values_of(metrics: Evaluation) -> dict[str, float]:
    """Return the values by name, ``sensitivity_<class>`` for those of a class; what is n/a is left out."""
    return {name: metric["value"] for name, _, metric in flat(metrics) if metric["value"] is not None}


def _by_split(metrics: Mapping[str, Evaluation], text: Callable[[Evaluation], str]) -> str:
    splits = reversed(list(metrics.items()))
    return "\n".join(f"{split} (n = {each['accuracy']['n']})\n\n{text(each)}" for split, each in splits)
