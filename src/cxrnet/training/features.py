"""The data of a phase: images, or features, the output of the frozen trunk of the network.

Features are computed once, and what is trained works on the table, where that is small enough. Else the images go
through the trunk in every epoch, without gradients. In float32 and without augmentation all of this gives the result of
training on images, epoch by epoch.

A table holds K views of every training image, the image itself and K - 1 augmented ones, of which each epoch draws one.
"""

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cxrnet.core.process import is_main_process, jobs_at_once
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.loading import Batch, Share, eval_loader, train_loader
from cxrnet.models.freezing import SplitNetwork, split_network
from cxrnet.models.network import Network
from cxrnet.training.feature_tables import Table, Views, features_of, has_name
from cxrnet.training.schedule import Phase, Schedule
from cxrnet.training.trainer import Training

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Feed:
    """The data that a phase trains on.

    Attributes:
        data: gives batches with ``image`` or ``features``.
        trainable_part: features -> logits; ``None`` where the batches hold images.
        cached: the features are computed once.
    """

    data: pl.LightningDataModule
    trainable_part: Callable[[Tensor], Tensor] | None
    cached: bool


def make_feed(
    network: Network, data: XrayDataModule, training: Training, phase: Phase, cached: bool | None = None
) -> Feed:
    """Choose what a phase trains on; nothing is computed yet.

    Args:
        network: on the CPU, with what is trainable in this phase set.
        data: set up.
        training: ``views`` and ``features_gb`` of its schedule decide; its seed is that of the augmented views.
        phase: to be trained.
        cached: whether a phase that is resumed began with a table, with which or without which it goes on; ``None``
            where it begins.
    """
    schedule = training.schedule
    parts = split_network(network) if schedule.views > 0 else None
    if parts is None:
        return Feed(data, trainable_part=None, cached=False)
    table = FeatureDataModule(data, parts, schedule.views, training.seed)
    if _table_pays(table, phase, schedule) if cached is None else cached:
        return Feed(table, parts.trainable_part, cached=True)
    if training.compiled:  # the trunk of a table makes each view once, in less time than it takes to compile
        parts.trunk.compile()
    # What would have been trained on the images themselves is so without a table too.
    augmented = not parts.whole_backbone or schedule.views > 1
    return Feed(TrunkDataModule(data, parts.trunk, augmented), parts.trainable_part, False)


def _table_pays(table: "FeatureDataModule", phase: Phase, schedule: Schedule) -> bool:
    """Tell whether features are stored; say so where those of a whole backbone are too many."""
    jobs, gigabytes = jobs_at_once(), table.n_bytes / 1e9
    fits = gigabytes * jobs <= schedule.features_gb
    if not table.parts.whole_backbone:
        # With no more epochs than views, storing would compute more than it saves; and what trains the backbone sees
        # augmented images where there is an augmentation.
        return fits and phase.epochs > table.views and (table.views > 1 or table.data.augment is None)
    if not fits and schedule.features_gb > 0 and is_main_process():
        share = f" (shared by {jobs} jobs at once)" if jobs > 1 else ""
        logger.warning(
            f"schedule.features_gb: the features of phase '{phase.name}' would take {gigabytes:.3g} GB, more than "
            f"{schedule.features_gb / jobs:g} GB{share}, so all images go through the frozen backbone in every epoch, "
            f"which is slow; give schedule.features_gb={math.ceil(gigabytes * jobs)} if the disk has room"
        )
    return fits


class FeatureDataset(Dataset[Batch]):
    """Rows of a table of features.

    Args:
        table: V views of M images.
        rows: (N,) int64, those of the images of a split.
        labels: (N,) int64, of these images.
        stream: random numbers of the augmentation, of :class:`cxrnet.data.datamodule.XrayDataModule`.
    """

    def __init__(self, table: Table, rows: Tensor, labels: Tensor, stream: torch.Generator | None = None) -> None:
        self.stream = stream
        self.table = table
        self.rows = rows
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, share: Share) -> Batch:
        """Return a batch: ``features`` (B, F) or (B, C, h, w) of a random view of each image, ``label`` (B,)."""
        n_views, rows = len(self.table), self.rows[share.indices]
        # One view draws no random number, so that dropout sees the same ones as in training on images.
        views = torch.zeros_like(rows)
        if n_views > 1:
            views = torch.randint(n_views, (share.total,), generator=self.stream)[share.places]
        features = torch.from_numpy(self.table[views.numpy(), rows.numpy()])
        return {"features": features.movedim(-1, 1), "label": self.labels[share.indices], "total": share.total}


class FeatureDataModule(pl.LightningDataModule):
    """The features of a data module's images, computed on the trainer's device where they aren't in the cache.

    Args:
        data: the images.
        parts: parts of the network.
        views: views of each training image, the first of which is the image itself; without augmentation there is one.
        seed: seed of the augmentation.
    """

    def __init__(self, data: XrayDataModule, parts: SplitNetwork, views: int, seed: int) -> None:
        super().__init__()
        self.data = data
        self.parts = parts
        self.views = views if data.augment is not None else 1
        self.seed = seed
        self.shape = parts.shape(data.size)
        self.shared = data.shared and data.cache is not None and has_name(data.augment)
        self.tables: dict[str, FeatureDataset] = {}

    @property
    def n_bytes(self) -> int:
        """Size of the tables."""
        views = self.views * len(self._manifest("train"))
        if self.views > 1 or not self.shared:  # else one table holds both splits
            views += len(self._manifest("val"))
        return 4 * views * math.prod(self.shape)

    def _manifest(self, split: str) -> pd.DataFrame:
        """Return the images of a split's table: all, where other splits of them share it."""
        return self.data.manifest if self.shared else self.data.rows(split)

    def setup(self, stage: str | None = None) -> None:
        """Make the tables; does its work once."""
        if self.tables:
            return
        data, device = self.data, _device(self.trainer)
        for split, augment, number in (("train", data.augment, self.views), ("val", None, 1)):
            manifest = self._manifest(split)
            images = data.images.take(manifest.index.to_numpy())
            views = Views(
                images, manifest["sha256"].tolist(), data.resize, augment if number > 1 else None, number, self.seed
            )
            table = features_of(self.parts.trunk, views, self.shape, device, data.batch_size, data.cache)
            rows = torch.from_numpy(np.flatnonzero(manifest["split"] == split))
            self.tables[split] = FeatureDataset(table, rows, data.arrays(split)[1], data.stream)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load features in the order of the images' sampler."""
        return train_loader(self.tables["train"], self.data, 0, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load the features of the validation images, in order."""
        return eval_loader(self.tables["val"], self.data, 0, self.trainer)


class TrunkDataModule(pl.LightningDataModule):
    """The batches of a data module, sent through the frozen trunk of the network.

    Args:
        data: the images.
        trunk: the frozen part of the network.
        augmented: training images are augmented, where there is an augmentation.
    """

    def __init__(self, data: XrayDataModule, trunk: nn.Module, augmented: bool) -> None:
        super().__init__()
        self.data = data
        self.trunk = trunk
        self.augmented = augmented

    def setup(self, stage: str | None = None) -> None:
        """Bring the trunk to the trainer's device."""
        self.data.trainer = self.trainer
        self.trunk.to(_device(self.trainer))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load batches of training images."""
        return self.data.train_dataloader()

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load batches of validation images."""
        return self.data.val_dataloader()

    def teardown(self, stage: str) -> None:
        """Let go of the trainer, which would stay with the images as long as they do."""
        self.data.trainer = None

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a batch of training images, and put ``features`` in the place of ``image``."""
        if self.augmented:
            batch = self.data.on_after_batch_transfer(batch, dataloader_idx)
        assert self.trainer is not None
        training = self.trainer.training  # validation is without mixed precision
        with self.trainer.precision_plugin.forward_context() if training else nullcontext():
            return {"features": self.trunk(batch["image"]), "label": batch["label"], "total": batch["total"]}


def _device(trainer: pl.Trainer | None) -> torch.device:
    return trainer.strategy.root_device if trainer is not None else torch.device("cpu")
