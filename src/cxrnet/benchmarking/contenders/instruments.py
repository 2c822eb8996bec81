"""Clocks that every contender made of torch uses."""

import time
from dataclasses import dataclass, field

import torch


def synchronise(device: torch.device) -> None:
    """Wait until the accelerator has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@dataclass
class Stopwatch:
    """How long the epochs of a training took, validation left out.

    Attributes:
        device: that trains.
        seconds: of each epoch, from asking for its first batch to the end of its last step.
        images: of each epoch.
    """

    device: torch.device
    seconds: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    _start: float = 0.0

    def start(self) -> None:
        """An epoch begins."""
        synchronise(self.device)
        self._start = time.perf_counter()

    def stop(self, images: int) -> None:
        """The last step of an epoch was done, with so many images in all its batches."""
        synchronise(self.device)
        self.seconds.append(time.perf_counter() - self._start)
        self.images.append(images)

    @property
    def rate(self) -> float:
        """Images a second, the first epoch left out as warm-up if there are others."""
        first = 1 if len(self.seconds) > 1 else 0
        return sum(self.images[first:]) / sum(self.seconds[first:])
