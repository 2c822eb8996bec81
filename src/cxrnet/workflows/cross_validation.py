"""Runs over folds or seeds: each is a run of its own, below one parent, whose results put them together.

The parent has the predictions of all folds, each image by the network that didn't train on it, and the spread of every
metric over the runs. A run that was finished before, in a folder that is resumed, is not done again unless it has more
to do now.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate

from cxrnet.core import console
from cxrnet.core.atomic import write_table
from cxrnet.core.config import Config, read_config
from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import leaked_images, write_conflicts
from cxrnet.data.manifest import digest, write_manifest
from cxrnet.data.splits import fold_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import LEAKED, read_predictions
from cxrnet.models.bundle import load_bundle
from cxrnet.reporting.folds import FinishedPart, mean_mix, repeats_facts, say_spread, whose_table
from cxrnet.reporting.report import render_repeats, thumbnail_verdict
from cxrnet.reporting.results import Results, values_of, write_results
from cxrnet.reporting.run_page import moments_metrics, run_page
from cxrnet.reporting.training_run import data_warnings, environment
from cxrnet.reporting.wording import command_text, written_out
from cxrnet.tracking.record import read_record
from cxrnet.tracking.sync import sync, unsent_runs
from cxrnet.training.baselines import baseline_predictions
from cxrnet.workflows.resume import check_same_data
from cxrnet.workflows.run_context import RunContext, opened, part_name, read_run_facts, write_facts_of_all


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        score: the monitored validation metric of the kept weights; over folds and seeds its mean.
        results: the metrics; ``None`` of a trial of a search, and in the processes of a distributed training that don't
            speak for it.
        warnings: what a reader must know before the metrics.
    """

    score: float
    results: Results | None = None
    warnings: list[str] = field(default_factory=list)


TrainOnce = Callable[[RunContext, XrayDataModule], Outcome]


def train_parts(run: RunContext, configs: Sequence[Config], data: XrayDataModule, train_once: TrainOnce) -> Outcome:
    """Train and evaluate each of the runs, and put their results together.

    Args:
        run: the parent.
        configs: configs of the runs, from :func:`cxrnet.workflows.run_context.part_configs`.
        data: set up; its images serve all runs.
        train_once: trains and evaluates one.

    Raises:
        CxrnetError: one of the splits is not usable, which is told before anything is trained.
    """
    splits = [resplit(data, config) for config in configs]
    scores = [_train_part(run.part(config), split, train_once) for config, split in zip(configs, splits, strict=True)]
    write_facts_of_all(run.folder, [run.folder / part_name(config) for config in configs], run.command)
    parts = []
    for config, split in zip(configs, splits, strict=True):
        name = part_name(config)
        test = read_predictions(run.folder / name / "predictions.parquet").query("split == 'test'")
        bundle = load_bundle(run.folder / name / "bundle")
        parts.append(FinishedPart(name, config["seed"], config["fold"], split, test, bundle, evaluate(test)))
    return _put_together(run, parts, sum(scores) / len(scores))


def resplit(data: XrayDataModule, config: Config) -> XrayDataModule:
    """Split the data for one run: by its fold, or as ``data.split`` says with its seed.

    Raises:
        CxrnetError: the split is not usable, or has no test images.
    """
    fold, seed = config["fold"], config["seed"]
    split: Callable[[pd.DataFrame], pd.DataFrame] = (
        instantiate(config["data"]["split"])
        if fold is None
        else partial(fold_manifest, folds=config["folds"], fold=fold - 1, by=config["folds_by"], seed=seed)
    )
    other = data.resplit(split, seed, shared=fold is not None)
    if other.rows("test").empty:
        raise CxrnetError("seeds: the data have no test images to compare runs on; give data.split a test part")
    return other


def _train_part(run: RunContext, data: XrayDataModule, train_once: TrainOnce) -> float:
    """Train and evaluate one of the runs, or go on with it; return its score."""
    console.heading(run.folder.name)
    began = read_config(run.folder)
    finished = began is not None and read_record(run.folder).get("status") == "FINISHED"
    more_to_do = ("schedule", "operating_points", "defer", "evaluation")  # which a resumption may change
    if began is None or not finished or any(began.get(key) != run.config[key] for key in more_to_do):
        with opened(run) as at_work:
            return train_once(at_work, data).score
    check_same_data(run.folder, digest(data.manifest))
    console.say("done", "before this run was resumed")
    if any(unsent_runs(run.folder)):
        sync([run.folder])
    return float(next(phase["kept_score"] for phase in read_run_facts(run.folder)["phases"] if phase["kept"]))


def _put_together(run: RunContext, parts: Sequence[FinishedPart], score: float) -> Outcome:
    """Write, log and say the results of all runs; those of the first seed are the result."""
    seeds = list(dict.fromkeys(part.seed for part in parts))
    first = [part for part in parts if part.seed == seeds[0]]
    data, bundle, alone = first[0].data, first[0].bundle, len(first) == 1
    spread = pd.DataFrame({"seed": part.seed, "fold": part.fold, **values_of(part.metrics)} for part in parts)
    to_csv(spread, run.folder / "repeats.csv")
    _write_data(run.folder, first[0])
    tables = {
        seed: pd.concat([_tested(part) for part in parts if part.seed == seed], ignore_index=True) for seed in seeds
    }
    baselines = [baseline_predictions(part.data, "test") for part in first]
    results = write_results(
        run.folder,
        tables[seeds[0]],
        {name: pd.concat([each[name] for each in baselines], ignore_index=True) for name in baselines[0]},
        data.classes,
        run.config["evaluation"],
        temperature=bundle.temperature if alone else None,
        leaked=[image for part in first for image in leaked_images(part.data.manifest, "test")],
        mix=mean_mix(first),
        offset=bundle.temperature_offset if alone else (),
    )
    pooled = _pooled(run.folder, tables) if first[0].fold is not None and len(seeds) > 1 else None
    say_spread(spread, pooled, run.config["evaluation"]["level"])
    warnings = list(dict.fromkeys(text for part in first for text in data_warnings(part.data, run.config)))
    warnings += data.notes
    of_each = "that of each run is in its own report, as it holds the split"
    facts = repeats_facts(
        parts,
        results,
        run.config,
        spread,
        pooled,
        warnings=written_out(warnings),
        environment=environment(run.folder, run.config, of_each, run.tracker.run_id)
        | {"seed": ", ".join(map(str, seeds))},
        command=command_text(run.command),
    )
    render_repeats(facts, run.folder / "report.html")
    verdict = thumbnail_verdict(results.metrics["test"], results.baselines["thumbnail"])
    warnings = [whose_table(parts), *warnings, *([verdict] if verdict else [])]
    run.tracker.log_page(**run_page(results, warnings, command_text(run.command)))
    moments = moments_metrics(facts.moments, "over_runs") | moments_metrics(facts.seeds, "over_seeds")
    run.tracker.log_metrics(moments, step=0)
    run.tracker.log_results(run.folder)
    return Outcome(score, results, warnings)


def _write_data(folder: Path, part: FinishedPart) -> None:
    """Write the manifest of all runs, and the labels that contradict each other."""
    manifest = part.data.manifest
    if part.fold is not None:  # each image is in every split once
        manifest = manifest.assign(split=pd.array([pd.NA] * len(manifest), "string"))
    write_manifest(manifest, folder / "manifest.parquet")
    write_conflicts(part.data.duplicates, manifest, folder)


def _pooled(folder: Path, tables: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Write and return the metrics of each seed on all of its folds, and write the predictions of further seeds."""
    for seed in list(tables)[1:]:
        write_table(tables[seed], folder / f"predictions_seed{seed}.parquet")
    pooled = pd.DataFrame(
        {"seed": seed, "images": len(table), **values_of(evaluate(table))} for seed, table in tables.items()
    )
    to_csv(pooled, folder / "seeds.csv")
    return pooled


def _tested(part: FinishedPart) -> pd.DataFrame:
    """Return the test predictions of a run; of a fold with its number, and which images leaked into training."""
    if part.fold is None:
        return part.test
    leaked = part.test["image_id"].isin(leaked_images(part.data.manifest, "test"))
    return part.test.assign(fold=part.fold, **{LEAKED: leaked})
