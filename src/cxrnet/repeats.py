"""The same run several times: over the folds of a cross-validation, over seeds, or both.

Each is a run of its own, with a folder of its own, below one parent in MLflow. The parent has the predictions of all
folds, each image by the network that didn't train on it, and the spread of every figure over the runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from cxrnet import console
from cxrnet.audit.statement import leak_statement
from cxrnet.configuration import Config, flat, plain_config, write_config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.manifest import write_manifest
from cxrnet.data.splits import fold_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import read_predictions
from cxrnet.results import Results, figures_of, flat_metrics, write_results
from cxrnet.resume import check_same_data
from cxrnet.single_run import Outcome, run_once
from cxrnet.summary import say_data, say_spread
from cxrnet.tracking.record import RECORD, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.tracked import TrackedRun
from cxrnet.training.baselines import baseline_predictions


@dataclass(frozen=True)
class Repeat:
    """One of the runs.

    Attributes:
        seed: of everything in it.
        fold: which part is its test split, from 0; ``None`` keeps the split of the configuration.
        folds: of the cross-validation.
    """

    seed: int
    fold: int | None
    folds: int | None

    @property
    def name(self) -> str:
        """``seed0_fold1of5``, ``seed2``; folds are counted from 1 here."""
        return f"seed{self.seed}" + (f"_fold{self.fold + 1}of{self.folds}" if self.fold is not None else "")


def check_repeats(config: Config) -> list[Repeat]:
    """What ``folds`` and ``seeds`` ask for; nothing where neither is given.

    Raises:
        CxrnetError: one of them is not usable, or the trainer uses several devices.
    """
    folds, seeds = config["folds"], config["seeds"]
    if folds is None and seeds is None:
        return []
    if str(config["trainer"].get("strategy", "")).startswith("ddp"):
        raise CxrnetError("trainer: folds and seeds can't train on several devices; use one, as trainer=gpu")
    if folds is not None and (isinstance(folds, bool) or not isinstance(folds, int) or folds < 3):
        raise CxrnetError(f"folds: {folds}; give a whole number from 3 on (one part is test, one val, the rest train)")
    seeds = [config["seed"]] if seeds is None else seeds
    whole = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise CxrnetError(f"seeds: {seeds}; give a list of different whole numbers from 0 on, as [0,1,2]")
    return [Repeat(seed, fold, folds) for seed in seeds for fold in (range(folds) if folds else [None])]


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

    A run that was finished before, in a folder that is resumed, is not done again.

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
    """
    scores, figures, tests, baselines = [], [], [], []
    for repeat in repeats:
        plain = _config_of(config, repeat)
        parts = data.resplit(_split_of(plain, repeat), repeat.seed)
        score = _run_child(repeat, plain, parts, run, folder / repeat.name, name, command, uri)
        test = read_predictions(folder / repeat.name / "predictions.parquet").query("split == 'test'")
        if test.empty:
            raise CxrnetError("seeds: the data have no test images to compare runs on; give data.split a test part")
        scores.append(score)
        figures.append({"seed": repeat.seed, "fold": repeat.fold, **figures_of(evaluate(test))})
        if repeat.seed == repeats[0].seed:
            tests.append(test.assign(fold=repeat.fold))
            baselines.append(baseline_predictions(parts, "test"))
    pooled = {key: pd.concat([each[key] for each in baselines], ignore_index=True) for key in baselines[0]}
    results = write_results(folder, pd.concat(tests, ignore_index=True), pooled, data.classes)
    spread = pd.DataFrame(figures)
    _write_spread(spread, folder, run, results)
    say_spread(spread)
    return Outcome(sum(scores) / len(scores), results, _pooled_warnings(repeats))


def _config_of(config: DictConfig, repeat: Repeat) -> Config:
    """The configuration of one run, its seed in every place that takes it."""
    plain = plain_config(OmegaConf.merge(config, {"seed": repeat.seed, "folds": None, "seeds": None, "resume": None}))  # type: ignore[arg-type]
    del plain["resume"]
    return plain


def _split_of(config: Config, repeat: Repeat) -> Callable[[pd.DataFrame], pd.DataFrame]:
    if repeat.fold is None or repeat.folds is None:
        split: Callable[[pd.DataFrame], pd.DataFrame] = instantiate(config["data"]["split"])
        return split
    return partial(fold_manifest, folds=repeat.folds, fold=repeat.fold, seed=repeat.seed)


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
    console.heading(repeat.name)
    resumed = (folder / RECORD).is_file()
    if resumed:
        check_same_data(folder, data.manifest)
        if read_record(folder).get("status") == "FINISHED":
            console.say("done", "before this run was resumed")
            return _score(folder, config["schedule"])
    tracking = config["tracking"]
    warnings = leak_statement(data.manifest)
    with track(
        folder,
        uri,
        tracking["experiment"],
        Path(config["outputs"]),
        f"{name}_{repeat.name}",
        parent_run_id=parent.run_id,
        resume=resumed,
    ) as run:
        run.log_params({**flat(config), "fold": repeat.fold})
        run.log_artifact(write_config(folder, config))
        write_manifest(data.manifest, folder / "manifest.parquet")
        say_data(data, warnings)
        return run_once(config, data, warnings, run, folder, command, resumed).score


def _score(folder: Path, schedule: Config) -> float:
    """The monitored metric of the weights that a finished run kept: the best of all epochs."""
    scores = pd.read_csv(folder / "history.csv")[schedule["monitor"]]
    return float(scores.min() if schedule["mode"] == "min" else scores.max())


def _write_spread(spread: pd.DataFrame, folder: Path, run: TrackedRun, results: Results) -> None:
    spread.to_csv(folder / "repeats.csv", index=False)
    values = spread.drop(columns=["seed", "fold"])
    moments = {f"mean_test_{name}": value for name, value in values.mean().items()}
    moments |= {f"sd_test_{name}": value for name, value in values.std().dropna().items()}  # none of a single run
    run.log_metrics({**flat_metrics(results), **moments}, 0)
    run.log_results(folder)


def _pooled_warnings(repeats: Sequence[Repeat]) -> list[str]:
    seed = repeats[0].seed
    if repeats[0].fold is None:
        return [f"the table above is of seed {seed} alone; the spread over seeds is in repeats.csv"]
    others = "" if all(repeat.seed == seed for repeat in repeats) else f" of seed {seed}"
    return [f"the table above pools the test predictions of all folds{others}, each image by the network of its fold"]
