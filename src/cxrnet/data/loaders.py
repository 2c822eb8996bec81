"""Loaders of both data modules, and the order of the training images.

The order is a function of seed and epoch alone: a resumed run sees the batches that the run would have seen.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from cxrnet.data.settings import Draw
from cxrnet.errors import CxrnetError

Batch = dict[str, Tensor]


class Labelled(Protocol):
    """Data set of whole batches; ``labels`` are (N,) int64."""

    labels: Tensor

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> Batch: ...


class EpochSampler(Sampler[int]):
    """Indices of the training images, in another order in every epoch.

    Lightning calls :meth:`set_epoch` before every epoch, also of a resumed run. In distributed training each process
    gets as many indices, and no place of the epoch's order goes to two of them; what is left over after sharing waits
    for another epoch.

    Args:
        labels: (N,) int64.
        draw: ``shuffle``: every image once an epoch. ``balanced``: N images with replacement, every class equally
            likely, every image of a class too.
        seed: of the order, together with the epoch.
        processes: that share an epoch.
        rank: of this process, from 0.

    Raises:
        CxrnetError: there are not two images for each process: one has no variance, and batch norm fails on it.
    """

    def __init__(self, labels: Tensor, draw: Draw, seed: int, processes: int = 1, rank: int = 0) -> None:
        if processes > 1 and len(labels) < 2 * processes:
            raise CxrnetError(
                f"trainer.devices: {len(labels)} training images can't be shared by {processes} processes, two for "
                "each; use fewer"
            )
        self.labels = labels.numpy()
        self.draw = draw
        self.seed = seed
        self.processes = processes
        self.rank = rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels) // self.processes

    def __iter__(self) -> Iterator[int]:
        n = len(self.labels)
        random = np.random.default_rng((self.seed, self.epoch))  # mixes the two: no seed has another one's orders
        if self.draw == "balanced":
            _, classes, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
            order = random.choice(n, n, p=1 / (len(counts) * counts[classes]))
        else:
            order = random.permutation(n)
        yield from order[self.rank :: self.processes][: len(self)].tolist()


def train_loader(
    dataset: Labelled, draw: Draw, batch_size: int, seed: int, num_workers: int, trainer: pl.Trainer | None
) -> DataLoader[Batch]:
    """Load batches of any kind in the order of an :class:`EpochSampler`."""
    processes, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
    sampler = EpochSampler(dataset.labels, draw, seed, processes, rank)
    if trainer is not None:
        # Lightning tells the epoch after it has made the iterator, whose workers have begun by then: a resumed run
        # would start with batches in the order of epoch 0.
        sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # a whole batch is one item; torch knows no type for that
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=_on_gpu(trainer),
        # The loader draws a number whenever it starts; from its own generator, so that the process draws what it would
        # have drawn without.
        generator=torch.Generator().manual_seed(seed),
        # A last batch of one image has no variance, and batch norm fails on it.
        drop_last=len(sampler) > 1 and len(sampler) % batch_size == 1,
    )


def eval_loader(dataset: Labelled, batch_size: int, num_workers: int, trainer: pl.Trainer | None) -> DataLoader[Batch]:
    """Load in order. Each process of a distributed run sees every image: padded shares would falsify metrics."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size,
        num_workers=num_workers,
        collate_fn=_as_is,
        pin_memory=_on_gpu(trainer),
    )


def _on_gpu(trainer: pl.Trainer | None) -> bool:
    """Tell whether batches go to a GPU, which takes them in the background from pinned memory."""
    return trainer is not None and trainer.strategy.root_device.type == "cuda"


def _as_is(batch: Any) -> Any:  # noqa: ANN401 (the data set has made a batch already)
    return batch
