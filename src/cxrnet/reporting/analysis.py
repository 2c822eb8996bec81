"""The analysis of one split: predictive values, decision curves, calibration, deferral and subgroups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cxrnet.evaluation.bootstrap import Resampling, clusters_of
from cxrnet.evaluation.calibration import before_temperature, reliability_table, top_label
from cxrnet.evaluation.metrics import Evaluation, evaluate
from cxrnet.evaluation.predictions import classes_of, label_codes, logits_of, probabilities_of, softmax
from cxrnet.evaluation.prevalence import at_prevalence, decision_band, decision_curve, predictive_table
from cxrnet.evaluation.prior import Mix
from cxrnet.evaluation.selective_prediction import (
    Deferral,
    area_under_risk_coverage,
    certainty,
    deferral_of,
    risk_coverage,
    risk_with_band,
)
from cxrnet.evaluation.subgroups import evaluate_subgroups
from cxrnet.reporting.sentences import deferral_text, triage_text

STEPS = 101  # of a decision curve
UNKNOWN = Mix()


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


def evaluator(settings: Mapping[str, Any]) -> "partial[Evaluation]":
    """Return :func:`cxrnet.evaluation.metrics.evaluate` as the group ``evaluation`` of the configuration has it."""
    return partial(
        evaluate,
        resamples=settings["resamples"],
        seed=settings["seed"],
        level=settings["level"],
        bins=settings["calibration"]["bins"],
    )


def analyse(
    predictions: pd.DataFrame,
    metrics: Evaluation,
    settings: Mapping[str, Any],
    temperature: float | None,
    mix: Mix = UNKNOWN,
    offset: Sequence[float] = (),
) -> Analysis:
    """Work out what follows from the predictions of one split.

    Args:
        predictions: the rows of one split, every label known.
        metrics: of these rows.
        settings: the group ``evaluation`` of the configuration, plain.
        temperature: by which the logits were divided; ``None`` where not all by the same.
        mix: that the probabilities are of; where it isn't known, decision curves take that of the images for it.
        offset: that goes with the temperature (:class:`cxrnet.evaluation.calibration.Temperature`), (K,); may be empty.

    Raises:
        CxrnetError: a setting won't do.
    """
    per_class = metrics["per_class"]
    predictive = {
        name: predictive_table(of_class["sensitivity"], of_class["specificity"], _prevalences(name, settings, mix))
        for name, of_class in per_class.items()
    }
    confidence, correct = certainty(predictions)
    clusters = clusters_of(predictions)
    resampling = Resampling(clusters, settings["resamples"], settings["seed"], settings["level"])
    shares = settings["deferral"]["shares"]
    risk = risk_with_band(risk_coverage(confidence, correct), confidence, correct, resampling, shares)
    subgroups, warnings = evaluate_subgroups(predictions, evaluator(settings), settings["fewest"])
    return Analysis(
        predictive=predictive,
        triage={
            name: triage_text(
                name,
                of_class["sensitivity"],
                of_class["specificity"],
                predictive[name],
                settings["missed"],
                settings["level"],
            )
            for name, of_class in per_class.items()
        },
        decisions=_decisions(predictions, settings["decision_curve"], resampling, mix),
        reliability=_reliability(predictions, settings["calibration"], temperature, mix, offset),
        risk=risk,
        area=area_under_risk_coverage(confidence, correct),
        deferral_sentences=deferral_text(risk, shares, settings["level"]),
        deferral=deferral_of(predictions, evaluator(settings)),
        subgroups=subgroups,
        warnings=warnings,
        cluster=clusters.kind,
    )


def _prevalences(name: str, settings: Mapping[str, Any], mix: Mix) -> list[float]:
    """List those of the configuration, and that of the class where a prior was asked for."""
    return sorted({*settings["prevalences"], *([mix.asked[name]] if mix.asked is not None else [])})


def _decisions(
    predictions: pd.DataFrame, settings: Mapping[str, Any], resampling: Resampling, mix: Mix
) -> dict[str, pd.DataFrame]:
    first, last = settings["thresholds"]
    thresholds = np.linspace(first, last, STEPS)
    curves = {}
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
