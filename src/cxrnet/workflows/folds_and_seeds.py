"""The same run several times: over the folds of a cross-validation, over seeds, or both. What is asked for.

Each is a run of its own, with a folder of its own, below one parent in MLflow. The parent has the predictions of all
folds, each image by the network that didn't train on it, and the spread of every figure over the runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from cxrnet.core.config import Config, plain_config
from cxrnet.errors import CxrnetError

if TYPE_CHECKING:
    import pandas as pd

    from cxrnet.data.datamodule import XrayDataModule


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


def config_of(config: DictConfig, repeat: Repeat) -> Config:
    """The configuration of one run: its seed in every place that takes it, its fold beside ``folds``."""
    plain = plain_config(OmegaConf.merge(config, {"seed": repeat.seed}))  # type: ignore[arg-type]
    del plain["resume"]
    # All runs share the images, also where a source draws them by the seed.
    plain["data"]["manifest"] = plain_config(config)["data"]["manifest"]
    return {**plain, "fold": repeat.fold}


def resplit_for(data: "XrayDataModule", repeat: Repeat, config: Config) -> "XrayDataModule":
    """The data, split for one run: by its fold, or as ``data.split`` says with its seed.

    Raises:
        CxrnetError: the split is not usable, or has no test images.
    """
    from cxrnet.data.splits import fold_manifest

    if repeat.fold is None or repeat.folds is None:
        split: Callable[[pd.DataFrame], pd.DataFrame] = instantiate(config["data"]["split"])
    else:
        split = partial(
            fold_manifest, folds=repeat.folds, fold=repeat.fold - 1, by=config["folds_by"], seed=repeat.seed
        )
    other = data.resplit(split, repeat.seed, shared=repeat.fold is not None)
    if other.rows("test").empty:
        raise CxrnetError("seeds: the data have no test images to compare runs on; give data.split a test part")
    return other


def _one_device(devices: object) -> bool:
    """Whether ``trainer.devices`` means one: a number of devices, or a list of them."""
    return str(devices) == "1" or (isinstance(devices, list) and len(devices) == 1)
