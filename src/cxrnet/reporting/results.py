"""The results of a finished run: metrics and what follows from them, as tables, texts and plots in its folder."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from cxrnet.core.atomic import write_json, write_table, write_text
from cxrnet.core.spreadsheet import to_csv
from cxrnet.evaluation.calibration import before_temperature, reliability_table, top_label
from cxrnet.evaluation.confidence_intervals import Resampling, clusters_of
from cxrnet.evaluation.decision import Mix
from cxrnet.evaluation.metrics import Evaluation, evaluate, flat
from cxrnet.evaluation.predictions import classes_of, label_codes, logits_of, probabilities_of, softmax
from cxrnet.evaluation.prevalence import at_prevalence, decision_band, decision_curve, predictive_table
from cxrnet.evaluation.selective_prediction import (
    Deferral,
    area_under_risk_coverage,
    certainty,
    deferral_of,
    risk_coverage,
    risk_with_band,
)
from cxrnet.evaluation.subgroups import METRICS, evaluate_subgroups
from cxrnet.reporting.plots.classification import (
    L2Losses,
    decision_plot,
    l2_choice,
    reliability_diagram,
    risk_coverage_plot,
    save_curves,
    save_plots,
)
from cxrnet.reporting.plots.style import save
from cxrnet.reporting.text import REPORT, class_reports
from cxrnet.reporting.wording import deferral_text, triage_text

_STEPS = 101  # of a decision curve
_UNKNOWN = Mix()


@dataclass(frozen=True)
class Analysis:
    """The analysis of the predictions of one split.

    Attributes:
        predictive: by class, PPV and NPV at the stated prevalences and, where probabilities are carried over to a
            prior, at that (:func:`cxrnet.evaluation.prevalence.predictive_table`).
        triage: by class, the same in sentences.
        decisions: by class, the decision curve with its intervals, at the stated prevalence or, where probabilities
            are carried over to a prior, at that; a class that is the label of no image, or of all, has none.
        reliability: by name, as the legend calls it, the reliability table; before and after the temperature.
        risk: the risk-coverage curve with its intervals.
        area: under it.
        deferral_sentences: what deferring predictions to a reader does.
        deferral: the predictions that are not deferred; ``None`` where the model has no deferral threshold.
        subgroups: one row a group and class; empty where the table tells of no groups.
        warnings: about the subgroups.
        cluster: what the bootstrap draws: ``patient``, ``duplicate group`` or ``image``.
    """

    predictive: dict[str, pd.DataFrame]
    triage: dict[str, list[str]]
    decisions: dict[str, pd.DataFrame]
    reliability: dict[str, pd.DataFrame]
    risk: pd.DataFrame
    area: float
    deferral_sentences: list[str]
    deferral: Deferral | None
    subgroups: pd.DataFrame
    warnings: list[str]
    cluster: str

    @property
    def has_bands(self) -> bool:
        """Tell whether its curves have confidence bands: none have where none were asked for."""
        return bool(self.risk["low"].notna().any())


@dataclass(frozen=True)
class Results:
    """The numbers of a run.

    Attributes:
        metrics: by split.
        analyses: by split, what the metrics mean.
        baselines: on the headline split, by name of the baseline.
        without_leaked: on the headline split without the images that leaked into training; ``None`` where all are
            left, or none.
        plots: by name, the PNG files.
    """

    metrics: Mapping[str, Evaluation]
    analyses: Mapping[str, Analysis]
    baselines: Mapping[str, Evaluation]
    without_leaked: Evaluation | None
    plots: Mapping[str, Path]

    @property
    def headline(self) -> str:
        """The split that the result is stated on: ``test``, or ``val`` where there is no test."""
        return "test" if "test" in self.metrics else "val"

    @property
    def without_deferred(self) -> dict[str, Evaluation]:
        """By split, the metrics of the predictions that are not deferred, where there are any of both."""
        deferrals = {split: each.deferral for split, each in self.analyses.items()}
        return {split: each.kept for split, each in deferrals.items() if each is not None and each.kept}


def evaluator(settings: Mapping[str, Any]) -> "partial[Evaluation]":
    """Return :func:`cxrnet.evaluation.metrics.evaluate` as the group ``evaluation`` of the configuration has it."""
    asked = {name: settings[name] for name in ("resamples", "seed", "level")}
    return partial(evaluate, **asked, bins=settings["calibration"]["bins"])


def analyse(
    predictions: pd.DataFrame,
    metrics: Evaluation,
    settings: Mapping[str, Any],
    temperature: float | None,
    mix: Mix = _UNKNOWN,
    offset: Sequence[float] = (),
) -> Analysis:
    """Work out what follows from the predictions of one split.

    Args:
        predictions: the rows of one split, every label known.
        metrics: metrics of these rows.
        settings: the group ``evaluation`` of the configuration, plain.
        temperature: by which the logits were divided; ``None`` where not all by the same.
        mix: mix that the probabilities hold for; where it isn't known, decision curves take that of the images for it.
        offset: offset of the temperature (:class:`cxrnet.evaluation.calibration.Temperature`), (K,); may be empty.

    Raises:
        CxrnetError: a setting won't do.
    """
    level, shares, clusters = settings["level"], settings["deferral"]["shares"], clusters_of(predictions)
    resampling = Resampling(clusters, settings["resamples"], settings["seed"], level)
    predictive, triage = {}, {}
    for name, of_class in metrics["per_class"].items():
        prevalences = sorted({*settings["prevalences"], *([mix.asked[name]] if mix.asked is not None else [])})
        pair = of_class["sensitivity"], of_class["specificity"]
        predictive[name] = predictive_table(*pair, prevalences)
        triage[name] = triage_text(name, *pair, predictive[name], settings["missed"], level)
    confidence, correct = certainty(predictions)
    risk = risk_with_band(risk_coverage(confidence, correct), confidence, correct, resampling, shares)
    subgroups, warnings = evaluate_subgroups(predictions, evaluator(settings), settings["fewest"])
    return Analysis(
        predictive=predictive,
        triage=triage,
        decisions=_decisions(predictions, settings["decision_curve"], resampling, mix),
        reliability=_reliability(predictions, settings["calibration"], temperature, mix, offset),
        risk=risk,
        area=area_under_risk_coverage(confidence, correct),
        deferral_sentences=deferral_text(risk, shares, level),
        deferral=deferral_of(predictions, evaluator(settings)),
        subgroups=subgroups,
        warnings=warnings,
        cluster=clusters.kind,
    )


def _decisions(
    predictions: pd.DataFrame, settings: Mapping[str, Any], resampling: Resampling, mix: Mix
) -> dict[str, pd.DataFrame]:
    first, last = settings["thresholds"]
    curves, thresholds = {}, np.linspace(first, last, _STEPS)
    for index, name in enumerate(classes_of(predictions)):
        positive = (predictions["label"] == name).to_numpy(bool)
        if 0 < positive.sum() < len(positive):
            before = after = float(positive.mean()) if mix.shares is None else mix.shares[name]
            if mix.asked is None:
                after = settings["prevalence"] or float(positive.mean())
            probability = at_prevalence(probabilities_of(predictions)[:, index], before, after)
            curve = decision_curve(probability, positive, thresholds, after)
            curves[name] = decision_band(curve, probability, positive, resampling)
    return curves


def _reliability(
    predictions: pd.DataFrame,
    settings: Mapping[str, Any],
    temperature: float | None,
    mix: Mix,
    offset: Sequence[float],
) -> dict[str, pd.DataFrame]:
    """Tabulate the reliability at a temperature of 1 without its offset and, where they differ, as it is."""
    codes, shift = label_codes(predictions), mix.shift(classes_of(predictions))
    if temperature is None:
        tables = {"each at its own temperature": probabilities_of(predictions)}
    else:
        tables = {"temperature 1": softmax(before_temperature(logits_of(predictions), temperature, offset, shift))}
    if temperature is not None and (temperature != 1 or len(offset)):
        tables[f"temperature {temperature:.3g}"] = probabilities_of(predictions)
    return {name: reliability_table(*top_label(table, codes), **settings) for name, table in tables.items()}


def save_analysis(analysis: Analysis, folder: Path, suffix: str = "") -> dict[str, Path]:
    """Draw the plots of an analysis of one split as PNG and write its tables as CSV; ``suffix`` ends their names.

    Returns:
        Name of a plot (``"reliability_val"``, ``"decision_0"`` for the first class) to file.
    """
    tables = {"risk_coverage": analysis.risk}
    if len(analysis.subgroups):
        tables["subgroups"] = _flat(analysis.subgroups, METRICS)
    for name, by_class in (("decision_curves", analysis.decisions), ("predictive_values", analysis.predictive)):
        if by_class:
            tables[name] = _flat(pd.concat(by_class, names=["class"]).reset_index("class"), ("ppv", "npv"))
    for name, table in tables.items():
        to_csv(table, folder / f"{name}{suffix}.csv")
    plots = {
        "reliability": reliability_diagram(analysis.reliability),
        "risk_coverage": risk_coverage_plot(analysis.risk, analysis.area),
    }
    for place, name in enumerate(analysis.predictive):
        if name in analysis.decisions:
            plots[f"decision_{place}"] = decision_plot(analysis.decisions[name], name)
    return {f"{name}{suffix}": save(plot, folder / f"{name}{suffix}.png") for name, plot in plots.items()}


def _flat(table: pd.DataFrame, metrics: Collection[str]) -> pd.DataFrame:
    """Write each metric as its value and the ends of its confidence interval, last; empty where there is none."""
    found = [name for name in metrics if name in table]
    columns = {name: table[name] for name in table if name not in found}
    for name in found:
        columns[name] = [metric["value"] for metric in table[name]]
        for place, end in enumerate(("low", "high")):
            columns[f"{name}_{end}"] = [metric.get("interval", (None, None))[place] for metric in table[name]]
    return pd.DataFrame(columns)


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
    mix: Mix = _UNKNOWN,
    offset: Sequence[float] = (),
    l2_losses: Mapping[str, L2Losses] = MappingProxyType({}),
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
        mix: mix that the probabilities of the predictions hold for.
        offset: offset of the classes, that goes with the temperature, (K,); empty where there is none.
        l2_losses: by phase whose head was fitted at once, see :func:`cxrnet.reporting.plots.classification.l2_choice`.

    Raises:
        CxrnetError: a label is missing.
    """
    evaluated = evaluator(settings)
    by_split = {str(name): rows for name, rows in predictions.groupby("split", sort=False)}
    headline = by_split["test" if "test" in by_split else "val"]
    left = headline[~headline["image_id"].isin(list(leaked))]
    metrics = {name: evaluated(rows) for name, rows in by_split.items()}
    plots: dict[str, Path] = {}
    results = Results(
        metrics,
        {name: analyse(rows, metrics[name], settings, temperature, mix, offset) for name, rows in by_split.items()},
        {name: evaluated(rows) for name, rows in baselines.items()},
        evaluated(left) if 0 < len(left) < len(headline) else None,
        plots,
    )
    write_table(predictions, folder / "predictions.parquet")
    write_json(folder / "class_indices.json", {name: index for index, name in enumerate(classes)})
    _write_metrics(folder, results)
    plots |= _save_training(folder, history, kept_epoch, l2_losses)
    for name, rows in by_split.items():
        suffix = "" if name == results.headline else f"_{name}"
        plots |= save_plots(rows, metrics[name], folder, suffix)
        plots |= save_analysis(results.analyses[name], folder, suffix)
    return results


def _save_training(
    folder: Path, history: pd.DataFrame | None, kept_epoch: int, l2_losses: Mapping[str, L2Losses]
) -> dict[str, Path]:
    """Write the table of the epochs and draw its curves; of heads that were fitted at once, the choice of the L2."""
    plots: dict[str, Path] = {}
    if history is not None:
        to_csv(history, folder / "history.csv")
        # A head that was fitted at once has no curves, but the choice of its L2.
        plots |= save_curves(history, kept_epoch, folder) if len(history) > len(l2_losses) else {}
    if l2_losses:
        plots["l2_choice"] = save(l2_choice(l2_losses), folder / "l2_choice.png")
    return plots


def _write_metrics(folder: Path, results: Results) -> None:
    """Write the metrics of all splits, baselines and subsets, and those of the classes as text."""
    numbers: dict[str, Any] = {**results.metrics, "baselines": {results.headline: results.baselines}}
    if results.without_leaked is not None:
        numbers["without_leaked"] = {results.headline: results.without_leaked}
    if results.without_deferred:
        numbers["without_deferred"] = results.without_deferred
    write_json(folder / "metrics.json", numbers)
    write_text(folder / "classification_report.txt", class_reports(results.metrics, REPORT))
    write_text(folder / "roc_auc.txt", class_reports(results.metrics, ["roc_auc"]))


def write_trial(folder: Path, predictions: pd.DataFrame, history: pd.DataFrame) -> None:
    """Write what a trial of a search is ranked and compared by: metrics without intervals, and no plots.

    Args:
        folder: where to write; it is there.
        predictions: labelled, of the split ``val``.
        history: one row an epoch.
    """
    write_table(predictions, folder / "predictions.parquet")
    write_json(folder / "metrics.json", {"val": evaluate(predictions)})
    to_csv(history, folder / "history.csv")


def values_of(metrics: Evaluation) -> dict[str, float]:
    """Return the values by name, ``sensitivity_<class>`` for those of a class; what is n/a is left out."""
    return {name: metric["value"] for name, _, metric in flat(metrics) if metric["value"] is not None}
