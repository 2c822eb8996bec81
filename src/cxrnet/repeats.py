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
from cxrnet.configuration import Config, flat, plain_config, read_config, write_config
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.leaks import seen_before
from cxrnet.data.splits import fold_manifest
from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import read_predictions
from cxrnet.evaluation.report import thumbnail_verdict
from cxrnet.results import Results, figures_of, flat_metrics, write_results
from cxrnet.resume import check_same_data
from cxrnet.single_run import Outcome, run_once
from cxrnet.stating import data_warnings, state_data
from cxrnet.summary import say_spread
from cxrnet.tracking.record import RECORD, read_record
from cxrnet.tracking.run import track
from cxrnet.tracking.tracked import TrackedRun
from cxrnet.training.baselines import baseline_predictions

PREDICTIONS = "predictions.parquet"


@dataclass(frozen=True)
class Repeat:
    """One of the runs.

    Attributes:
        seed: of everything in it.
        fold: which part is its test split, from 1; ``None`` keeps the split of the configuration.
        folds: of the cross-validation.
    """

    seed: int
    fold: int | None
    folds: int | None

    @property
    def name(self) -> str:
        """``seed0_fold1of5``, ``seed2``."""
        return f"seed{self.seed}" + (f"_fold{self.fold}of{self.folds}" if self.folds else "")


def check_repeats(config: Config) -> list[Repeat]:
    """What ``folds`` and ``seeds`` ask for; nothing where neither is given.

    Raises:
        CxrnetError: one of them is not usable, or the trainer uses several devices.
    """
    folds, seeds = config["folds"], config["seeds"]
    if folds is None and seeds is None:
        return []
    if not _one_device(config["trainer"]["devices"]):
        # Lightning starts the other processes with the command line of all runs.
        raise CxrnetError("trainer: folds and seeds can't train on several devices; give trainer.devices=1")
    if folds is not None and (type(folds) is not int or folds < 3):
        raise CxrnetError(f"folds: {folds}; give a whole number from 3 on (one part is test, one val, the rest train)")
    seeds = [config["seed"]] if seeds is None else seeds
    whole = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise CxrnetError(f"seeds: {seeds}; give a list of different whole numbers from 0 on, as [0,1,2]")
    return [Repeat(seed, fold, folds) for seed in seeds for fold in (range(1, folds + 1) if folds else [None])]


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
    scores, tests = [], []
    for repeat, plain, part in zip(repeats, configs, parts, strict=True):
        child = folder / repeat.name
        scores.append(_run_child(repeat, plain, part, run, child, name, command, uri))
        tests.append(read_predictions(child / PREDICTIONS).query("split == 'test'"))
    spread = pd.DataFrame(
        {"seed": repeat.seed, "fold": repeat.fold, **figures_of(evaluate(test))}
        for repeat, test in zip(repeats, tests, strict=True)
    )
    first = sum(repeat.seed == repeats[0].seed for repeat in repeats)  # as many runs, and they come first
    results = _pool(repeats[:first], parts[:first], tests[:first], folder, configs[0]["evaluation"])
    _write_spread(spread, folder, run, results)
    say_spread(spread)
    return Outcome(sum(scores) / len(scores), results, _warnings(repeats, parts[:first], configs[0], results))


def config_of(config: DictConfig, repeat: Repeat) -> Config:
    """The configuration of one run: its seed in every place that takes it, its fold beside ``folds``."""
    plain = plain_config(OmegaConf.merge(config, {"seed": repeat.seed}))  # type: ignore[arg-type]
    del plain["resume"]
    # All runs share the images, also where a source draws them by the seed.
    plain["data"]["manifest"] = plain_config(config)["data"]["manifest"]
    return {**plain, "fold": repeat.fold}


def resplit_for(data: XrayDataModule, repeat: Repeat, config: Config) -> XrayDataModule:
    """The data, split for one run: by its fold, or as ``data.split`` says with its seed.

    Raises:
        CxrnetError: the split is not usable, or has no test images.
    """
    if repeat.fold is None or repeat.folds is None:
        split: Callable[[pd.DataFrame], pd.DataFrame] = instantiate(config["data"]["split"])
    else:
        split = partial(
            fold_manifest, folds=repeat.folds, fold=repeat.fold - 1, by=config["folds_by"], seed=repeat.seed
        )
    other = data.resplit(split, repeat.seed)
    if other.rows("test").empty:
        raise CxrnetError("seeds: the data have no test images to compare runs on; give data.split a test part")
    return other


def _one_device(devices: object) -> bool:
    """Whether ``trainer.devices`` means one: a number of devices, or a list of them."""
    return str(devices) == "1" or (isinstance(devices, list) and len(devices) == 1)


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
        return _score(folder, config["schedule"])
    resumed = (folder / RECORD).is_file()
    experiment, outputs, name = config["tracking"]["experiment"], Path(config["outputs"]), f"{name}_{repeat.name}"
    with track(folder, uri, experiment, outputs, name, parent_run_id=parent.run_id, resume=resumed) as run:
        run.log_params(flat(config))
        run.log_artifact(write_config(folder, config))
        warnings = state_data(data, config, run, folder, resumed)
        return run_once(config, data, warnings, run, folder, command, resumed).score


def _is_done(folder: Path, config: Config) -> bool:
    """Whether a run was finished, and nothing that a resumption may change has given it more to do."""
    began = read_config(folder)
    if began is None or read_record(folder).get("status") != "FINISHED":
        return False
    return all(began.get(key) == config[key] for key in ("schedule", "operating_points", "evaluation"))


def _score(folder: Path, schedule: Config) -> float:
    """The monitored metric of the weights that a finished run kept: the best of all epochs."""
    scores = pd.read_csv(folder / "history.csv")[schedule["monitor"]]
    return float(scores.min() if schedule["mode"] == "min" else scores.max())


def _pool(
    repeats: Sequence[Repeat],
    parts: Sequence[XrayDataModule],
    tests: Sequence[pd.DataFrame],
    folder: Path,
    settings: Config,
) -> Results:
    """The results on the test images of several folds, or of a single run."""
    if repeats[0].fold is not None:
        tests = [test.assign(fold=repeat.fold) for repeat, test in zip(repeats, tests, strict=True)]
    baselines = [baseline_predictions(part, "test") for part in parts]
    return write_results(
        folder,
        pd.concat(tests, ignore_index=True),
        {name: pd.concat([each[name] for each in baselines], ignore_index=True) for name in baselines[0]},
        parts[0].classes,
        settings,
        seen=[image for part in parts for image in seen_before(part.manifest, "test")],
    )


def _write_spread(spread: pd.DataFrame, folder: Path, run: TrackedRun, results: Results) -> None:
    spread.to_csv(folder / "repeats.csv", index=False)
    values = spread.drop(columns=["seed", "fold"])
    moments = {f"mean_test_{name}": value for name, value in values.mean().items()}
    moments |= {f"sd_test_{name}": value for name, value in values.std().dropna().items()}  # none of a single run
    run.log_metrics({**flat_metrics(results), **moments}, 0)
    run.log_results(folder)


def _warnings(
    repeats: Sequence[Repeat], parts: Sequence[XrayDataModule], config: Config, results: Results
) -> list[str]:
    """What must be known of the pooled results: what they are of, and what is to be known of their data."""
    seed, seeds = repeats[0].seed, {repeat.seed for repeat in repeats}
    if repeats[0].fold is None:
        of = f"the table above is of seed {seed} alone; the spread over seeds is in repeats.csv"
    else:
        of_seed = f" of seed {seed}" if len(seeds) > 1 else ""
        of = f"the table above pools the test predictions of all folds{of_seed}, each image by the network of its fold"
    warnings = [of, *dict.fromkeys(text for part in parts for text in data_warnings(part, config))]
    verdict = thumbnail_verdict(results.metrics["test"], results.baselines["thumbnail"])
    return [*warnings, verdict] if verdict else warnings
