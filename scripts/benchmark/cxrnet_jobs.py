"""cxrnet itself, by the parts of ``python -m cxrnet.train`` and ``predict``, and the machine."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from shared import Stopwatch, Task, peak_memory

from cxrnet.cli.app import compose_config, config_folder
from cxrnet.cli.command_line import REFUSALS, explain
from cxrnet.core.config import Config, plain_config
from cxrnet.core.machine import package_versions
from cxrnet.core.process import keep_freed_memory
from cxrnet.core.schema import build
from cxrnet.data.images.reader import processors
from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.registry import backbone_spec
from cxrnet.models.backbones.weights import load_weights
from cxrnet.models.bundle import Bundle, device_of, save_bundle
from cxrnet.training.phases import run_phases
from cxrnet.workflows.build import make_data, make_network, make_training
from cxrnet.workflows.settings import Train


def train(fresh: bool, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of `composed`)
    """Train from image files; ``fresh`` empties the cache first, else an earlier job has filled it."""
    keep_freed_memory()  # as every command does
    config = composed(fresh, **settings)
    begin = time.perf_counter()
    data = make_data(config["data"])
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    network, _ = make_network(config["model"], data)
    clock = _Clock()
    with TemporaryDirectory() as folder:
        training = make_training(config, data, pretrained=True, folder=Path(folder))  # random weights are as fast
        _, history = run_phases(network, data, training.with_callbacks(lambda _phase: [clock]))
    return {
        "seconds": time.perf_counter() - begin,
        "images_per_second": clock.watch.rate,
        "images": clock.watch.images[-1],
        "warm_up_seconds": clock.warm_up,
        "waiting_share": clock.waiting_share,
        "val_accuracy": history.rows[-1]["val/accuracy"],
        "val_loss": history.rows[-1]["val/loss"],
        **peak_memory(clock.watch.device),
    }


def setup(fresh: bool, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of `composed`)
    """Do what comes before the first epoch: decode files into the store, search for duplicates, split."""
    keep_freed_memory()
    config = composed(fresh, **settings)
    begin = time.perf_counter()
    images = len(make_data(config["data"]).manifest)
    seconds = time.perf_counter() - begin
    rates = {"images_per_second": images / seconds, "ms_per_image": 1000 * seconds / images}
    return {"seconds": seconds, **rates, "images": images, **peak_memory()}


def composed(
    fresh: bool,
    cache: str,
    views: int,
    features_gb: float,
    compiled: bool,
    overrides: Sequence[str],
    **task: Any,  # noqa: ANN401
) -> Config:
    """Compose and check the configuration of ``cxrnet.train``: a linear head, plain cross-entropy, Adam, one phase.

    ``fresh`` empties the cache; ``overrides`` are further words of the user, ``task`` is a :class:`shared.Task`, and
    the others are keys of ``cxrnet.train``.

    Raises:
        CxrnetError: the user's words won't do.
    """
    asked = Task(**task)
    trainable = asked.trainable if isinstance(asked.trainable, str) else f"{{last: {asked.trainable['last']}}}"
    phase = f"{{name: benchmark, trainable: {trainable}, epochs: {asked.epochs}, lr: {asked.lr}, solver: gradient}}"
    device = {"cpu": "cpu", "cuda": "gpu"}.get(asked.device, "auto")
    words = [
        "data=folder", quoted("data.root", asked.root), f"data.size={asked.size}",
        f"data.batch_size={asked.batch_size}", f"model={asked.backbone}", "model.hidden=[]", "model.dropout=0.2",
        quoted("model.weights", asked.weights), "loss.class_weights=none", "schedule=head", "schedule.head=null",
        f"schedule.phases=[{phase}]", f"schedule.views={views}", f"schedule.features_gb={features_gb}",
        f"compile={str(compiled).lower()}", f"trainer={device}",
        f"trainer.precision={'bf16-mixed' if asked.bf16 else '32-true'}", f"seed={asked.seed}", quoted("cache", cache),
        *(["augment=light", "augment.flip=0.5"] if asked.augment else ["augment=none"]), *overrides,
    ]  # fmt: skip
    try:
        config = plain_config(compose_config(Train, words))
    except REFUSALS as error:
        raise CxrnetError(explain(error, config_folder(), "train", words)) from error
    build(Train, config)
    if asked.steps:  # which a user may not limit
        config["trainer"] |= {"limit_train_batches": asked.steps, "limit_val_batches": 1}
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
    return config


def check(tasks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Refuse the user's words where a job would: it may be hours until it comes.

    Raises:
        CxrnetError: they won't do.
    """
    for task in tasks:
        if taken := [word for word in task["overrides"] if word.lstrip("+~").startswith(("cache", "data.cache"))]:
            raise CxrnetError(f"'{taken[0]}' can't be given; each job has a cache of its own")  # which it empties
        composed(**{**task, "fresh": False})
    return {}


def quoted(name: str, value: str) -> str:
    """Write an override whose value may hold anything, as a path does."""
    text = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{text}'"


class _Clock(Callback):
    """Times the epochs of a phase, and the waiting between one step's end and the next one's beginning."""

    def __init__(self) -> None:
        self.watch = Stopwatch("cpu")
        self._waited: list[float] = []
        self._begun: list[float] = []
        self._free = 0.0
        self._seen = 0

    @property
    def waiting_share(self) -> float:
        """The share of the epochs after the first, or of the only one, that was spent waiting for batches.

        Augmentation counts as waiting. An accelerator may be busy meanwhile; there it is more than what is lost.
        """
        first = 1 if len(self._waited) > 1 else 0
        return sum(self._waited[first:]) / sum(self.watch.seconds[first:])

    @property
    def warm_up(self) -> float | None:
        """Seconds that the first epoch took beyond the others, validation included; ``None`` if there are no others."""
        first, *others = (end - begin for begin, end in pairwise(self._begun))
        return first - sum(others) / len(others) if others else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watch.device = pl_module.device.type
        self.watch.start()
        self._begun.append(time.perf_counter())
        self._waited.append(0.0)
        self._free, self._seen = time.perf_counter(), 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> None:
        self._waited[-1] += time.perf_counter() - self._free
        self._seen += len(batch["label"])

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        if trainer.is_last_batch:
            self.watch.stop(self._seen)
        self._free = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun.append(time.perf_counter())


def write_bundle(folder: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Write a bundle of an untrained network."""
    from torch_jobs import CLASSES, starting_network

    network = starting_network(Task(**settings), CLASSES)
    save_bundle(Bundle(network, "stretch", 1.0, {}, "none", package_versions(), {}), folder)
    return {}


def predict(bundle: str, images: str, output: str, batch_size: int, device: str) -> dict[str, Any]:
    """Run ``python -m cxrnet.predict`` on a folder, from its configuration to the last line of its file."""
    import cxrnet.inference  # noqa: F401 (what a start costs is measured elsewhere)
    from cxrnet.predict import main

    Path(output).unlink(missing_ok=True)
    paths = [quoted("bundle", bundle), quoted("input", images), quoted("output", output)]
    sys.argv[1:] = [*paths, f"batch_size={batch_size}", f"device={device}"]
    begin = time.perf_counter()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        main()
    seconds = time.perf_counter() - begin
    predicted = len(pd.read_csv(output))
    return {
        "seconds": seconds, "images_per_second": predicted / seconds, "images": predicted, **peak_memory(device)
    }  # fmt: skip


def find_weights(backbone: str, weights: str, size: list[int]) -> dict[str, Any]:
    """Tell where the weights of a backbone come from."""
    shape = (size[0], size[1])
    found = load_weights(backbone_spec(backbone).build(shape), backbone, weights, shape)
    return {"origin": found.origin, "detail": found.detail}


def machine(device: str) -> dict[str, Any]:
    """Describe processor, memory, accelerator and versions; ``device`` as in the options."""
    chosen = device_of(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "device": chosen.type,
        "accelerator": torch.cuda.get_device_name() if chosen.type == "cuda" else None,
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": processors(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "versions": package_versions(),
    }
