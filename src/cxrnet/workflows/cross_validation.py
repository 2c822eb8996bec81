"""The runs over folds and seeds, one after the other; those that were finished before are not done again."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from cxrnet.core import console
from cxrnet.core.atomic import write_table
from cxrnet.core.config import Config, flat, plain_config, read_config, write_config
from cxrnet.core.machine import machine_told
from cxrnet.core.spreadsheet import to_csv
from cxrnet.data.conflicts import write_conflicts
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import seen_before
from cxrnet.data.manifest import write_manifest
from cxrnet.evaluation.metrics import Evaluation, evaluate
from cxrnet.evaluation.over_runs import Moments, moments_of
from cxrnet.evaluation.predictions import read_predictions
from cxrnet.evaluation.prior import Mix
from cxrnet.models.bundle import Bundle, load_bundle
from cxrnet.models.losses import weighed_by
from cxrnet.reporting.report import render_repeats, thumbnail_verdict
from cxrnet.reporting.report_data import RepeatFacts, RepeatsFacts
from cxrnet.reporting.results import Results, values_of, write_results
from cxrnet.reporting.run_page import moments_metrics, run_page
from cxrnet.reporting.sentences import weighing_sentences
from cxrnet.reporting.wording import HEADLINE
from cxrnet.tracking.record import RECORD, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.sync import sync, unsent_runs
from cxrnet.tracking.tracker import TrackedRun
from cxrnet.training.baselines import baseline_predictions
from cxrnet.workflows.describe import SPLITS, environment, faults_of, say_spread, sources_of, written_out
from cxrnet.workflows.folds_and_seeds import Repeat, config_of, resplit_for
from cxrnet.workflows.resume import check_same_data
from cxrnet.workflows.run_facts import read_run_facts, write_facts_of_all
from cxrnet.workflows.single_run import Outcome, data_warnings, run_once, state_data


def how_often(runs: Sequence[Repeat]) -> str:
    """``5 folds``, ``3 seeds``, ``5 folds of 3 seeds``."""
    folds, seeds = runs[0].folds, len({each.seed for each in runs})
    parts = ([f"{folds} folds"] if folds else []) + (
        [f"{seeds} seed{'s' * (seeds > 1)}"] if seeds > 1 or not folds else []
    )
    return " of ".join(parts)


def whose_table(runs: Sequence[Repeat]) -> str:
    """Of which predictions the result is, in few words for the console."""
    seed, seeds = runs[0].seed, {each.seed for each in runs}
    if runs[0].fold is None:
        return f"the table above is of seed {seed} alone; the spread over seeds is in repeats.csv"
    text = "the table above pools the test predictions of all folds"
    if len(seeds) == 1:
        return f"{text}, each image by the network of its fold"
    return f"{text} of seed {seed}; those of the other seeds are in seeds.csv, their mean stands above"


def means_text(seeds: Mapping[str, Moments], level: float) -> str:
    """The mean of each figure over seeds, as a sentence to follow others; empty where there are no figures."""
    if not seeds:
        return ""
    figures = ", ".join(f"{HEADLINE[name]} {each.mean:.3f}{_error(each)}" for name, each in seeds.items())
    number = max(each.runs for each in seeds.values())
    errors = f" (SD; {100 * level:g} % interval over seeds)" if number > 1 else ""
    return f" Mean over {number} seeds, the predictions of all folds of a seed together{errors}: {figures}."


def _error(each: Moments) -> str:
    """Of a mean over seeds; empty of a single one, and without the interval where all gave the same."""
    between = "" if each.interval is None else "; {:.3f} to {:.3f}".format(*each.interval)
    return "" if each.sd is None else f" ({each.sd:.3f}{between})"


def meaning(runs: Sequence[tuple[Repeat, pd.DataFrame]]) -> str:
    """Say of which predictions the result of several runs is, and what their spread tells.

    Args:
        runs: each with its predictions of its test images.
    """
    seed, seeds = runs[0][0].seed, {each.seed for each, _ in runs}
    if runs[0][0].fold is not None:
        return _meaning_of_folds(runs, len(seeds))
    if len(seeds) == 1:
        return f"The result below is that of the only seed, {seed}."
    below = f"The result below is that of seed {seed}, the first."
    if len({frozenset(test["image_id"]) for _, test in runs}) == 1:
        return (
            f"All runs are tested on the same {len(runs[0][1])} images: the spread tells how far a figure depends on "
            "the seed, the intervals of the result how far on the patients. The predictions are not pooled, as each "
            f"image would count {len(runs)} times. {below}"
        )
    return (
        "Each seed splits the data anew: the runs differ in their test images too, and the spread is of both. The "
        f"predictions are not pooled, as images would count several times. {below}"
    )


def _meaning_of_folds(runs: Sequence[tuple[Repeat, pd.DataFrame]], seeds: int) -> str:
    seed = runs[0][0].seed
    n = sum(len(test) for each, test in runs if each.seed == seed)
    says = "Each image is a test image of one fold, and its prediction is that of the network of this fold. "
    if seeds == 1:
        return (
            f"{says}The result below is that of all {n} predictions together. The spread is over the {len(runs)} "
            "folds: their training and validation images and their test images differ."
        )
    return (
        f"{says}Each seed draws folds of its own; its result is that of all {n} predictions of its folds together. "
        f"Over seeds: mean and spread of the {seeds} results, each on the same {n} images. Over folds: all {len(runs)} "
        "runs, each on the test images of its fold; the standard deviation is that within a seed, so that the two are "
        f"not mixed. The tables and figures below, with their intervals, are of seed {seed}, the first."
    )


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
        {"seed": each.repeat.seed, "fold": each.repeat.fold, **values_of(metrics)}
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
    verdict = thumbnail_verdict(results.metrics["test"], results.baselines["thumbnail"])
    warnings = [whose_table([each.repeat for each in runs]), *warnings, *([verdict] if verdict else [])]
    run.log_page(**run_page(results, warnings, shlex.join(command)))
    run.log_metrics(moments_metrics(facts.moments, "over_runs") | moments_metrics(facts.seeds, "over_seeds"), step=0)
    run.log_results(folder)
    return results, warnings


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
        {"seed": seed, "images": len(table), **values_of(evaluate(table))} for seed, table in tables.items()
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
        known_issues=faults_of(data.known_faults),
        classes=data.classes,
        metrics=results.metrics,
        analyses=results.analyses,
        baselines=results.baselines,
        without_leaked=results.without_leaked,
        level=config["evaluation"]["level"],
        config_yaml=OmegaConf.to_yaml(config),
        plots=results.plots,
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
        deferral_threshold=each.bundle.refer_below,
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


def run_repeats(
    repeats: Sequence[Repeat],
    config: DictConfig,
    data: XrayDataModule,
    run: TrackedRun,
    folder: Path,
    name: str,
    command: Sequence[str],
    uri: str | None,
) -> Outcome:
    """Run each and put together what came.

    A run that was finished before, in a folder that is resumed, is not done again unless it has more to do now.

    Args:
        repeats: from :func:`check_repeats`.
        config: as composed.
        data: set up; its images serve all runs.
        run: the parent.
        folder: of the parent; each run gets a folder in it.
        name: of the parent in MLflow.
        command: of the parent, for the reports.
        uri: of MLflow; ``None`` for no tracking.

    Returns:
        The mean score, and the results on the pooled test predictions of the first seed.

    Raises:
        CxrnetError: one of the splits is not usable, which is told before anything is trained.
    """
    configs = [config_of(config, repeat) for repeat in repeats]
    parts = [resplit_for(data, repeat, plain) for repeat, plain in zip(repeats, configs, strict=True)]
    scores, done = [], []
    for repeat, plain, part in zip(repeats, configs, parts, strict=True):
        child = folder / repeat.name
        scores.append(_run_child(repeat, plain, part, run, child, name, command, uri))
        test = read_predictions(child / "predictions.parquet").query("split == 'test'")
        done.append(FinishedRepeat(repeat, part, test, load_bundle(child / "bundle")))
    plain = plain_config(config)
    del plain["resume"]
    write_facts_of_all(folder, [folder / repeat.name for repeat in repeats], command)
    results, warnings = pool(done, plain, run, folder, command)
    return Outcome(sum(scores) / len(scores), results, warnings)


def _run_child(
    repeat: Repeat,
    config: Config,
    data: XrayDataModule,
    parent: TrackedRun,
    folder: Path,
    name: str,
    command: Sequence[str],
    uri: str | None,
) -> float:
    """Train and evaluate one of the runs, or go on with it; return its score."""
    console.heading(repeat.name)
    if _is_done(folder, config):
        check_same_data(folder, data.manifest)
        console.say("done", "before this run was resumed")
        if any(unsent_runs(folder)):
            sync([folder])
        return _score(folder)
    resumed = (folder / RECORD).is_file()
    experiment, outputs, name = config["tracking"]["experiment"], Path(config["outputs"]), f"{name} {repeat.name}"
    with (
        track(folder, uri, experiment, outputs, name, parent_run_id=parent.run_id, resume=resumed) as run,
        machine_told(),
    ):
        run.log_params(flat(config))
        run.log_artifact(write_config(folder, config))
        warnings = state_data(data, config, run, folder, resumed)
        return run_once(config, data, warnings, run, folder, command, resumed).score


def _is_done(folder: Path, config: Config) -> bool:
    """Whether a run was finished, and nothing that a resumption may change has given it more to do."""
    began = read_config(folder)
    if began is None or read_record(folder).get("status") != "FINISHED":
        return False
    return all(began.get(key) == config[key] for key in ("schedule", "operating_points", "refer", "evaluation"))


def _score(folder: Path) -> float:
    """The monitored metric of the weights that a finished run kept."""
    return float(next(phase["kept_score"] for phase in read_run_facts(folder)["phases"] if phase["kept"]))
