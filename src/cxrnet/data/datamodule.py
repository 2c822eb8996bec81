"""From a manifest to batches: decode once, split, augment.

All images are decoded and resized once, when :meth:`XrayDataModule.setup` first runs, into one (N, H, W) uint8 array
(50 kB an image at 224 pixels). An epoch then reads memory, not files.
"""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self, get_args

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cxrnet.data.copies import COPY_SIZE, copy_groups, find_copies
from cxrnet.data.images import OnError, ResizeRule, load_at_sizes
from cxrnet.data.loaders import Batch, Draw, eval_loader, train_loader
from cxrnet.errors import CxrnetError

logger = logging.getLogger("cxrnet")


class XrayDataset(Dataset[Batch]):
    """Images of one split.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64.
        augment: applied to each image (1, H, W) uint8 by itself; ``None`` leaves it as it is.
    """

    def __init__(self, images: np.ndarray, labels: Tensor, augment: v2.Transform | None) -> None:
        self.images = images
        self.labels = labels
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch: ``image`` (B, 1, H, W) uint8, ``label`` (B,) int64."""
        images = torch.from_numpy(self.images[indices]).unsqueeze(1)
        if self.augment is not None:
            images = torch.stack([self.augment(image) for image in images])
        return {"image": images, "label": self.labels[indices]}


class XrayDataModule(pl.LightningDataModule):
    """A data set, split and decoded.

    Args:
        manifest: the data set, or a function that reads it.
        split: a function from manifest to manifest that fills ``split``.
        size: height and width in pixels.
        resize: ``stretch``, ``pad`` or ``crop``.
        augment: applied to training images only; ``None`` for none.
        batch_size: images a batch (per process).
        sampler: how training images are drawn, see :class:`cxrnet.data.loaders.EpochSampler`.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        on_error: what an unreadable image does: ``fail`` or ``skip``.
        seed: of the order of the training images.
        classes: names in the order of the logits; ``None`` takes the manifest's labels in alphabetical order.
        limit: keep at most that many images of each class in each split (for trying things out).

    Attributes:
        manifest: after :meth:`setup`, the rows that are used, with split, size and hash filled in.
        images: after :meth:`setup`, (N, H, W) uint8, in the order of the manifest.
        classes: after :meth:`setup`, the class names in the order of the logits.
        left_out: after :meth:`setup`, images that could not be read.
        copies: after :meth:`setup`, the pairs of copies among the images, found before the split (``find_copies``).
    """

    def __init__(
        self,
        manifest: pd.DataFrame | Callable[[], pd.DataFrame],
        split: Callable[[pd.DataFrame], pd.DataFrame],
        size: Sequence[int],
        resize: ResizeRule,
        augment: v2.Transform | None,
        batch_size: int,
        sampler: Draw,
        num_workers: int,
        on_error: OnError,
        seed: int,
        classes: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        _check(size, batch_size, sampler, num_workers, limit)
        self._manifest = manifest
        self._split = split
        self.size = (int(size[0]), int(size[1]))
        self.resize = resize
        self.augment = augment
        self.batch_size = batch_size
        self.sampler = sampler
        self.num_workers = num_workers
        self.on_error = on_error
        self.seed = seed
        self.limit = limit
        self._classes = tuple(classes) if classes is not None else None
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest, decode the images and split; does its work once.

        Raises:
            CxrnetError: the manifest, the images or the split are not usable, ``classes`` doesn't name the labels,
                or a class has no training image.
        """
        if self._ready:
            return
        manifest = self._manifest() if callable(self._manifest) else self._manifest
        listed = len(manifest)
        manifest = manifest.reset_index(drop=True)  # the index is the place of an image, also in a part of a manifest
        # Copies are told from small versions of the files themselves: a split must not depend on the model's size.
        sizes: list[tuple[tuple[int, int], ResizeRule]] = [(self.size, self.resize), (COPY_SIZE, "stretch")]
        manifest, (images, small) = load_at_sizes(manifest, sizes, self.on_error)
        self.left_out = listed - len(manifest)
        # Copies get a group, so that no split drawn here parts them, patients known or not.
        self.copies = find_copies(small, manifest)
        self._unsplit = copy_groups(self.copies, manifest)
        manifest = self._split(self._unsplit)
        if self.limit is not None:
            kept = manifest.groupby(["split", "label"], dropna=False).cumcount() < self.limit
            manifest, images = manifest[kept].reset_index(drop=True), images[kept.to_numpy()]
            self._unsplit = self._unsplit[kept].reset_index(drop=True)
        self.manifest, self.images = manifest, images
        self.classes = _class_order(manifest, self._classes)
        self._check_splits()
        self._ready = True

    def resplit(self, split: Callable[[pd.DataFrame], pd.DataFrame], seed: int) -> Self:
        """The same images in other splits; nothing is decoded again.

        Args:
            split: a function from manifest to manifest that fills ``split``; it gets the split of the source, if any.
            seed: of the order of the training images.

        Raises:
            CxrnetError: the split is not usable.
        """
        other = copy.copy(self)
        other.seed = seed
        other.manifest = split(self._unsplit)
        other._check_splits()
        return other

    def _check_splits(self) -> None:
        if 0 in self.counts("train"):
            empty = self.classes[self.counts("train").index(0)]
            raise CxrnetError(f"data: class '{empty}' has no training image; change data.split or data.classes")
        if not len(self.rows("val")):
            raise CxrnetError("data: no validation images; give data.split a validation part")

    def rows(self, split: str) -> pd.DataFrame:
        """The manifest's rows of one split."""
        return self.manifest[self.manifest["split"] == split]

    def counts(self, split: str) -> list[int]:
        """Images of each class in a split, in class order."""
        counts = Counter(self.rows(split)["label"])
        return [counts[name] for name in self.classes]

    def arrays(self, split: str) -> tuple[np.ndarray, Tensor]:
        """Images (N, H, W) uint8 and labels (N,) int64 of one split."""
        rows = self.rows(split)
        labels = [self.classes.index(label) for label in rows["label"]]
        return self.images[rows.index.to_numpy()], torch.tensor(labels, dtype=torch.int64)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches in the sampler's order; in distributed training each process gets its share."""
        dataset = XrayDataset(*self.arrays("train"), self.augment)
        return train_loader(dataset, self.sampler, self.batch_size, self.seed, self.num_workers, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation images in order, not augmented."""
        return eval_loader(XrayDataset(*self.arrays("val"), None), self.batch_size)


def _check(size: Sequence[int], batch_size: int, sampler: Draw, num_workers: int, limit: int | None) -> None:
    sides = list(size) if isinstance(size, Sequence) else []
    if len(sides) != 2 or not all(_is_whole(side, 1) for side in sides):
        raise CxrnetError(f"data.size: {size} is not a size; give height and width in pixels, as [224, 224]")
    if not _is_whole(batch_size, 1):
        raise CxrnetError(f"data.batch_size: {batch_size} is no number of images; give a whole number from 1 on")
    if sampler not in get_args(Draw):
        raise CxrnetError(f"data.sampler: '{sampler}' is not known; use shuffle or balanced")
    if limit is not None and not _is_whole(limit, 1):
        raise CxrnetError(f"data.limit: {limit} is no number of images; give a whole number from 1 on")
    if not _is_whole(num_workers, 0):
        raise CxrnetError(f"data.num_workers: {num_workers} is no number of processes; give a whole number from 0 on")


def _is_whole(number: object, least: int) -> bool:
    return isinstance(number, int) and number >= least


def _class_order(manifest: pd.DataFrame, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    labels = set(manifest["label"])
    if len(labels) < 2:
        raise CxrnetError(f"data: only one class ('{min(labels)}'); a classifier needs at least two")
    if classes is None:
        return tuple(sorted(labels))
    if len(set(classes)) != len(classes) or set(classes) != labels:
        raise CxrnetError(
            f"data.classes: {list(classes)} doesn't name the labels of the data, which are {sorted(labels)}"
        )
    return classes
