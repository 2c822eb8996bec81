"""A loop made of timm's parts, as its ``train.py`` and ``benchmark.py`` put them together."""

import time
from typing import Any

import torch
from timm.data import create_dataset, create_loader  # type: ignore[attr-defined]  # nothing there says that it is exported
from timm.models import create_model
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn

from cxrnet.benchmarking.contenders.loop import fit
from cxrnet.benchmarking.contenders.memory import peak_memory

NAMES = {"mobilenet_v2": "mobilenetv2_100"}  # what timm calls otherwise
WORKERS = 2


def train(
    root: str,
    backbone: str,
    trainable: str,
    size: list[int],
    batch_size: int,
    augment: bool,
    epochs: int,
    steps: int | None,
    lr: float,
    bf16: bool,
    channels_last: bool,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """From image files to a trained network, from random weights; the arguments are those of the plain loop."""
    torch.manual_seed(seed)
    chosen, begin = torch.device(device), time.perf_counter()
    batches, val = (_loader(root, split, size, batch_size, augment, chosen) for split in ("train", "val"))
    classes = len(batches.dataset.reader.class_to_idx)
    network = create_model(NAMES.get(backbone, backbone), pretrained=False, num_classes=classes).to(chosen)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    if trainable == "head":
        network.requires_grad_(False)
        head: nn.Module = network.get_classifier()  # type: ignore[operator]
        head.requires_grad_(True)
    optimizer = create_optimizer_v2(network, opt="adam", lr=lr)
    watch, accuracy = fit(network, batches, val, optimizer, chosen, epochs, steps, bf16, channels_last)
    return {
        "seconds": time.perf_counter() - begin,
        "images_per_second": watch.rate,
        "val_accuracy": accuracy,
        "memory_mb": peak_memory(),
    }


def _loader(root: str, split: str, size: list[int], batch_size: int, augment: bool, device: torch.device) -> Any:  # noqa: ANN401 (a loader, or timm's own around one)
    training = split == "train"
    return create_loader(
        create_dataset("", root=root, split=split, is_training=training),
        (3, size[0], size[1]),
        batch_size,
        is_training=training,
        no_aug=training and not augment,
        scale=(0.9, 1.0),
        color_jitter=0.0,
        num_workers=WORKERS,
        device=device,
        use_prefetcher=device.type == "cuda",  # which it is for
        persistent_workers=training,
    )
