"""Frozen phases run on features: the frozen part's output is computed once, the head trains on the table.

Without augmentation this gives the result of the long way, epoch by epoch. With augmentation, K augmented views of
every training image are computed, and each epoch draws one of them for each image.
"""

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.loaders import Batch, eval_loader, train_loader
from cxrnet.models.network import Network


class FeatureDataset(Dataset[Batch]):
    """A table of features.

    Args:
        features: (V, N, F) float32, V views of N images.
        labels: (N,) int64.
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features = features
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch: ``features`` (B, F) of a random view of each image, ``label`` (B,)."""
        n_views = len(self.features)
        rows = torch.tensor(indices)
        # One view draws no random number, so that the head's dropout sees the same ones as in the long way.
        views = torch.randint(n_views, (len(rows),)) if n_views > 1 else torch.zeros_like(rows)
        return {"features": self.features[views, rows], "label": self.labels[rows]}


class FeatureDataModule(pl.LightningDataModule):
    """The features of a data module's images under a frozen backbone; computed on the trainer's device.

    Args:
        data: the images.
        network: whose frozen part makes the features.
        views: augmented views of each training image; of no effect without augmentation, which gives one.
        seed: of the augmentation.
    """

    def __init__(self, data: XrayDataModule, network: Network, views: int, seed: int) -> None:
        super().__init__()
        self.data = data
        self.network = network
        self.views = views if data.augment is not None else 1
        self.seed = seed
        self.tables: dict[str, FeatureDataset] = {}

    def setup(self, stage: str | None = None) -> None:
        """Compute the tables; does its work once."""
        if self.tables:
            return
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        for split, augment, views in (("train", self.data.augment, self.views), ("val", None, 1)):
            images, labels = self.data.arrays(split)
            table = compute_features(self.network, images, augment, views, self.seed, self.data.batch_size, device)
            self.tables[split] = FeatureDataset(table, labels)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Features in the order of the images' sampler."""
        data = self.data
        return train_loader(self.tables["train"], data.sampler, data.batch_size, data.seed, 0, self.trainer)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Features of the validation images, in order."""
        return eval_loader(self.tables["val"], self.data.batch_size)


@torch.no_grad()
def compute_features(
    network: Network,
    images: np.ndarray,
    augment: v2.Transform | None,
    views: int,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> Tensor:
    """Features of images, in evaluation mode.

    Args:
        network: moved to the device.
        images: (N, H, W) uint8.
        augment: applied to each image by itself; ``None`` for none.
        views: V, how often each image is augmented.
        seed: of the augmentation; the caller's random state is left as it was.
        batch_size: images a forward pass.
        device: where the network runs.

    Returns:
        (V, N, F) float32 on the CPU.
    """
    was_training = network.training
    network.to(device).eval()
    table = torch.empty(views, len(images), network.n_features)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for view in table:
            for start in range(0, len(images), batch_size):
                batch = torch.from_numpy(images[start : start + batch_size]).unsqueeze(1)
                if augment is not None:
                    batch = torch.stack([augment(image) for image in batch])
                view[start : start + len(batch)] = network.features(batch.to(device)).float().cpu()
    network.train(was_training)  # Lightning trains in the mode in which it finds a network
    return table
