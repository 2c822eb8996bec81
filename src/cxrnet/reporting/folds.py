"""Runs over folds or seeds in words: their spread and the facts of their report."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from cxrnet.core import console
from cxrnet.core.config import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.evaluation.comparison import Moments, moments_of
from cxrnet.evaluation.decision import Mix
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.models.bundle import Bundle
from cxrnet.models.losses import weighed_by
from cxrnet.reporting.rendering import Table, rich_table
from cxrnet.reporting.report import RepeatsFacts
from cxrnet.reporting.results import Results
from cxrnet.reporting.run_pictures import pictures_elsewhere
from cxrnet.reporting.tables import Row, metric_table
from cxrnet.reporting.training_run import SPLITS, sources_of
from cxrnet.reporting.wording import (
    HEADLINE,
    SPLIT_NAMES,
    grouped,
    interval_meaning,
    issues_of,
    level_text,
    weighing_sentences,
)


@dataclass(frozen=True)
class FinishedPart:
    """One of the runs, finished.

    Attributes:
        name: name of its folder.
        seed: seed of everything in it.
        fold: which part of the data is its test split, from 1; ``None`` where the split is that of the configuration.
        data: as it was split for it.
        test: its predictions of its test images.
        bundle: its model.
        metrics: metrics of its test images, without confidence intervals.
    """

    name: str
    seed: int
    fold: int | None
    data: XrayDataModule
    test: pd.DataFrame
    bundle: Bundle
    metrics: Evaluation


Parts = Sequence[FinishedPart]


def _shape(parts: Parts) -> tuple[int, Parts]:
    """Return the number of seeds, and the parts of the first one."""
    return len({part.seed for part in parts}), [part for part in parts if part.seed == parts[0].seed]


def how_often(parts: Parts) -> str:
    """Write ``5 folds``, ``3 seeds``, ``5 folds of 3 seeds``."""
    seeds, first = _shape(parts)
    folds = [f"{len(first)} folds"] if parts[0].fold is not None else []
    return " of ".join([*folds, *([f"{seeds} seed{'s' * (seeds > 1)}"] if seeds > 1 or not folds else [])])


def whose_table(parts: Parts) -> str:
    """Say on the console which predictions the result is of."""
    seed = parts[0].seed
    if parts[0].fold is None:
        return f"the table above is of seed {seed} alone; the spread over seeds is in repeats.csv"
    text = "the table above pools the test predictions of all folds"
    if _shape(parts)[0] == 1:
        return f"{text}, each image by the network of its fold"
    return f"{text} of seed {seed}; those of the other seeds are in seeds.csv, their mean stands above"


def meaning(parts: Parts) -> str:
    """Say in the report which predictions the result is of, and what the spread tells."""
    seed, (seeds, first) = parts[0].seed, _shape(parts)
    if parts[0].fold is not None:
        n = sum(len(part.test) for part in first)
        says = "Each image is a test image of one fold, and its prediction is that of the network of this fold. "
        if seeds == 1:
            return (
                f"{says}The result below is that of all {n} predictions together. The spread is over the {len(parts)} "
                "folds: their training and validation images and their test images differ."
            )
        return (
            f"{says}Each seed draws folds of its own; its result is that of all {n} predictions of its folds together. "
            f"Over seeds: mean and spread of the {seeds} results, each on the same {n} images. Over folds: all "
            f"{len(parts)} runs, each on the test images of its fold; the standard deviation is that within a seed, so "
            f"that the two are not mixed. The tables and plots below are of seed {seed}, the first."
        )
    if seeds == 1:
        return f"The result below is that of the only seed, {seed}."
    below = f"The result below is that of seed {seed}, the first."
    if len({frozenset(part.test["image_id"]) for part in parts}) == 1:
        return (
            f"All runs are tested on the same {len(parts[0].test)} images: the spread tells how far a metric depends "
            "on the seed, the confidence intervals of the result how far on the patients. The predictions are not "
            f"pooled, as each image would count {len(parts)} times. {below}"
        )
    return (
        "Each seed splits the data anew: the runs differ in their test images too, and the spread is of both. The "
        f"predictions are not pooled, as images would count several times. {below}"
    )


def means_text(seeds: Mapping[str, Moments], level: float) -> str:
    """Say the mean of each metric over seeds; empty where there are no metrics."""
    if not seeds:
        return ""
    number = max(each.runs for each in seeds.values())
    errors = f" (SD; {level_text(level)} confidence interval over seeds)" if number > 1 else ""
    metrics = []
    for name, each in seeds.items():
        between = "" if each.interval is None else "; {:.3f} to {:.3f}".format(*each.interval)
        metrics.append(f"{HEADLINE[name]} {each.mean:.3f}" + ("" if each.sd is None else f" ({each.sd:.3f}{between})"))
    text = f"Mean over {number} seeds, the predictions of all folds of a seed together{errors}"
    return f" {text}: {', '.join(metrics)}."


def mean_mix(parts: Parts) -> Mix:
    """Return the mean of the class shares in training of several folds, which differ by a few images."""
    priors = [part.bundle.prior for part in parts if part.bundle.prior is not None]
    return Mix(pd.DataFrame(priors).mean().to_dict() if len(priors) == len(parts) else None)


def repeats_facts(
    parts: Parts,
    results: Results,
    config: Config,
    spread: pd.DataFrame,
    pooled: pd.DataFrame | None,
    **provenance: Any,  # noqa: ANN401 (warnings, environment, command: handed on)
) -> RepeatsFacts:
    """Put together what the report of all runs says.

    Args:
        parts: in order, those of the first seed first.
        results: results of the pooled test predictions of the first seed.
        config: config of all, plain.
        spread: one row a run, see :func:`say_spread`.
        pooled: one row a seed, see there.
        provenance: ``warnings``, ``environment`` and ``command`` of :class:`cxrnet.reporting.report.RepeatsFacts`.
    """
    data, level, often = parts[0].data, config["evaluation"]["level"], how_often(parts)
    moments, seeds = moments_of(spread, level), {} if pooled is None else moments_of(pooled, level)
    by = f", parted by {config['folds_by']}" if parts[0].fold is not None else ""
    whose = "" if _shape(parts)[0] == 1 else f" The metrics below are those of seed {parts[0].seed}."
    summary = (
        f"{config['model']['backbone']}, {often}{by}: {len(parts)} network{'s' * (len(parts) > 1)}, trained one after "
        f"the other on parts of {len(data.manifest)} images of {len(data.classes)} classes.{whose}"
    )
    spreads = [(seeds, "Over seeds")] * bool(seeds) + [(moments, "Over folds" if seeds else "Over runs")]
    return RepeatsFacts(
        title=f"{config['model']['backbone']} on {sources_of(data)}, {often}",
        summary=summary + means_text(seeds, level),
        created=time.strftime("%Y-%m-%d %H:%M"),
        known_issues=issues_of(data.known_issues),
        classes=data.classes,
        results=results,
        level=level,
        config_yaml=OmegaConf.to_yaml(config),
        meaning=meaning(parts),
        tables=[*(spread_table(*each, level) for each in spreads), _table_of_runs(parts, moments)],
        moments=moments,
        seeds=seeds,
        points={part.name: part.bundle.operating_points for part in parts},
        deferral_thresholds={part.name: part.bundle.defer_below for part in parts},
        weighing=_weighing(parts, config),
        pictures=pictures_elsewhere(config["report"]["images"]),
        **provenance,
    )


def _weighing(parts: Parts, config: Config) -> list[str]:
    """Say what class weights, a balanced sampler or costs did to the training and do to the decision."""
    weights = [part.bundle.decision_weights for part in parts if part.bundle.decision_weights is not None]
    mean = pd.DataFrame(weights).mean().to_dict() if weights else None
    cause = weighed_by(parts[0].data.sampler, config["loss"])
    sentences = weighing_sentences(cause, mean_mix(parts), mean, parts[0].bundle.operating_points)
    if len(parts) > 1 and sentences:
        sentences.append("Shares and weights are means over the runs; each has those of its own training images.")
    return sentences


def _table_of_runs(parts: Parts, metrics: Iterable[str]) -> Table:
    """Tabulate the metrics of each run, with its numbers of images and its temperature."""
    rows = [
        Row(
            [part.name, *(grouped(len(part.data.rows(split))) for split in SPLITS), f"{part.bundle.temperature:.3g}"],
            {HEADLINE[name]: part.metrics[name] for name in metrics},
            ("", f" ({part.name})"),
        )
        for part in parts
    ]
    columns = ["Run", *(f"{SPLIT_NAMES[split]} images" for split in SPLITS), "Temperature"]
    return metric_table("Runs", columns, rows)


def say_spread(spread: pd.DataFrame, pooled: pd.DataFrame | None, level: float) -> None:
    """Show mean, standard deviation, smallest and largest of the headline metrics over the runs.

    Over seeds, the confidence interval of the mean too.

    Args:
        spread: one row a run, ``seed``, ``fold`` and one column a metric.
        pooled: one row a seed, ``images`` and the metrics of all of its folds together; ``None`` where there are not
            both folds and several seeds.
        level: level of the confidence interval.
    """
    console.heading("Over the runs")
    titles = {f"test, {len(spread)} runs": spread}
    if pooled is not None:
        titles = {f"{len(pooled)} seeds, n = {pooled['images'].max()}": pooled}
        titles[f"{len(spread)} folds, SD in a seed"] = spread
    for title, table in titles.items():
        console.show(rich_table(spread_table(moments_of(table, level), title, level)))


def spread_table(found: Mapping[str, Moments], title: str, level: float) -> Table:
    """Lay out the spread of each metric over runs; with the confidence interval of the mean where any has one."""
    meaning_of = interval_meaning(found, level)
    rows = []
    for name, each in found.items():
        values = (each.mean, each.sd, each.lowest, each.highest)
        cells = ["n/a" if value is None else f"{value:.3f}" for value in values]
        interval = "n/a" if each.interval is None else "{:.3f} to {:.3f}".format(*each.interval)
        rows.append([HEADLINE[name], *cells, *([interval] if meaning_of else []), str(each.runs)])
    over = [f"{level_text(level)} CI, seeds"] if meaning_of else []
    columns = [title, "Mean", "SD", "Lowest", "Highest", *over, "Runs"]
    return Table("Over the runs", pd.DataFrame(rows, columns=columns), 1, False, meaning_of)
