"""cxrnet itself, by the parts that ``python -m cxrnet.train`` and ``predict`` are made of."""

import os
import shutil
import sys
import time
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

from cxrnet.benchmarking.contenders.instruments import Stopwatch
from cxrnet.benchmarking.contenders.memory import peak_memory, peak_resident
from cxrnet.benchmarking.overrides import override
from cxrnet.cli.app import compose_config
from cxrnet.core.config import Config, plain_config
from cxrnet.core.process import keep_freed_memory
from cxrnet.core.schema import build
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.backbones.weights import load_weights
from cxrnet.training.schedule import Schedule, enabled_phases
from cxrnet.workflows.build import make_data, make_network, train_network
from cxrnet.workflows.settings import Train


def train(overrides: list[str], fresh: bool) -> dict[str, Any]:
    """From image files to a trained network.

    Args:
        overrides: of ``conf/train.yaml``, as a user types them.
        fresh: the cache is emptied before; otherwise the job before this one has filled it.
    """
    config = _composed(overrides, fresh)
    begin = time.perf_counter()
    data = make_data(config["data"])
    ready = time.perf_counter()
    with TemporaryDirectory() as folder:
        clock, numbers = _fit(config, data, Path(folder))
    end = time.perf_counter()
    return {
        "seconds": end - begin,
        "setup_seconds": ready - begin,
        "first_batch_seconds": clock.first_batch - begin,
        "images_per_second": clock.watch.rate,
        "warm_up_seconds": clock.warm_up,
        "waiting_share": clock.waiting_share,
        "images": clock.watch.images[-1],
        **peak_memory(clock.watch.device.type),
        **numbers,
    }


def setup(overrides: list[str], fresh: bool) -> dict[str, Any]:
    """What comes before the first epoch: files are decoded into the store, and split; arguments as in :func:`train`."""
    config = _composed(overrides, fresh)
    begin = time.perf_counter()
    data = make_data(config["data"])
    seconds = time.perf_counter() - begin
    images = len(data.manifest)
    return {"seconds": seconds, "images_per_second": images / seconds, "images": images, "memory_mb": peak_resident()}


def _composed(overrides: list[str], fresh: bool) -> Config:
    keep_freed_memory()  # as every command does
    config = plain_config(compose_config(Train, overrides))
    if fresh and config["cache"] is not None:
        shutil.rmtree(config["cache"], ignore_errors=True)
    return config


def _fit(config: Config, data: XrayDataModule, folder: Path) -> tuple["_Clock", dict[str, Any]]:
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    network, weights = make_network(config["model"], data)
    schedule = build(Schedule, config["schedule"], "schedule")
    phases = enabled_phases(schedule, pretrained=True)  # random weights are as fast
    clock = _Clock()
    _, history = train_network(network, data, phases, schedule, config, folder, callbacks=lambda _phase: [clock])
    last = history.rows[-1]
    return clock, {
        "val_accuracy": last["val_accuracy"],
        "val_loss": last["val_loss"],
        "weights": weights.origin,
    }


class _Clock(Callback):
    """Times the epochs of a phase, and what lies between one step's end and the next one's beginning: the data."""

    def __init__(self) -> None:
        self.watch = Stopwatch(torch.device("cpu"))
        self.first_batch = 0.0
        self._waited: list[float] = []
        self._free = 0.0
        self._seen = 0
        self._begun: list[float] = []

    @property
    def waiting_share(self) -> float:
        """The share of the epochs after the first, or of the only one, that was spent waiting for batches.

        Augmentation counts as waiting. An accelerator may be busy meanwhile, so there it is more than what is lost.
        """
        first = 1 if len(self._waited) > 1 else 0
        return sum(self._waited[first:]) / sum(self.watch.seconds[first:])

    @property
    def warm_up(self) -> float | None:
        """Seconds that the first epoch took beyond the others, validation included; ``None`` if there are no others."""
        first, *others = (end - begin for begin, end in pairwise(self._begun))
        return first - sum(others) / len(others) if others else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watch.device = pl_module.device
        self.watch.start()
        self._begun.append(time.perf_counter())
        self._waited.append(0.0)
        self._free, self._seen = time.perf_counter(), 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.first_batch = self.first_batch or now
        self._waited[-1] += now - self._free
        self._seen += len(batch["label"])

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        if trainer.is_last_batch:
            self.watch.stop(self._seen)
        self._free = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun.append(time.perf_counter())


def find_weights(backbone: str, weights: str, size: list[int]) -> dict[str, Any]:
    """Where the weights of a backbone come from."""
    shape = (size[0], size[1])
    found = load_weights(backbone_spec(backbone).build(shape), backbone, weights, shape)
    return {"origin": found.origin, "detail": found.detail}


def write_bundle(folder: str, backbone: str, weights: str, size: list[int]) -> dict[str, Any]:
    """Write a bundle of a network that nobody trained."""
    from cxrnet.benchmarking.contenders.start import starting_network
    from cxrnet.core.provenance import package_versions
    from cxrnet.models.bundle import Bundle, save_bundle

    network = starting_network(backbone, weights, "all", size, classes=4)
    save_bundle(Bundle(network, "stretch", 1.0, {}, "none", package_versions(), {}), folder)
    return {}


def predict(bundle: str, images: str, output: str, batch_size: int, device: str) -> dict[str, Any]:
    """``python -m cxrnet.predict`` on a folder, from its configuration to the last line of its file."""
    import cxrnet.inference  # noqa: F401 (what a start costs is measured elsewhere)
    from cxrnet.predict import main

    Path(output).unlink(missing_ok=True)
    words = {"bundle": bundle, "input": images, "output": output, "batch_size": batch_size, "device": device}
    sys.argv[1:] = [override(name, value) for name, value in words.items()]
    begin = time.perf_counter()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        main()
    seconds = time.perf_counter() - begin
    predicted = len(pd.read_csv(output))
    return {
        "seconds": seconds,
        "images_per_second": predicted / seconds,
        "images": predicted,
        **peak_memory(device),
    }
