"""What a phase trains on: images, or features, the output of the frozen front of the network.

Features of a frozen backbone are computed once, and the head trains on the table. Where a part of the backbone is
trained too, the features are maps and their tables large: they are stored if they are small enough, else the images go
through the front in every epoch, without gradients. In float32 and without augmentation all of this gives the result of
the long way, epoch by epoch. With augmentation a table holds K augmented views of every training image, and each epoch
draws one of them for each image.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.loaders import Batch, eval_loader, train_loader
from cxrnet.models.cutting import Cut, cut
from cxrnet.models.network import Network
from cxrnet.training.schedule import Phase, Schedule
from cxrnet.training.tables import Table, Views, features_of


@dataclass(frozen=True)
class Feed:
    """What a phase trains on.

    Attributes:
        data: gives batches with ``image`` or ``features``.
        rest: features -> logits; ``None`` where the batches hold images.
        cached: the features are computed once.
    """

    data: pl.LightningDataModule
    rest: Callable[[Tensor], Tensor] | None
    cached: bool


def make_feed(network: Network, data: XrayDataModule, phase: Phase, schedule: Schedule, seed: int) -> Feed:
    """Choose what a phase trains on; nothing is computed yet.

    Args:
        network: on the CPU, with what is trainable in this phase set.
        data: set up.
        phase: to be trained.
        schedule: its ``views`` and ``activations_gb`` decide.
        seed: of the augmented views.
    """
    parts = cut(network) if schedule.views > 0 else None
    if parts is None:
        return Feed(data, rest=None, cached=False)
    table = FeatureDataModule(data, parts, schedule.views, seed)
    # With no more epochs than views, storing would compute more than it saves.
    if parts.whole or (phase.epochs > table.views and table.n_bytes <= schedule.activations_gb * 1e9):
        return Feed(table, parts.rest, cached=True)
    return Feed(FrontDataModule(data, parts.front), parts.rest, cached=False)


class FeatureDataset(Dataset[Batch]):
    """A table of features.

    Args:
        table: V views of N images.
        labels: (N,) int64.
    """

    def __init__(self, table: Table, labels: Tensor) -> None:
        self.table = table
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch: ``features`` (B, F) or (B, C, h, w) of a random view of each image, ``label`` (B,)."""
        n_views = len(self.table)
        rows = torch.tensor(indices)
        # One view draws no random number, so that dropout sees the same ones as in the long way.
        views = torch.randint(n_views, (len(rows),)) if n_views > 1 else torch.zeros_like(rows)
        features = torch.from_numpy(self.table[views.numpy(), rows.numpy()])
        return {"features": features.movedim(-1, 1), "label": self.labels[rows]}


class FeatureDataModule(pl.LightningDataModule):
    """The features of a data module's images, computed on the trainer's device where they aren't in the cache.

    Args:
        data: the images.
        parts: of the network.
        views: augmented views of each training image; of no effect without augmentation, which gives one.
        seed: of the augmentation.
    """

    def __init__(self, data: XrayDataModule, parts: Cut, views: int, seed: int) -> None:
        super().__init__()
        self.data = data
        self.parts = parts
        self.views = views if data.augment is not None else 1
        self.seed = seed
        self.shape = parts.shape(data.size)
        self.tables: dict[str, FeatureDataset] = {}

    @property
    def n_bytes(self) -> int:
        """Size of the tables."""
        images = self.views * len(self.data.rows("train")) + len(self.data.rows("val"))
        return 4 * images * math.prod(self.shape)

    def setup(self, stage: str | None = None) -> None:
        """Make the tables; does its work once."""
        if self.tables:
            return
        data, device = self.data, _device(self.trainer)
        for split, augment, number in (("train", data.augment, self.views), ("val", None, 1)):
            images, labels = data.arrays(split)
            views = Views(images, data.rows(split)["sha256"].tolist(), data.resize, augment, number, self.seed)
            table = features_of(self.parts.front, views, self.shape, device, data.cache)
            self.tables[split] = FeatureDataset(table, labels)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Features in the order of the images' sampler."""
        data = self.data
        return train_loader(self.tables["train"], data.sampler, data.batch_size, data.seed, 0, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Features of the validation images, in order."""
        return eval_loader(self.tables["val"], self.data.batch_size, 0, self.trainer)


class FrontDataModule(pl.LightningDataModule):
    """The batches of a data module, sent through the frozen front of the network.

    Args:
        data: the images.
        front: of the network.
    """

    def __init__(self, data: XrayDataModule, front: nn.Module) -> None:
        super().__init__()
        self.data = data
        self.front = front

    def setup(self, stage: str | None = None) -> None:
        """Bring the front to the trainer's device."""
        self.data.trainer = self.trainer
        self.front.to(_device(self.trainer))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Those of the images."""
        return self.data.train_dataloader()

    def val_dataloader(self) -> DataLoader[Batch]:
        """Those of the images."""
        return self.data.val_dataloader()

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a batch while training, and put ``features`` in the place of ``image``."""
        batch = self.data.on_after_batch_transfer(batch, dataloader_idx)
        assert self.trainer is not None
        training = self.trainer.training  # validation is in float32, as predictions are
        with self.trainer.precision_plugin.forward_context() if training else nullcontext():
            return {"features": self.front(batch["image"]), "label": batch["label"]}


def _device(trainer: pl.Trainer | None) -> torch.device:
    return trainer.strategy.root_device if trainer is not None else torch.device("cpu")
