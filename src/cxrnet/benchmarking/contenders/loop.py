"""The training loop that people write in PyTorch: what the plain loop and timm's share."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cxrnet.benchmarking.contenders.instruments import Stopwatch
from cxrnet.benchmarking.contenders.memory import peak_memory
from cxrnet.models.settings import Trainable

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Training:
    """What a loop is asked to do.

    Attributes:
        root: has ``train/<class>/`` and ``val/<class>/``.
        backbone: by cxrnet's name.
        trainable: as a phase has it.
        size: height and width.
        batch_size: images a step.
        augment: flips and small affine maps.
        epochs: to train.
        steps: of an epoch at most, and one validation batch; ``None`` takes all.
        lr: of Adam.
        bf16: forward passes under autocast to bfloat16.
        channels_last: layout of network and images.
        seed: of everything that is drawn.
        device: that trains.
    """

    root: str
    backbone: str
    trainable: Trainable
    size: list[int]
    batch_size: int
    augment: bool
    epochs: int
    steps: int | None
    lr: float
    bf16: bool
    channels_last: bool
    seed: int
    device: str

    @property
    def layout(self) -> torch.memory_format:
        """As torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


@dataclass(frozen=True)
class Parts:
    """What a contender makes itself.

    Attributes:
        network: frozen as it is asked for.
        train: batches of images and labels; iterated once an epoch.
        val: the same of the validation images.
        optimizer: makes one of the network, on its device.
    """

    network: nn.Module
    train: Batches
    val: Batches
    optimizer: Callable[[nn.Module], Optimizer]


def run(task: Training, make: Callable[[Training], Parts]) -> dict[str, Any]:
    """From image files to a trained network, with a look at the validation images after every epoch."""
    torch.manual_seed(task.seed)
    begin = time.perf_counter()
    parts = make(task)
    network = parts.network.to(task.device).to(memory_format=task.layout)
    watch, accuracy = fit(network, parts.train, parts.val, parts.optimizer(network), task)
    return {
        "seconds": time.perf_counter() - begin,
        "images_per_second": watch.rate,
        "images": watch.images[-1],
        "val_accuracy": accuracy,
        **peak_memory(task.device),
    }


def fit(
    network: nn.Module, train: Batches, val: Batches, optimizer: Optimizer, task: Training
) -> tuple[Stopwatch, float]:
    """Train a network that is on the device, in the layout.

    Returns:
        The clock, and the share of the validation images that are right in the end.
    """
    device = torch.device(task.device)
    watch, loss_of, accuracy = Stopwatch(device), nn.CrossEntropyLoss(), 0.0
    for _ in range(task.epochs):
        network.train()
        seen = 0
        watch.start()
        for images, labels in islice(train, task.steps):
            images, labels = images.to(device, memory_format=task.layout), labels.to(device)  # noqa: PLW2901
            with torch.autocast(device.type, torch.bfloat16, enabled=task.bf16):
                loss = loss_of(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
        watch.stop(seen)
        accuracy = _accuracy(network, islice(val, task.steps and 1), device, task.layout)
    return watch, accuracy


@torch.no_grad()
def _accuracy(network: nn.Module, batches: Batches, device: torch.device, layout: torch.memory_format) -> float:
    network.eval()
    right = [
        (network(images.to(device, memory_format=layout)).argmax(1).cpu() == labels.cpu()) for images, labels in batches
    ]
    return float(torch.cat(right).float().mean())
