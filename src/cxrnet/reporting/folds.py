"""Runs over folds or seeds in words: their spread and the facts of their report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from rich.table import Table

from cxrnet.core import console
from cxrnet.core.config import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.over_runs import Moments, moments_of
from cxrnet.evaluation.prior import Mix
from cxrnet.models.bundle import Bundle
from cxrnet.models.losses import weighed_by
from cxrnet.reporting.report_data import RepeatFacts, RepeatsFacts
from cxrnet.reporting.results import Results
from cxrnet.reporting.sentences import weighing_sentences
from cxrnet.reporting.training_run import SPLITS, issues_of, sources_of
from cxrnet.reporting.wording import HEADLINE, level_text


@dataclass(frozen=True)
class FinishedPart:
    """One of the runs, finished.

    Attributes:
        name: of its folder.
        seed: of everything in it.
        fold: which part of the data is its test split, from 1; ``None`` where the split is that of the configuration.
        data: as it was split for it.
        test: its predictions of its test images.
        bundle: its model.
        metrics: of its test images, without confidence intervals.
    """

    name: str
    seed: int
    fold: int | None
    data: XrayDataModule
    test: pd.DataFrame
    bundle: Bundle
    metrics: Evaluation


Parts = Sequence[FinishedPart]


def _seeds(parts: Parts) -> list[int]:
    return list(dict.fromkeys(part.seed for part in parts))


def _of_first_seed(parts: Parts) -> Parts:
    return [part for part in parts if part.seed == parts[0].seed]


def how_often(parts: Parts) -> str:
    """Write ``5 folds``, ``3 seeds``, ``5 folds of 3 seeds``."""
    folds = [f"{len(_of_first_seed(parts))} folds"] if parts[0].fold is not None else []
    seeds = len(_seeds(parts))
    return " of ".join([*folds, *([f"{seeds} seed{'s' * (seeds > 1)}"] if seeds > 1 or not folds else [])])


def whose_table(parts: Parts) -> str:
    """Say on the console which predictions the result is of."""
    seed = parts[0].seed
    if parts[0].fold is None:
        return f"the table above is of seed {seed} alone; the spread over seeds is in repeats.csv"
    text = "the table above pools the test predictions of all folds"
    if len(_seeds(parts)) == 1:
        return f"{text}, each image by the network of its fold"
    return f"{text} of seed {seed}; those of the other seeds are in seeds.csv, their mean stands above"


def meaning(parts: Parts) -> str:
    """Say in the report which predictions the result is of, and what the spread tells."""
    seed, seeds, first = parts[0].seed, len(_seeds(parts)), _of_first_seed(parts)
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
    """Return the mean of the training mixes of several folds, which differ by a few images."""
    priors = [part.bundle.prior for part in parts if part.bundle.prior is not None]
    return Mix(pd.DataFrame(priors).mean().to_dict() if len(priors) == len(parts) else None)


def repeats_facts(
    parts: Parts,
    results: Results,
    config: Config,
    spread: pd.DataFrame,
    pooled: pd.DataFrame | None,
    **provenance: Any,  # noqa: ANN401 (environment, command: handed on)
) -> RepeatsFacts:
    """Put together what the report of all runs says.

    Args:
        parts: in order, those of the first seed first.
        results: of the pooled test predictions of the first seed.
        config: of all, plain.
        spread: one row a run, see :func:`say_spread`.
        pooled: one row a seed, see there.
        provenance: ``environment`` and ``command`` of :class:`cxrnet.reporting.report_data.RepeatsFacts`.
    """
    data, level, often = parts[0].data, config["evaluation"]["level"], how_often(parts)
    seeds = {} if pooled is None else moments_of(pooled, level)
    by = f", parted by {config['folds_by']}" if parts[0].fold is not None else ""
    whose = "" if len(_seeds(parts)) == 1 else f" The metrics below are those of seed {parts[0].seed}."
    summary = (
        f"{config['model']['backbone']}, {often}{by}: {len(parts)} network{'s' * (len(parts) > 1)}, trained one after "
        f"the other on parts of {len(data.manifest)} images of {len(data.classes)} classes.{whose}"
    )
    return RepeatsFacts(
        title=f"{config['model']['backbone']} on {sources_of(data)}, {often}",
        summary=summary + means_text(seeds, level),
        created=time.strftime("%Y-%m-%d %H:%M"),
        known_issues=issues_of(data.known_issues),
        classes=data.classes,
        metrics=results.metrics,
        analyses=results.analyses,
        baselines=results.baselines,
        without_leaked=results.without_leaked,
        level=level,
        config_yaml=OmegaConf.to_yaml(config),
        plots=results.plots,
        meaning=meaning(parts),
        runs=[_part_facts(part) for part in parts],
        moments=moments_of(spread, level),
        seeds=seeds,
        weighing=_weighing(parts, config),
        **provenance,
    )


def _part_facts(part: FinishedPart) -> RepeatFacts:
    return RepeatFacts(
        name=part.name,
        images={split: len(part.data.rows(split)) for split in SPLITS},
        metrics=part.metrics,
        temperature=part.bundle.temperature,
        points=part.bundle.operating_points,
        deferral_threshold=part.bundle.defer_below,
    )


def _weighing(parts: Parts, config: Config) -> list[str]:
    """Say what class weights, a balanced sampler or costs did; over several runs in the mean."""
    weights = [part.bundle.decision_weights for part in parts if part.bundle.decision_weights is not None]
    cause = weighed_by(parts[0].data.sampler, config["loss"])
    mean = pd.DataFrame(weights).mean().to_dict() if weights else None
    sentences = weighing_sentences(cause, mean_mix(parts), mean, parts[0].bundle.operating_points)
    if len(parts) > 1 and sentences:
        sentences.append("Shares and weights are means over the runs; each has those of its own training images.")
    return sentences


def say_spread(spread: pd.DataFrame, pooled: pd.DataFrame | None, level: float) -> None:
    """Show mean, standard deviation, smallest and largest of the headline metrics over the runs.

    Over seeds, the confidence interval of the mean too.

    Args:
        spread: one row a run, ``seed``, ``fold`` and one column a metric.
        pooled: one row a seed, ``images`` and the metrics of all of its folds together; ``None`` where there are not
            both folds and several seeds.
        level: of the confidence interval.
    """
    console.heading("Over the runs")
    if pooled is None:
        console.show(_spread_table(spread, f"test, {len(spread)} runs", level))
        return
    console.show(_spread_table(pooled, f"{len(pooled)} seeds, n = {pooled['images'].max()}", level))
    console.show(_spread_table(spread, f"{len(spread)} folds, sd in a seed", level))


def _spread_table(spread: pd.DataFrame, title: str, level: float) -> Table:
    found = moments_of(spread, level)
    over_seeds = any(each.interval for each in found.values())
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), collapse_padding=True)
    table.add_column(title)
    for name in (
        "mean",
        "sd",
        "lowest",
        "highest",
        *([f"mean, {level_text(level)} CI over seeds"] if over_seeds else []),
    ):
        table.add_column(name, justify="right")
    for name, each in found.items():
        values = (each.mean, each.sd, each.lowest, each.highest)
        cells = ["n/a" if value is None else f"{value:.3f}" for value in values]
        interval = "n/a" if each.interval is None else "{:.3f} to {:.3f}".format(*each.interval)
        table.add_row(HEADLINE[name], *cells, *([interval] if over_seeds else []))
    return table
