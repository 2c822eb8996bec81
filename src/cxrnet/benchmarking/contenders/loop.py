"""The training loop that people write in PyTorch: what the plain loop and timm's share."""

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cxrnet.benchmarking.contenders.instruments import Stopwatch

Batches = Iterable[tuple[Tensor, Tensor]]


def fit(
    network: nn.Module,
    train: Batches,
    val: Batches,
    optimizer: Optimizer,
    device: torch.device,
    epochs: int,
    steps: int | None,
    bf16: bool,
    channels_last: bool,
) -> tuple[Stopwatch, float]:
    """Train, with a look at the validation images after every epoch.

    Args:
        network: on the device, in the layout.
        train: batches of images and labels; iterated once an epoch.
        val: the same of the validation images.
        optimizer: of the network's trainable parameters.
        device: that trains.
        epochs: to train.
        steps: of an epoch at most, and one validation batch; ``None`` takes all.
        bf16: forward passes under autocast to bfloat16.
        channels_last: layout of the images.

    Returns:
        The clock, and the share of the validation images that are right in the end.
    """
    watch, loss_of = Stopwatch(device), nn.CrossEntropyLoss()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    accuracy = 0.0
    for _ in range(epochs):
        network.train()
        seen = 0
        watch.start()
        for images, labels in islice(train, steps):
            images, labels = images.to(device, memory_format=layout), labels.to(device)  # noqa: PLW2901
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = loss_of(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
        watch.stop(seen)
        accuracy = _accuracy(network, islice(val, steps and 1), device, layout)
    return watch, accuracy


@torch.no_grad()
def _accuracy(network: nn.Module, batches: Batches, device: torch.device, layout: torch.memory_format) -> float:
    network.eval()
    right = [
        (network(images.to(device, memory_format=layout)).argmax(1).cpu() == labels.cpu()) for images, labels in batches
    ]
    return float(torch.cat(right).float().mean())
