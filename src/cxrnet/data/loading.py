"""The order of the images in training and validation, and the share of every batch that each process gets."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from cxrnet.data.settings import Draw
from cxrnet.errors import CxrnetError

Batch = dict[str, Any]  # tensors with a row for each image, and the total of their share
_IntArray = npt.NDArray[np.int64]


class Share(NamedTuple):
    """The images of a batch that a process gets: from the one of its rank on, every P-th of P processes.

    Attributes:
        indices: indices of the images in the data set.
        places: places of the images in the whole batch.
        total: number of images in the whole batch, over all processes.
    """

    indices: list[int]
    places: slice
    total: int


class Labelled(Protocol):
    """Data set of whole batches; ``labels`` are (N,) int64."""

    labels: Tensor

    def __len__(self) -> int: ...

    def __getitem__(self, share: Share) -> Batch: ...


class Loading(Protocol):
    """What says how batches are drawn: a data module.

    Attributes:
        sampler: ``shuffle`` or ``balanced``.
        seed: seed of the orders.
        batch_size: images of a batch in each process.
    """

    sampler: Draw
    seed: int
    batch_size: int


class OrderedSampler(Sampler[Share]):
    """Batches of every image once, in order.

    Args:
        number: number of images.
        batch_size: images of a batch in each process.
        processes: processes that share every batch; a last batch with fewer images leaves some of them none.
        rank: rank of this process.
    """

    def __init__(self, number: int, batch_size: int, processes: int = 1, rank: int = 0) -> None:
        self.number = number
        self.batch = batch_size * processes
        self.places = slice(rank, None, processes)
        self.done = 0  # batches that the next epoch begins behind

    def __len__(self) -> int:
        return math.ceil(self.number / self.batch)

    def __iter__(self) -> Iterator[Share]:
        order = self.order()[: self.number]
        for start in range(self.done * self.batch, self.number, self.batch):
            batch = order[start : start + self.batch]
            yield Share(batch[self.places].tolist(), self.places, len(batch))

    def order(self) -> _IntArray:
        """Return the indices of the images, (N,)."""
        return np.arange(self.number)


@dataclass(frozen=True)
class Window:
    """The part of the shards that the images of a moment come from, so that no more of them have to be on this disk.

    Attributes:
        shards: number of the shard of each image, ``(N,)``.
        width: width of the part, in shards.
    """

    shards: npt.NDArray[np.int64]
    width: int

    def sorted(self, order: npt.NDArray[np.int64], random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Sort an order of images by their shards, which come in random order, give or take the width of the window.

        Shards form a ring, so that the first images come from as many as all others do.
        """
        count = int(self.shards.max()) + 1
        place = random.permutation(count)[self.shards[order]] + self.width * random.random(len(order))
        moved: npt.NDArray[np.int64] = order[np.argsort(place % count, kind="stable")]
        return moved


class EpochSampler(OrderedSampler):
    """Batches of training images, in another order in every epoch, which Lightning sets, also of a resumed run.

    ``shuffle`` is every image once an epoch; ``balanced`` N images with replacement, every class equally likely, every
    image of a class too. A last batch of one image is left out: it has no variance, and batch norm fails on it.

    Args:
        labels: (N,) int64.
        draw: ``shuffle`` or ``balanced``.
        seed: seed of the orders.
        batch_size: images of a batch in each process.
        processes: processes that share every batch.
        rank: rank of this process.
        window: window of shards that the images of a moment come from; ``None`` takes them from all.

    Raises:
        CxrnetError: there are too many processes for the images.
    """

    def __init__(
        self,
        labels: Tensor,
        draw: Draw,
        seed: int,
        batch_size: int,
        processes: int = 1,
        rank: int = 0,
        window: Window | None = None,
    ) -> None:
        n = len(labels)
        if processes > 1 and n < 2 * processes:
            raise CxrnetError(
                f"trainer.devices: {n} training images can't be shared by {processes} processes, two for each; use "
                "fewer"
            )
        super().__init__(n, batch_size, processes, rank)
        self.number -= n > 1 and n % self.batch == 1
        self.labels = labels.numpy()
        self.draw = draw
        self.seed = seed
        self.window = window
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0

    def order(self) -> _IntArray:
        """Return the indices of the images in the order of the epoch, (N,)."""
        n = len(self.labels)
        random = np.random.default_rng((self.seed, self.epoch))  # mixes the two: no seed has another one's orders
        if self.draw == "balanced":
            _, classes, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
            order = random.choice(n, n, p=1 / (len(counts) * counts[classes]))
        else:
            order = random.permutation(n)
        return order if self.window is None else self.window.sorted(order, random)


class TrainLoader(DataLoader[Batch]):
    """Loader that Lightning asks how far it is in an epoch, and lets go on from there in a resumed one.

    The order is a function of seed and epoch, so the number of batches is all that it needs.
    """

    trainer: pl.Trainer | None = None

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches of the epoch that were trained on, whatever workers have loaded ahead."""
        assert self.trainer is not None
        return {"batches": self.trainer.fit_loop.epoch_loop.batch_progress.current.ready}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the epoch behind these batches; Lightning calls it for a checkpoint from within an epoch alone."""
        assert isinstance(self.sampler, OrderedSampler)
        self.sampler.done = state["batches"]


def train_loader(
    dataset: Labelled,
    data: Loading,
    num_workers: int,
    trainer: pl.Trainer | None,
    window: Window | None = None,
) -> DataLoader[Batch]:
    """Load batches of any kind in the order of an :class:`EpochSampler`, as ``data`` says."""
    sampler = EpochSampler(dataset.labels, data.sampler, data.seed, data.batch_size, *place_of(trainer), window)
    if trainer is not None:
        # Lightning tells the epoch after it has made the iterator, whose workers have begun by then: a resumed run
        # would start with batches in the order of epoch 0.
        sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]
    # The loader draws a number whenever it starts; from its own generator, so that the process draws what it would
    # have drawn without.
    generator = torch.Generator().manual_seed(data.seed)
    loader = TrainLoader(dataset, sampler=sampler, generator=generator, **_options(num_workers, trainer))  # type: ignore[arg-type]
    loader.trainer = trainer
    return loader


def eval_loader(dataset: Labelled, data: Loading, num_workers: int, trainer: pl.Trainer | None) -> DataLoader[Batch]:
    """Load batches of any kind in order, of the size that ``data`` says."""
    sampler = OrderedSampler(len(dataset), data.batch_size, *place_of(trainer))
    return DataLoader(dataset, sampler=sampler, **_options(num_workers, trainer))  # type: ignore[arg-type]


def place_of(trainer: pl.Trainer | None) -> tuple[int, int]:
    """Return the number of processes and the rank of this one."""
    return (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)


def _options(num_workers: int, trainer: pl.Trainer | None) -> dict[str, Any]:
    # A GPU takes batches in the background from pinned memory.
    pinned = trainer is not None and trainer.strategy.root_device.type == "cuda"
    # What the sampler gives is a whole batch already.
    return {"batch_size": None, "num_workers": num_workers, "collate_fn": _as_is, "pin_memory": pinned}


def _as_is(batch: Any) -> Any:  # noqa: ANN401 (the data set has made a batch already)
    return batch
