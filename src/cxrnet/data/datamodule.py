"""From a manifest to batches: decode once, split, draw, augment.

The order of the training images is a function of seed and epoch alone: a resumed run sees the batches that the run
would have seen, and P processes share the batches that one process with P times the batch size would have seen.
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
from cxrnet.data.augment import NUMBERS, Augmentation, Geometric, check_augmentation
from cxrnet.data.duplicates import SEARCH_SIZE, find_duplicates, group_duplicates
from cxrnet.data.images.reader import AtSize, Images
from cxrnet.data.images.store import binary_warning, load_at_sizes, look_binary
from cxrnet.data.loading import Batch, Share, Window, eval_loader, place_of, train_loader
from cxrnet.data.manifest import check_labels
from cxrnet.data.settings import DataNumbers, Draw, OnError, ResizeRule, check_call
from cxrnet.data.shards.array import check_window, shards_of
from cxrnet.errors import CxrnetError

logger = logging.getLogger("cxrnet")


class XrayDataModule(pl.LightningDataModule):
    """A data set, split and decoded once; an epoch reads memory or mapped files (:mod:`cxrnet.data.images.store`).

    ``manifest`` is the data set or a function that reads it, ``split`` a function from manifest to manifest that fills
    ``split``, ``augment`` an augmentation of batches (:mod:`cxrnet.data.augment`). All others are as in
    :class:`cxrnet.data.settings.Data`.

    Attributes:
        manifest: after :meth:`setup`, as all but the last: the rows that are used, with split, size and hash filled in.
        images: in the order of the manifest.
        small: the same images straight from the file, stretched to the size of the search for duplicates.
        classes: the class names in the order of the logits.
        notes: the warnings while the data set was read.
        left_out: the number of images that could not be read.
        duplicates: the pairs of ``find_duplicates``, found before the split.
        shared: the same images are trained on in other splits too, as in folds: what is computed of all of them at once
            serves all splits.
        stream: random numbers for the images of a batch; ``None`` is torch's own. Several processes share one: each
            draws for the whole batch, and takes what is of its images.

    Raises:
        CxrnetError: a value is out of range, or manifest, split or augmentation can't be called with what is given.
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
        window: int | None = DataNumbers.window,
        kept_gb: float | None = DataNumbers.kept_gb,
        cache: str | Path | None = None,
        known_issues: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__()
        numbers = {"size": size, "batch_size": batch_size, "num_workers": num_workers, "limit": limit}
        shards = {"window": window, "kept_gb": kept_gb}
        build(DataNumbers, {**numbers, **shards, "sampler": sampler, "resize": resize, "on_error": on_error}, "data")
        if callable(manifest):
            check_call(manifest, "data.manifest")
        check_call(split, "data.split", before=1)
        self._manifest = manifest
        self._split = split
        self.size = (int(size[0]), int(size[1]))
        check_augmentation(augment, self.size)
        self.resize = resize
        self.augment = augment
        self.batch_size = batch_size
        self.sampler = sampler
        self.num_workers = num_workers
        self.on_error = on_error
        self.seed = seed
        self.limit = limit
        self.window = window
        self.kept_gb = kept_gb
        self.cache = Path(cache) if cache is not None else None
        self.known_issues = dict(known_issues or {})
        self._classes = tuple(classes) if classes is not None else None
        self.shared = False
        self.stream: torch.Generator | None = None
        self._has_read = self._ready = False

    def read(self) -> None:
        """Read the manifest, decode the images and look for duplicates, once, also of data that can't be trained on.

        ``manifest`` then has the published split, if any. :meth:`setup` goes on from there, and says why it can't.
        """
        self._read(fewest=1)

    def _read(self, fewest: int) -> None:
        if self._has_read:
            return
        with heard() as self.notes:
            manifest = self._manifest() if callable(self._manifest) else self._manifest
            listed = len(manifest)
            manifest = manifest.reset_index(drop=True)  # the index is the place of an image, also in a part of one
            _class_order(manifest, self._classes, fewest)  # refuses wrong classes before anything is decoded
            # Duplicates are found in small versions of the files: a split must not depend on the model's size.
            sizes: list[AtSize] = [(self.size, self.resize), (SEARCH_SIZE, "stretch")]
            manifest, (images, small) = load_at_sizes(manifest, sizes, self.on_error, self.cache, self.kept_gb)
            check_window(images, self.window)
            for text in binary_warning(manifest["image_id"][look_binary(small)].tolist(), len(manifest)):
                logger.warning(text)
            self.left_out = listed - len(manifest)
            # Duplicates get a group, so that no split drawn here parts them, patients known or not.
            self.duplicates = find_duplicates(small, manifest, self.cache)
            self._unsplit = group_duplicates(self.duplicates, manifest)
        self.manifest, self.images, self.small = self._unsplit, images, small
        self.classes = _class_order(self.manifest, self._classes, fewest)
        self._has_read = True

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest, decode the images and split; does its work once."""
        if self._ready:
            return
        self._read(fewest=2)
        _class_order(self._unsplit, self._classes)
        with heard() as notes:
            manifest: pd.DataFrame = self._split(self._unsplit)
        self.notes += notes
        if self.limit is not None:
            kept = manifest.groupby(["split", "label"], dropna=False).cumcount() < self.limit
            manifest, self.images = manifest[kept].reset_index(drop=True), self.images.take(kept.to_numpy())
            self.small = self.small.take(kept.to_numpy())
            self._unsplit = self._unsplit[kept].reset_index(drop=True)
        self.manifest = manifest
        self.classes = _class_order(manifest, self._classes)
        self._check_splits()
        self._ready = True

    def resplit(self, split: Callable[[pd.DataFrame], pd.DataFrame], seed: int, shared: bool) -> Self:
        """Split the same images by a function from manifest to manifest, which gets the split of the source, if any.

        Nothing is decoded again. ``seed`` is of the order of the training images; for ``shared`` see the attribute.
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
        if not len(self._labels("val")):
            raise CxrnetError("data: no validation images; give data.split a validation part")

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of the manifest in one split."""
        return self.manifest[self.manifest["split"] == split]

    def _labels(self, split: str) -> pd.Series:
        """Return the labels in one split, without a copy of the rows, hundreds of bytes each."""
        return self.manifest["label"][self.manifest["split"] == split]

    def counts(self, split: str) -> list[int]:
        """Count the images of each class in a split, in class order."""
        counts = self._labels(split).value_counts()
        return [int(counts.get(name, 0)) for name in self.classes]

    def arrays(self, split: str) -> tuple[Images, Tensor]:
        """Get images and labels (N,) int64 of one split."""
        chosen = self._labels(split)
        labels = pd.Categorical(chosen.astype(object), categories=list(self.classes)).codes
        return self.images.take(chosen.index.to_numpy()), torch.from_numpy(labels.astype(np.int64))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load batches in the sampler's order; in distributed training each process gets its share of every one."""
        dataset = _XrayDataset(*self.arrays("train"))
        window = None if self.window is None else Window(shards_of(dataset.images), self.window)
        return train_loader(dataset, self, self.num_workers, self.trainer, window)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Load validation images in order; in distributed training each process gets its share of every batch."""
        return eval_loader(_XrayDataset(*self.arrays("val")), self, self.num_workers, self.trainer)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment a batch, on the device that it was sent to, while training."""
        images = batch["image"]
        if self.augment is None or self.trainer is None or not self.trainer.training or not len(images):
            return batch
        if self.stream is None or not isinstance(self.augment, Geometric):  # a function of the user's draws by itself
            return {**batch, "image": self.augment(images)}
        drawn = torch.rand(batch["total"], NUMBERS, generator=self.stream)
        processes, rank = place_of(self.trainer)
        return {**batch, "image": self.augment(images, drawn[rank::processes])}


def _class_order(manifest: pd.DataFrame, classes: tuple[str, ...] | None, fewest: int = 2) -> tuple[str, ...]:
    labels = set(manifest["label"].unique())
    if len(labels) < fewest:
        raise CxrnetError(f"data: only one class ('{min(labels)}'); a classifier needs at least two, see data.root")
    check_labels(manifest["label"], "data")
    if classes is None:
        return tuple(sorted(labels))
    if len(set(classes)) != len(classes) or set(classes) != labels:
        raise CxrnetError(
            f"data.classes: {list(classes)} doesn't name the labels of the data, which are {sorted(labels)}"
        )
    return classes


class _XrayDataset(Dataset[Batch]):
    def __init__(self, images: Images, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, share: Share) -> Batch:
        """Make a batch: ``image`` (B, 1, H, W) uint8, ``label`` (B,) int64, ``total`` of the share."""
        images = torch.from_numpy(self.images[share.indices]).unsqueeze(1)
        return {"image": images, "label": self.labels[share.indices], "total": share.total}
