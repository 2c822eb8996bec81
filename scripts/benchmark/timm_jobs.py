"""timm: a loop of its parts, as its ``train.py`` puts them together, its step, and its own ``benchmark.py``."""

import json
import runpy
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
from shared import Task, peak_memory
from timm.data import create_dataset, create_loader  # type: ignore[attr-defined]  # nothing there says that it is exported
from timm.models import create_model
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn
from torch_jobs import CLASSES, WARM_UP, WORKERS, from_files, resident_steps

NAMES = {"mobilenet_v2": "mobilenetv2_100"}  # where timm's name is another one
FEWEST = 5  # steps of benchmark.py: it prints its progress five times, and divides by what lies between


def train(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Train from image files, from random weights; ``trainable`` is head or all."""
    task, begin = Task(**settings), time.perf_counter()
    torch.manual_seed(task.seed)
    torch.backends.cudnn.benchmark = task.device == "cuda"
    train, val = (_loader(task, split) for split in ("train", "val"))
    network = _network(task, len(train.dataset.reader.class_to_idx))
    if task.trainable == "head":
        network.requires_grad_(False)
        head: nn.Module = network.get_classifier()  # type: ignore[operator]
        head.requires_grad_(True)
    return from_files(task, begin, network, train, val, lambda of: create_optimizer_v2(of, opt="adam", lr=task.lr))


def _network(task: Task, classes: int) -> nn.Module:
    return create_model(NAMES.get(task.backbone, task.backbone), pretrained=False, num_classes=classes)


def _loader(task: Task, split: str) -> Any:  # noqa: ANN401 (a loader, or timm's own around one)
    training, device = split == "train", torch.device(task.device)
    return create_loader(
        create_dataset("", root=task.root, split=split, is_training=training),
        (3, task.size[0], task.size[1]),
        task.batch_size,
        is_training=training,
        no_aug=training and not task.augment,
        scale=(0.9, 1.0),
        color_jitter=0.0,
        num_workers=WORKERS,
        device=device,
        use_prefetcher=device.type == "cuda",  # which it is for
        persistent_workers=training and WORKERS > 0,
    )


def step(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Do the step of timm's ``benchmark.py --bench train``: its model and its optimizer (SGD) on one random batch."""
    task = Task(**settings)
    return resident_steps(task, _network(task, CLASSES), lambda of: create_optimizer_v2(of, opt="sgd", lr=1e-4))


def script(file: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Run timm's own ``benchmark.py --bench train`` on the same network, batch, layout and precision."""
    task = Task(**settings)
    sys.argv = [file, *script_words(task)]
    with redirect_stdout(StringIO()) as said:
        runpy.run_path(file, run_name="__main__")
    return {"images_per_second": script_rate(said.getvalue(), task), **peak_memory(task.device)}


def script_words(task: Task) -> list[str]:
    """Return the arguments of ``benchmark.py``; older ones know no ``--device``, and take CUDA."""
    height, width = task.size
    return [
        "--bench", "train", "--model", NAMES.get(task.backbone, task.backbone), "--batch-size", str(task.batch_size),
        "--input-size", "3", str(height), str(width), "--num-classes", str(CLASSES),
        "--num-warm-iter", str(WARM_UP), "--num-bench-iter", str(max(FEWEST, task.steps or 1)),
        *(["--channels-last"] if task.channels_last else []),
        *(["--amp", "--amp-dtype", "bfloat16"] if task.bf16 else []),
        *(["--device", task.device] if task.device != "cuda" else []),
    ]  # fmt: skip


def script_rate(said: str, task: Task) -> float:
    """Read images a second from the JSON behind ``--result``.

    Raises:
        RuntimeError: the script failed, or took smaller batches because of the memory.
    """
    result = json.loads(said.rpartition("--result")[2])
    if "error" in result:
        raise RuntimeError(f"timm's benchmark.py: {result['error']}")
    if result["train_batch_size"] != task.batch_size:
        raise RuntimeError(
            f"timm's benchmark.py took batches of {result['train_batch_size']} images, for want of memory; "
            f"give a batch_size below {task.batch_size}"
        )
    return float(result["train_samples_per_sec"])
