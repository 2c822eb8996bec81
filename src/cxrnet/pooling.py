"""What comes of a run over folds or seeds: the pooled predictions of its test images, the spread, and the report."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from cxrnet.audit.conflicts import write_conflicts
from cxrnet.configuration import Config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import seen_before
from cxrnet.data.manifest import write_manifest
from cxrnet.evaluation.facts import RepeatFacts, RepeatsFacts
from cxrnet.evaluation.metrics import Evaluation, evaluate
from cxrnet.evaluation.prior import Mix, weighing_sentences
from cxrnet.evaluation.report import render_repeats, thumbnail_verdict
from cxrnet.evaluation.spread import Moments, moments_of
from cxrnet.methods import faults_of, sources_of
from cxrnet.models.bundle import Bundle
from cxrnet.models.losses import weighed_by
from cxrnet.repeats import Repeat
from cxrnet.repeats_text import how_often, meaning, means_text, whose_table
from cxrnet.results import Results, figures_of, flat_metrics, write_results
from cxrnet.spreadsheet import to_csv
from cxrnet.stating import data_warnings
from cxrnet.summary import SPLITS, environment, say_spread, written_out
from cxrnet.tracking.tracked import TrackedRun
from cxrnet.training.baselines import baseline_predictions
from cxrnet.whole_file import write_table


@dataclass(frozen=True)
class FinishedRepeat:
    """One of the runs, finished.

    Attributes:
        repeat: which one.
        data: as it was split for it.
        test: its predictions of its test images.
        bundle: its model.
    """

    repeat: Repeat
    data: XrayDataModule
    test: pd.DataFrame
    bundle: Bundle


def pool(
    runs: Sequence[FinishedRepeat], config: Config, run: TrackedRun, folder: Path, command: Sequence[str]
) -> tuple[Results, list[str]]:
    """Put together what came of the runs: in the folder of all, in MLflow, on the console.

    Args:
        runs: in order, those of the first seed first.
        config: of all, plain.
        run: the parent of all in MLflow.
        folder: of all.
        command: that makes all of it, for the report.

    Returns:
        The results on the test images of the first seed, and what a reader must know before them.
    """
    by_seed = _by_seed(runs)
    seed, first = next(iter(by_seed.items()))
    tables = {seed: pd.concat([_tested(each) for each in part], ignore_index=True) for seed, part in by_seed.items()}
    _write_manifest(first[0], folder)
    results = _results(first, tables[seed], folder, config["evaluation"])
    figures = [evaluate(each.test) for each in runs]
    spread = pd.DataFrame(
        {"seed": each.repeat.seed, "fold": each.repeat.fold, **figures_of(metrics)}
        for each, metrics in zip(runs, figures, strict=True)
    )
    to_csv(spread, folder / "repeats.csv")
    pooled = _pooled_seeds(tables, folder) if first[0].repeat.folds and len(tables) > 1 else None
    level = config["evaluation"]["level"]
    say_spread(spread, pooled, level)
    warnings = list(dict.fromkeys(text for each in first for text in data_warnings(each.data, config)))
    warnings += first[0].data.notes
    facts = _repeats_facts(
        runs,
        figures,
        moments_of(spread, level),
        {} if pooled is None else moments_of(pooled, level),
        results,
        config,
        warnings=written_out(warnings),
        environment=_environment(runs, config, run, folder),
        command=shlex.join(command),
    )
    render_repeats(facts, folder / "report.html")
    moments = _flat_moments(spread, "test", level)
    moments |= {} if pooled is None else _flat_moments(pooled, "pooled_test", level)
    run.log_metrics({**flat_metrics(results), **moments}, 0)
    run.log_results(folder)
    verdict = thumbnail_verdict(results.metrics["test"], results.baselines["thumbnail"])
    return results, [whose_table([each.repeat for each in runs]), *warnings, *([verdict] if verdict else [])]


def _by_seed(runs: Sequence[FinishedRepeat]) -> dict[int, list[FinishedRepeat]]:
    seeds = dict.fromkeys(each.repeat.seed for each in runs)
    return {seed: [each for each in runs if each.repeat.seed == seed] for seed in seeds}


def _tested(each: FinishedRepeat) -> pd.DataFrame:
    """The predictions of one run; of one fold with its number, and which images were seen in its train or val."""
    if each.repeat.fold is None:
        return each.test
    seen = each.test["image_id"].isin(seen_before(each.data.manifest, "test"))
    return each.test.assign(fold=each.repeat.fold, seen=seen)


def _write_manifest(first: FinishedRepeat, folder: Path) -> None:
    """The manifest of the table in the folder; over folds without a split, as each image is in every split once."""
    manifest = first.data.manifest
    if first.repeat.fold is not None:
        manifest = manifest.assign(split=pd.array([pd.NA] * len(manifest), "string"))
    write_manifest(manifest, folder / "manifest.parquet")
    write_conflicts(first.data.copies, manifest, folder)


def _pooled_seeds(tables: Mapping[int, pd.DataFrame], folder: Path) -> pd.DataFrame:
    """The figures of each seed on the predictions of all of its folds together; write them and those predictions.

    Those of the first seed are the ``predictions.parquet`` of the folder.
    """
    for seed, table in list(tables.items())[1:]:
        write_table(table, folder / f"predictions_seed{seed}.parquet")
    pooled = pd.DataFrame(
        {"seed": seed, "images": len(table), **figures_of(evaluate(table))} for seed, table in tables.items()
    )
    to_csv(pooled, folder / "seeds.csv")
    return pooled


def _results(runs: Sequence[FinishedRepeat], tests: pd.DataFrame, folder: Path, settings: Config) -> Results:
    """The results on the test images of several folds, or of a single run."""
    baselines = [baseline_predictions(each.data, "test") for each in runs]
    return write_results(
        folder,
        tests,
        {name: pd.concat([each[name] for each in baselines], ignore_index=True) for name in baselines[0]},
        runs[0].data.classes,
        settings,
        temperature=runs[0].bundle.temperature if len(runs) == 1 else None,
        seen=[image for each in runs for image in seen_before(each.data.manifest, "test")],
        mix=_mix(runs),
        offset=runs[0].bundle.temperature_offset if len(runs) == 1 else (),
    )


def _mix(runs: Sequence[FinishedRepeat]) -> Mix:
    """The mean of the training mixes of several folds, which differ by a few images."""
    priors = [each.bundle.prior for each in runs if each.bundle.prior is not None]
    return Mix(pd.DataFrame(priors).mean().to_dict() if len(priors) == len(runs) else None)


def _flat_moments(spread: pd.DataFrame, of: str, level: float) -> dict[str, float]:
    """Mean, standard deviation and interval of the mean of every figure, for MLflow: ``mean_test_accuracy_low``."""
    figures = [name for name in spread if name not in ("seed", "fold", "images")]
    moments = {}
    for name, each in moments_of(spread, level, figures).items():
        moments[f"mean_{of}_{name}"] = each.mean
        if each.sd is not None:
            moments[f"sd_{of}_{name}"] = each.sd
        if each.interval is not None:
            moments[f"mean_{of}_{name}_low"], moments[f"mean_{of}_{name}_high"] = each.interval
    return moments


def _repeats_facts(
    runs: Sequence[FinishedRepeat],
    figures: Sequence[Evaluation],
    moments: Mapping[str, Moments],
    seeds: Mapping[str, Moments],
    results: Results,
    config: Config,
    **provenance: Any,  # noqa: ANN401 (warnings, environment, command: handed on)
) -> RepeatsFacts:
    data = runs[0].data
    return RepeatsFacts(
        title=f"{config['model']['backbone']} on {sources_of(data)}, {how_often([each.repeat for each in runs])}",
        summary=_summary(runs, config) + means_text(seeds, config["evaluation"]["level"]),
        created=time.strftime("%Y-%m-%d %H:%M"),
        known_faults=faults_of(data.known_faults),
        classes=data.classes,
        metrics=results.metrics,
        analyses=results.analyses,
        baselines=results.baselines,
        unseen=results.unseen,
        level=config["evaluation"]["level"],
        config_yaml=OmegaConf.to_yaml(config),
        figures=results.figures,
        meaning=meaning([(each.repeat, each.test) for each in runs]),
        runs=[_facts(each, metrics) for each, metrics in zip(runs, figures, strict=True)],
        moments=moments,
        seeds=seeds,
        weighing=_weighing(runs, config),
        **provenance,
    )


def _weighing(runs: Sequence[FinishedRepeat], config: Config) -> list[str]:
    """What class weights, a balanced sampler or costs did; over several runs in the mean."""
    weights = [each.bundle.decision_weights for each in runs if each.bundle.decision_weights is not None]
    cause = weighed_by(runs[0].data.sampler, config["loss"])
    mean = pd.DataFrame(weights).mean().to_dict() if weights else None
    sentences = weighing_sentences(cause, _mix(runs), mean, runs[0].bundle.operating_points)
    if len(runs) > 1 and sentences:
        sentences.append("Shares and weights are means over the runs; each has those of its own training images.")
    return sentences


def _facts(each: FinishedRepeat, metrics: Evaluation) -> RepeatFacts:
    return RepeatFacts(
        name=each.repeat.name,
        images={split: len(each.data.rows(split)) for split in SPLITS},
        metrics=metrics,
        temperature=each.bundle.temperature,
        points=each.bundle.operating_points,
        cutoff=each.bundle.refer_below,
    )


def _environment(runs: Sequence[FinishedRepeat], config: Config, run: TrackedRun, folder: Path) -> dict[str, str]:
    seeds = ", ".join(dict.fromkeys(str(each.repeat.seed) for each in runs))
    of_each = "that of each run is in its own report, as it holds the split"
    return environment(folder, config, of_each, run.run_id) | {"seed": seeds}


def _summary(runs: Sequence[FinishedRepeat], config: Config) -> str:
    data = runs[0].data
    by = f", parted by {config['folds_by']}" if runs[0].repeat.folds else ""
    often = how_often([each.repeat for each in runs])
    networks = f"{len(runs)} network{'s' * (len(runs) > 1)}"
    seeds = {each.repeat.seed for each in runs}
    whose = "" if len(seeds) == 1 else f" The figures below are those of seed {runs[0].repeat.seed}."
    return (
        f"{config['model']['backbone']}, {often}{by}: {networks}, trained one after the other on parts of "
        f"{len(data.manifest)} images of {len(data.classes)} classes.{whose}"
    )
