"""From a manifest to batches: decode once, split, augment.

All images are decoded and resized once, when :meth:`XrayDataModule.setup` first runs on them
(:mod:`cxrnet.data.images.store`). An epoch then reads memory, not files. Batches are augmented as a whole, on the
device that trains.
"""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cxrnet.core.console import heard
from cxrnet.core.schema import build
from cxrnet.data.augment import Augmentation
from cxrnet.data.duplicates.search import SEARCH_SIZE, find_duplicates, group_duplicates
from cxrnet.data.images.reader import AtSize, binary_warning, look_binary
from cxrnet.data.images.resize import Images
from cxrnet.data.images.store import load_at_sizes
from cxrnet.data.loaders import Batch, eval_loader, train_loader
from cxrnet.data.manifest import check_labels
from cxrnet.data.settings import DataNumbers, Draw, OnError, ResizeRule
from cxrnet.errors import CxrnetError

logger = logging.getLogger("cxrnet")


class XrayDataset(Dataset[Batch]):
    """N images of one split and their labels, (N,) int64."""

    def __init__(self, images: Images, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        """Make a whole batch: ``image`` (B, 1, H, W) uint8, ``label`` (B,) int64."""
        return {"image": torch.from_numpy(self.images[indices]).unsqueeze(1), "label": self.labels[indices]}


class XrayDataModule(pl.LightningDataModule):
    """A data set, split and decoded.

    Args:
        manifest: the data set, or a function that reads it.
        split: a function from manifest to manifest that fills ``split``.
        size: height and width in pixels.
        resize: ``stretch``, ``pad`` or ``crop``.
        augment: applied to batches of training images, (B, 1, H, W) uint8, see :mod:`cxrnet.data.augment`; ``None`` for
            none.
        batch_size: images a batch (per process).
        sampler: how training images are drawn, see :class:`cxrnet.data.loaders.EpochSampler`.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        on_error: what an unreadable image does: ``fail`` or ``skip``.
        seed: of the order of the training images.
        classes: names in the order of the logits; ``None`` takes the manifest's labels in alphabetical order.
        limit: keep at most that many images of each class in each split (for trying things out).
        cache: folder of the decoded images and of their duplicates, shared by all runs; ``None`` keeps them in memory.
        known_issues: what is known to be wrong with the data, by source, in sentences.

    Attributes:
        manifest: after :meth:`setup`, the rows that are used, with split, size and hash filled in.
        images: after :meth:`setup`, in the order of the manifest.
        classes: after :meth:`setup`, the class names in the order of the logits.
        notes: after :meth:`setup`, the warnings while the data set was read: what is left out, what was clipped,
            images that look like masks.
        left_out: after :meth:`setup`, the number of images that could not be read.
        duplicates: after :meth:`setup`, the pairs of ``find_duplicates``, found before the split.
        shared: the same images are trained on in other splits too, as in folds: what is computed of all of them at once
            serves all splits.
    """

    def __init__(
        self,
        manifest: pd.DataFrame | Callable[[], pd.DataFrame],
        split: Callable[[pd.DataFrame], pd.DataFrame],
        size: Sequence[int] = DataNumbers.size,
        resize: ResizeRule = DataNumbers.resize,
        augment: Augmentation | None = None,
        batch_size: int = DataNumbers.batch_size,
        sampler: Draw = DataNumbers.sampler,
        num_workers: int = DataNumbers.num_workers,
        on_error: OnError = DataNumbers.on_error,
        seed: int = DataNumbers.seed,
        classes: Sequence[str] | None = None,
        limit: int | None = DataNumbers.limit,
        cache: str | Path | None = None,
        known_issues: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        numbers = {"size": size, "batch_size": batch_size, "num_workers": num_workers, "limit": limit}
        build(DataNumbers, {**numbers, "sampler": sampler, "resize": resize, "on_error": on_error}, "data")
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
        self.cache = Path(cache) if cache is not None else None
        self.known_issues = dict(known_issues or {})
        self._classes = tuple(classes) if classes is not None else None
        self.shared = False
        self._ready = False

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest, decode the images and split; does its work once.

        Raises:
            CxrnetError: the manifest, the images or the split are not usable, ``classes`` doesn't name the labels,
                or a class has no training image.
        """
        if self._ready:
            return
        with heard() as self.notes:
            manifest = self._manifest() if callable(self._manifest) else self._manifest
            listed = len(manifest)
            manifest = manifest.reset_index(drop=True)  # the index is the place of an image, also in a part of one
            _class_order(manifest, self._classes)  # refuses wrong classes before anything is decoded
            # Duplicates are found in small versions of the files: a split must not depend on the model's size.
            sizes: list[AtSize] = [(self.size, self.resize), (SEARCH_SIZE, "stretch")]
            manifest, (images, small) = load_at_sizes(manifest, sizes, self.on_error, self.cache)
            for text in binary_warning(manifest["image_id"][look_binary(small)].tolist(), len(manifest)):
                logger.warning(text)
            self.left_out = listed - len(manifest)
            # Duplicates get a group, so that no split drawn here parts them, patients known or not.
            self.duplicates = find_duplicates(small, manifest, self.cache)
            self._unsplit = group_duplicates(self.duplicates, manifest)
            manifest = self._split(self._unsplit)
        if self.limit is not None:
            kept = manifest.groupby(["split", "label"], dropna=False).cumcount() < self.limit
            manifest, images = manifest[kept].reset_index(drop=True), images.take(kept.to_numpy())
            self._unsplit = self._unsplit[kept].reset_index(drop=True)
        self.manifest, self.images = manifest, images
        self.classes = _class_order(manifest, self._classes)
        self._check_splits()
        self._ready = True

    def resplit(self, split: Callable[[pd.DataFrame], pd.DataFrame], seed: int, shared: bool) -> Self:
        """Split the same images in another way; nothing is decoded again.

        Args:
            split: a function from manifest to manifest that fills ``split``; it gets the split of the source, if any.
            seed: of the order of the training images.
            shared: see the attribute.

        Raises:
            CxrnetError: the split is not usable.
        """
        other = copy.copy(self)
        other.seed = seed
        other.shared = shared
        other.manifest = split(self._unsplit)
        other._check_splits()
        return other

    def _check_splits(self) -> None:
        counts = self.counts("train")
        if 0 in counts:
            empty = self.classes[counts.index(0)]
            raise CxrnetError(f"data: class '{empty}' has no training image; change data.split or data.classes")
        if not len(self.rows("val")):
            raise CxrnetError("data: no validation images; give data.split a validation part")

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of the manifest in one split."""
        return self.manifest[self.manifest["split"] == split]

    def counts(self, split: str) -> list[int]:
        """Count the images of each class in a split, in class order."""
        counts = self.manifest["label"][self.manifest["split"] == split].value_counts()
        return [int(counts.get(name, 0)) for name in self.classes]

    def arrays(self, split: str) -> tuple[Images, Tensor]:
        """Get images and labels (N,) int64 of one split."""
        chosen = self.manifest["label"][self.manifest["split"] == split]
        labels = pd.Categorical(chosen.astype(object), categories=list(self.classes)).codes
        return self.images.take(chosen.index.to_numpy()), torch.from_numpy(labels.astype(np.int64))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load batches in the sampler's order; in distributed training each process gets its share."""
        dataset = XrayDataset(*self.arrays("train"))
        return train_loader(dataset, self.sampler, self.batch_size, self.seed, self.num_workers, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load validation images in order."""
        return eval_loader(XrayDataset(*self.arrays("val")), self.batch_size, self.num_workers, self.trainer)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a batch, on the device that it was sent to, while training."""
        if self.augment is None or self.trainer is None or not self.trainer.training:
            return batch
        return {**batch, "image": self.augment(batch["image"])}


def _class_order(manifest: pd.DataFrame, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    labels = set(manifest["label"].unique())
    if len(labels) < 2:
        raise CxrnetError(f"data: only one class ('{min(labels)}'); a classifier needs at least two, see data.root")
    check_labels(manifest["label"], "data")
    if classes is None:
        return tuple(sorted(labels))
    if len(set(classes)) != len(classes) or set(classes) != labels:
        raise CxrnetError(
            f"data.classes: {list(classes)} doesn't name the labels of the data, which are {sorted(labels)}"
        )
    return classes
