"""A loop made of timm's parts, as its ``train.py`` and ``benchmark.py`` put them together."""

from typing import Any

import torch
from timm.data import create_dataset, create_loader  # type: ignore[attr-defined]  # nothing there says that it is exported
from timm.models import create_model
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn

from cxrnet.benchmarking.contenders.loop import Parts, Training, run

NAMES = {"mobilenet_v2": "mobilenetv2_100"}  # what timm calls otherwise
WORKERS = 2


def train(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of a Training)
    """From image files to a trained network, from random weights; a Training whose ``trainable`` is head or all."""
    task = Training(**settings)
    torch.backends.cudnn.benchmark = task.device == "cuda"
    return run(task, _parts)


def _parts(task: Training) -> Parts:
    train, val = (_loader(task, split) for split in ("train", "val"))
    network = timm_network(task.backbone, len(train.dataset.reader.class_to_idx))
    if task.trainable == "head":
        network.requires_grad_(False)
        head: nn.Module = network.get_classifier()  # type: ignore[operator]
        head.requires_grad_(True)
    return Parts(network, train, val, lambda of: create_optimizer_v2(of, opt="adam", lr=task.lr))


def timm_network(backbone: str, classes: int) -> nn.Module:
    """The network by cxrnet's name, with random weights."""
    return create_model(NAMES.get(backbone, backbone), pretrained=False, num_classes=classes)


def _loader(task: Training, split: str) -> Any:  # noqa: ANN401 (a loader, or timm's own around one)
    training, device = split == "train", torch.device(task.device)
    return create_loader(
        create_dataset("", root=task.root, split=split, is_training=training),
        (3, task.size[0], task.size[1]),
        task.batch_size,
        is_training=training,
        no_aug=training and not task.augment,
        scale=(0.9, 1.0),
        color_jitter=0.0,
        num_workers=WORKERS,
        device=device,
        use_prefetcher=device.type == "cuda",  # which it is for
        persistent_workers=training and WORKERS > 0,
    )
