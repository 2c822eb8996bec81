"""Parts of several contenders: the task that they are given, a stopwatch, the peak memory; without torch."""

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """A training, or passes through a network, that every contender does in its way."""

    backbone: str  # by cxrnet's name
    size: list[int]  # height and width in pixels
    batch_size: int
    device: str  # cpu | cuda
    root: str = ""  # folder with train/<class>/* and val/<class>/*
    weights: str = "none"  # as model.weights of cxrnet.train
    trainable: Any = "all"  # as in a phase of cxrnet.train
    augment: bool = True  # flips and small affine maps
    epochs: int = 2
    steps: int | None = None  # most steps of an epoch, with one validation batch; None: all images
    lr: float = 1e-4  # of Adam
    bf16: bool = False  # forward passes under autocast to bfloat16
    channels_last: bool = False  # memory layout
    seed: int = 0


@dataclass
class Stopwatch:
    """Seconds and images of each epoch of a training, without its validation."""

    device: str
    seconds: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    _start: float = 0.0

    def start(self) -> None:
        """Begin an epoch."""
        synchronise(self.device)
        self._start = time.perf_counter()

    def stop(self, images: int) -> None:
        """End an epoch, in which so many images were trained on."""
        synchronise(self.device)
        self.seconds.append(time.perf_counter() - self._start)
        self.images.append(images)

    @property
    def rate(self) -> float:
        """Images a second, without the first epoch as warm-up if there are others."""
        first = 1 if len(self.seconds) > 1 else 0
        return sum(self.images[first:]) / sum(self.seconds[first:])


def synchronise(device: str) -> None:
    """Wait until the accelerator has done what it was told."""
    if device != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def peak_memory(device: str = "cpu") -> dict[str, float]:
    """Read the peak memory of this process in MB: ``memory_mb`` with mapped files, on CUDA ``device_memory_mb`` too."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage begins with the memory of the process that started this one
        lines = status.read_text(encoding="utf-8").splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
    else:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1000)
    if device != "cuda":
        return {"memory_mb": resident}
    import torch

    return {"memory_mb": resident, "device_memory_mb": torch.cuda.max_memory_reserved() / 1e6}
