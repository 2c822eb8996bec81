"""Train with two processes and with one, and compare: the table of docs/scale.md.

    python scripts/ranks.py [out=ranks.md]

Tiny networks on made-up pictures of 32 x 32 pixels, on the CPU. Two processes have half the batch size, so that their
batches together are those of the one. The table has the largest difference of a parameter (batch norm statistics
included) over the checkpoints of all phases and the bundle, of a loss and of another metric over the epochs, and of a
metric of the test images; and the same between one process on one thread and one on two, which differ by the order in
which they add up.

Words: ``cases=head,vgg`` (some of them), ``launcher=torchrun`` (the two are started by torchrun, not by Lightning),
``work=<new folder>`` (where it works, and what it leaves there, instead of a temporary folder), ``out=<file>.md``,
``precision=64`` (trains in float64, started by torchrun: what is rounding goes away; the bundle, which is float32, is
left out).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cxrnet.models.backbones.registry import backbone_spec

DOUBLE = "float64"  # the first word where this script trains

# What every case has; 3 classes, most images for training, 8 of each 20 for the rest.
COMMON = (
    "data=folder", "data.root=xrays", "data.size=[32,32]", "trainer.accelerator=cpu", "tracking=none", "augment=none",
    "model.dropout=0", "evaluation.resamples=100", "model.weights=weights/${model.backbone}.pt",
)  # fmt: skip
FULL = ("schedule=full", "schedule.max_epochs=4", "schedule.phases.0.lr=0.001", "optimizer=sgd")
HEAD = ("schedule=head", "schedule.max_epochs=8", "schedule.head.solver=gradient", "optimizer=sgd")
CASES: Mapping[str, tuple[str, int, tuple[str, ...]]] = {
    # what is said of it, images a class, words
    "regression": ("frozen backbone, the head fitted at once", 20, ("model=mobilenet_v2", "schedule=head")),
    "head": ("frozen backbone, the head by epochs on its features", 20, ("model=custom_cnn", *HEAD)),
    "views": ("the same, on 3 augmented views", 20, ("model=custom_cnn", *HEAD, "augment=light", "schedule.views=3")),
    "vgg": ("fine-tuning without batch norm (VGG16)", 20, ("model=vgg16", *FULL)),
    "cnn": ("fine-tuning with batch norm (custom CNN)", 20, ("model=custom_cnn", *FULL)),
    "even": ("the same, even last batch", 22, ("model=custom_cnn", *FULL)),
    "augmented": ("custom CNN, augmented", 20, ("model=custom_cnn", *FULL, "augment=light")),
    "weights": (
        "custom CNN, class weights, balanced sampler, L2", 20,
        ("model=custom_cnn", *FULL, "loss.class_weights={a: 2.0}", "data.sampler=balanced", "model.l2=1e-3"),
    ),
    "mobilenet": ("fine-tuning with batch norm (MobileNetV2)", 20, ("model=mobilenet_v2", *FULL)),
}  # fmt: skip


def main(words: list[str]) -> int:
    """Run what the command line names; return the exit status."""
    if {"--help", "-h"} & set(words):
        print(__doc__)
        return 0
    if words[:1] == [DOUBLE]:
        return _train_in_double()
    options = dict(word.partition("=")[::2] for word in words)
    if strange := options.keys() - {"cases", "launcher", "work", "out", "precision"}:
        print(f"ranks: {', '.join(sorted(strange))}: no such word; see --help", file=sys.stderr)
        return 2
    names = options.get("cases", ",".join(CASES)).split(",")
    if unknown := [name for name in names if name not in CASES]:
        print(f"ranks: cases={unknown[0]}: no such case; use {', '.join(CASES)}", file=sys.stderr)
        return 2
    with TemporaryDirectory() as temporary:
        place = Path(options.get("work", temporary))
        place.mkdir(parents=True, exist_ok=True)
        double = options.get("precision") == "64"
        rows = [_row(place, name, double or options.get("launcher") == "torchrun", double) for name in names]
    measured = ("parameter", "loss", "metric", "metric of test")
    columns = ("training", "images (last batch)", *measured, *(f"{each}, rounding" for each in measured))
    lines = [f"| {' | '.join(row)} |" for row in (columns, ("---",) * len(columns), *rows)]
    print("\n".join(lines))
    if "out" in options:
        Path(options["out"]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _train_in_double() -> int:
    """Train as cxrnet.train does, but for the phases, which train in float64."""
    from cxrnet import train

    workflow: Any = import_module("cxrnet.workflows.train")
    run = workflow.run_phases

    def in_double(network: Any, *others: Any) -> Any:  # noqa: ANN401 (as run_phases has it)
        result = run(network.double(), *others)
        network.float()  # which predicts
        return result

    workflow.run_phases = in_double
    sys.argv.pop(1)
    train.main()
    return 0


def _row(place: Path, name: str, torchrun: bool, double: bool) -> tuple[str, ...]:
    """Train by one process, by two, and by one with other rounding, unless ``place`` has these runs; compare."""
    title, images, words = CASES[name]
    top = place / name
    if not top.exists():
        _draw(top / "xrays", images)
        _weights(top / "weights")
    start = (str(Path(__file__).resolve()), DOUBLE) if double else ("-m", "cxrnet.train")
    module, one = (*start, *COMMON, *words), ("trainer=cpu", "data.batch_size=8")
    launched = ("-m", "torch.distributed.run", "--nproc-per-node=2") if torchrun else ()
    _run(top, "one", 1, *module, *one)
    _run(top, "two", 1, *launched, *module, "trainer=ddp", "trainer.devices=2", "data.batch_size=4")
    _run(top, "threads", 2, *module, *one)
    trained = int((pd.read_parquet(top / "one" / "manifest.parquet")["split"] == "train").sum())
    shown = [
        f"{value:.0e}" for other in ("two", "threads") for value in _differences(top / "one", top / other, not double)
    ]
    return title, f"{trained} ({trained % 8 or 8})", *shown


def _differences(one: Path, other: Path, bundle: bool) -> Iterator[float]:
    """Yield the largest difference of a parameter, of a loss, of another metric of an epoch, and of one of test."""
    states, histories, results = [[*_states(run, bundle)] for run in (one, other)], [], []
    pairs = [(a[key], b[key]) for a, b in zip(*states, strict=True) for key in a]
    yield max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())
    for run in (one, other):
        histories.append(pd.read_csv(run / "history.csv").set_index(["phase", "epoch"]))
        results.append(dict(_numbers(json.loads((run / "metrics.json").read_text())["test"])))
    largest = (histories[0] - histories[1]).abs().max()
    yield float(largest[["train/loss", "val/loss"]].max())
    yield float(largest.drop(["train/loss", "val/loss"]).max())
    yield max(abs(results[0][key] - results[1][key]) for key in results[0].keys() & results[1].keys())


def _states(run: Path, bundle: bool) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the states of the last checkpoints of all phases, of the kept ones and of the bundle, if that is asked."""
    for file in sorted(run.glob("checkpoints/*/*.ckpt")):
        yield torch.load(file, weights_only=True)["state_dict"]
    if bundle:
        from cxrnet.models.bundle import load_bundle

        yield load_bundle(run / "bundle").network.state_dict()


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:  # noqa: ANN401 (what JSON may hold)
    """Yield the values (no bounds of confidence intervals) of metrics, by where they stand."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _numbers(each, f"{path}/{name}")
    elif path.endswith("/value") and isinstance(value, int | float):
        yield path, float(value)


def _run(place: Path, name: str, threads: int, *line: str) -> None:
    """Run a training in a folder, on so many threads, unless that was done."""
    if (place / name / "metrics.json").exists():
        return
    environment, command = {**os.environ, "OMP_NUM_THREADS": str(threads)}, [sys.executable, *line]
    command.append(f"hydra.run.dir={name}")
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _draw(root: Path, images: int) -> None:
    """Draw grey pictures of three classes, which a bright band tells apart; the last class has fewer of them."""
    random = np.random.default_rng(0)
    for place, name in enumerate("abc"):
        (root / name).mkdir(parents=True)
        for number in range(images if name != "c" else images - 5):
            image = random.integers(0, 160, (32, 32))
            image[:, place * 10 : place * 10 + 10] += 60
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{number:02d}.png")


def _weights(folder: Path) -> None:
    """Write random weights, which the runs take for pretrained ones."""
    folder.mkdir(parents=True)
    for name in ("custom_cnn", "mobilenet_v2", "vgg16"):
        torch.manual_seed(0)
        torch.save(backbone_spec(name).build((32, 32)).state_dict(), folder / f"{name}.pt")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
