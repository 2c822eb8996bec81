"""A plain torchvision loop, as a user would write it.

ImageFolder, Resize, ToTensor, Normalize with three channels, workers, Adam; frozen as in torchvision's tutorial on
transfer learning: ``requires_grad`` off, a new head.
"""

import time
from typing import Any

import torch
import torchvision.models as tv
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms as T  # as everybody calls it
from torchvision.datasets import ImageFolder

from cxrnet.benchmarking.contenders.loop import Parts, Training, run
from cxrnet.benchmarking.contenders.memory import peak_memory
from cxrnet.benchmarking.contenders.start import starting_network
from cxrnet.models.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from cxrnet.models.settings import Trainable

WORKERS = 2


def train(weights: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of a Training)
    """From image files to a trained network.

    Args:
        weights: as ``model.weights`` has it.
        settings: of a :class:`~cxrnet.benchmarking.contenders.loop.Training`.
    """
    return run(Training(**settings), lambda task: _parts(task, weights))


def _parts(task: Training, weights: str) -> Parts:
    drawn = [T.RandomHorizontalFlip(), T.RandomAffine(7, (0.05, 0.05), (0.95, 1.05))] if task.augment else []
    train, val = (
        _loader(f"{task.root}/{split}", task.size, task.batch_size, split == "train", drawn)
        for split in ("train", "val")
    )
    classes = len(train.dataset.classes)  # type: ignore[attr-defined]
    network = torchvision_network(task.backbone, weights, task.trainable, task.size, classes)
    return Parts(
        network, train, val, lambda of: torch.optim.Adam([p for p in of.parameters() if p.requires_grad], lr=task.lr)
    )


@torch.no_grad()
def predict(root: str, backbone: str, size: list[int], batch_size: int, device: str) -> dict[str, Any]:
    """Predict every image below a folder of class folders."""
    chosen, begin = torch.device(device), time.perf_counter()
    network = torchvision_network(backbone, "none", "all", size, 4).to(chosen).eval()
    loader = _loader(root, size, batch_size, False, [])
    predicted = torch.cat([network(images.to(chosen)).softmax(1).cpu() for images, _ in loader])
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "images_per_second": len(predicted) / seconds, **peak_memory(device)}


def torchvision_network(backbone: str, weights: str, trainable: Trainable, size: list[int], classes: int) -> nn.Module:
    """A network of torchvision with a new head, the same weights, and the same parameters frozen as in cxrnet."""
    like = starting_network(backbone, weights, trainable, size, classes)
    network: nn.Module = getattr(tv, backbone)(weights=None)
    if hasattr(network, "fc"):
        network.fc = nn.Linear(like.n_features, classes)
    else:
        network.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(like.n_features, classes))
        network.avgpool = nn.AdaptiveAvgPool2d(1)  # of VGG; the same step as the others do
    network.load_state_dict(like.backbone.state_dict(), strict=False)  # the names are torchvision's
    frozen = {name for name, parameter in like.backbone.named_parameters() if not parameter.requires_grad}
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name not in frozen
    return network


def _loader(folder: str, size: list[int], batch_size: int, shuffle: bool, drawn: list[Any]) -> DataLoader[Any]:
    steps = [T.Resize(size), *(drawn if shuffle else []), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    return DataLoader(ImageFolder(folder, T.Compose(steps)), batch_size, shuffle=shuffle, num_workers=WORKERS)
