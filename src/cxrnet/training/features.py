"""The data of a phase: images, or features, the output of the frozen trunk of the network.

Features are computed once, and what is trained works on the table, where that is small enough. Else the images go
through the trunk in every epoch, without gradients. In float32 and without augmentation all of this gives the result of
training on images, epoch by epoch.

A table holds K views of every training image, the image itself and K - 1 augmented ones, of which each epoch draws one.
It lies in the cache under the name of all that it depends on, so the runs of a sweep over heads, rates or losses share
it. What has no such name, an augmentation of the user's own, is computed for the run and stays in memory.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import NoneType

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn
from torch.backends import cudnn, mkldnn
from torch.utils.data import DataLoader, Dataset

from cxrnet.core.cache import kept, new_array
from cxrnet.core.console import bar
from cxrnet.core.process import is_main_process, jobs_at_once
from cxrnet.data.augment import Augmentation, Geometric
from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.images import store
from cxrnet.data.images.reader import Images
from cxrnet.data.loading import Batch, Share, eval_loader, train_loader
from cxrnet.data.settings import ResizeRule
from cxrnet.models.freezing import SplitNetwork, split_network
from cxrnet.models.network import Network
from cxrnet.training.schedule import Phase, Schedule
from cxrnet.training.trainer import Training

Table = npt.NDArray[np.float32]  # (V, N, F) or (V, N, h, w, C): V views of N images, channels last

_FORMAT = 2  # of the files, and of how features are computed
_FILE = "table.npy"

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
        self.shared = data.shared and data.cache is not None and _has_name(data.augment)
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


@dataclass(frozen=True)
class Views:
    """The images of a table: those of a split, each as often as there are views; the first view is the image itself.

    Attributes:
        images: N of them.
        digests: SHA-256 of their files.
        resize: how they were brought to their size.
        augment: makes a further view of a batch of images; ``None`` where there is none.
        number: number of views, V.
        seed: seed of the augmentation.
    """

    images: Images
    digests: Sequence[str]
    resize: ResizeRule
    augment: Augmentation | None
    number: int
    seed: int


def features_of(
    trunk: nn.Module, views: Views, shape: Sequence[int], device: torch.device, batch_size: int, cache: Path | None
) -> Table:
    """Return the features of some images, in memory or mapped from a read-only file; computed if not in the cache.

    Args:
        trunk: trunk of :class:`cxrnet.models.freezing.SplitNetwork`; moved to the device.
        views: views of the images.
        shape: shape of the features of an image, channels first, as the trunk gives them.
        device: where the trunk runs.
        batch_size: images that go through the trunk at a time, at most.
        cache: folder of the tables; ``None`` keeps them in memory.

    Raises:
        CxrnetError: the cache can't be written.
    """
    full = (views.number, len(views.images), *shape[1:], shape[0])
    if cache is not None and not _has_name(views.augment):
        logger.info("features of images that are augmented by a function of one's own stay in memory")
        cache = None
    if cache is None:
        table = np.empty(full, np.float32)
        _compute(table, trunk, views, device, batch_size)
        return table
    # All that a table depends on: its digest names the table, and it is written beside it.
    ingredients = {
        "front": digest(trunk),  # not renamed: the caches of older versions stay good
        "images": hashlib.sha256("\n".join(views.digests).encode()).hexdigest(),
        "size": views.images.shape[1:],
        "resize": views.resize,
        "augment": repr(views.augment) if views.augment is not None else None,
        "views": views.number,
        "seed": views.seed if views.augment is not None else None,
        "device": device.type,
        "versions": [version(package) for package in ("torch", "torchvision", "timm")],
        "arithmetic": [
            torch.get_float32_matmul_precision(),
            *(operations.fp32_precision for operations in (cudnn.conv, mkldnn.conv, mkldnn.matmul)),  # type: ignore[attr-defined]
            os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", ""),
        ],
        "format": (_FORMAT, *store.made_with()),
    }
    made_of = json.dumps(ingredients, indent=2)

    def write(folder: Path) -> None:
        (folder / "made_of.json").write_text(made_of, encoding="utf-8")
        _compute(new_array(folder / _FILE, full, np.float32), trunk, views, device, batch_size)

    folder = kept(cache / "features" / hashlib.sha256(made_of.encode()).hexdigest()[:32], write)
    stored: Table = np.load(folder / _FILE, mmap_mode="r")
    return stored


def _has_name(augment: Augmentation | None) -> bool:
    """Tell whether an augmentation can be named, so that its views can be found again."""
    return type(augment) in (Geometric, NoneType)


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's structure and of all its numbers."""
    made_of = hashlib.sha256(repr(module).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        made_of.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made_of.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return made_of.hexdigest()


@torch.no_grad()
def _compute(table: Table, trunk: nn.Module, views: Views, device: torch.device, batch_size: int) -> None:
    """Fill a table; the caller's random state is left as it was.

    Images are augmented in batches that don't follow the run's, on which the views would then depend.
    """
    trunk.to(device)
    drawn = 32 if device.type == "cpu" else 256
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        bar("computing features", table.shape[0] * table.shape[1]) as advance,
    ):
        torch.manual_seed(views.seed)
        for place, view in enumerate(table):
            for start in range(0, len(views.images), drawn):
                batch = torch.from_numpy(views.images[start : start + drawn]).unsqueeze(1).to(device)
                if place > 0 and views.augment is not None:
                    batch = views.augment(batch)
                rows = view[start : start + len(batch)]
                for first in range(0, len(batch), batch_size):
                    features: Tensor = trunk(batch[first : first + batch_size])
                    rows[first : first + batch_size] = features.movedim(1, -1).float().cpu().numpy()
                    advance(len(features))
