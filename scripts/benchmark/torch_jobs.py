"""A plain torchvision loop, as a user would write it, and the ceiling: the same steps on a batch in memory."""

import time
from collections.abc import Callable, Iterable
from itertools import islice, repeat
from typing import Any

import torch
import torchvision.models as tv
from shared import Stopwatch, Task, peak_memory
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader
from torchvision import transforms as T  # as everybody calls it
from torchvision.datasets import ImageFolder

from cxrnet.core.process import keep_freed_memory
from cxrnet.inference import ieee_convolutions
from cxrnet.models.backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from cxrnet.models.backbones.weights import load_weights
from cxrnet.models.freezing import set_trainable
from cxrnet.models.fusion import fused as fused_copy
from cxrnet.models.network import Network
from cxrnet.models.settings import NetworkConfig

Batches = Iterable[tuple[Tensor, Tensor]]
MakeOptimizer = Callable[[nn.Module], Optimizer]
"""Makes an optimizer of a network that is on its device."""
WORKERS = 2
WARM_UP = 3  # steps of the ceiling: kernels are chosen, memory is fetched
CLASSES = 4  # of the ceiling


def starting_network(task: Task, classes: int) -> Network:
    """Make a network of cxrnet with a linear head, with the weights and the frozen layers of the task."""
    names, size = tuple(f"class {k}" for k in range(classes)), (task.size[0], task.size[1])
    network = Network(NetworkConfig(backbone=task.backbone, classes=names, size=size))
    load_weights(network.backbone, task.backbone, task.weights, size)
    set_trainable(network, task.trainable)
    return network


def torchvision_network(task: Task, classes: int) -> nn.Module:
    """Make torchvision's network with a new head, and with the weights and the frozen parameters of cxrnet's."""
    like = starting_network(task, classes)
    network: nn.Module = getattr(tv, task.backbone)(weights=None)
    if hasattr(network, "fc"):
        network.fc = nn.Linear(like.n_features, classes)
    else:
        network.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(like.n_features, classes))
        network.avgpool = nn.AdaptiveAvgPool2d(1)  # VGG has another one
    network.load_state_dict(like.backbone.state_dict(), strict=False)  # the names are torchvision's
    frozen = {name for name, parameter in like.backbone.named_parameters() if not parameter.requires_grad}
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name not in frozen
    return network


def plain(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Train from image files with ImageFolder, transforms, workers and Adam."""
    task, begin = Task(**settings), time.perf_counter()
    torch.manual_seed(task.seed)
    augment = [T.RandomHorizontalFlip(), T.RandomAffine(7, (0.05, 0.05), (0.95, 1.05))] if task.augment else []
    train, val = (_loader(f"{task.root}/{split}", task, augment) for split in ("train", "val"))
    network = torchvision_network(task, len(train.dataset.classes))  # type: ignore[attr-defined]
    return from_files(
        task, begin, network, train, val, lambda of: Adam([p for p in of.parameters() if p.requires_grad], lr=task.lr)
    )


def _loader(folder: str, task: Task, augment: list[Any]) -> DataLoader[Any]:
    train = folder.endswith("/train")
    steps = [T.Resize(task.size), *(augment if train else []), T.ToTensor(), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    return DataLoader(ImageFolder(folder, T.Compose(steps)), task.batch_size, shuffle=train, num_workers=WORKERS)


@torch.no_grad()
def plain_predict(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Predict every training image of a folder."""
    task, begin = Task(**settings), time.perf_counter()
    network = torchvision_network(task, CLASSES).to(task.device).eval()
    loader = _loader(f"{task.root}/train", task, [])
    predicted = torch.cat([network(images.to(task.device)).softmax(1).cpu() for images, _ in loader])
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "images_per_second": len(predicted) / seconds, **peak_memory(task.device)}


def from_files(
    task: Task, begin: float, network: nn.Module, train: Batches, val: Batches, optimizer: MakeOptimizer
) -> dict[str, Any]:
    """Train from image files; ``begin`` is when the work on them began, in ``time.perf_counter``'s seconds."""
    epochs = (islice(train, task.steps) for _ in range(task.epochs))
    watch, accuracy = fit(task, network, epochs, val, optimizer)
    numbers = {"images_per_second": watch.rate, "images": watch.images[-1], "val_accuracy": accuracy}
    return {"seconds": time.perf_counter() - begin, **numbers, **peak_memory(task.device)}


def fit(
    task: Task, network: nn.Module, epochs: Iterable[Batches], val: Batches, optimizer: MakeOptimizer
) -> tuple[Stopwatch, float]:
    """Train as people do in PyTorch, and look at the validation images after every epoch.

    Returns:
        The clock, and the accuracy on the validation images after the last epoch.
    """
    device, layout = torch.device(task.device), torch.channels_last if task.channels_last else torch.contiguous_format
    network = network.to(device).to(memory_format=layout)
    stepper, loss_of = optimizer(network), nn.CrossEntropyLoss()
    watch, accuracy = Stopwatch(task.device), float("nan")
    for batches in epochs:
        network.train()
        seen = 0
        watch.start()
        for images, labels in batches:
            images, labels = images.to(device, memory_format=layout), labels.to(device)  # noqa: PLW2901
            with torch.autocast(device.type, torch.bfloat16, enabled=task.bf16):
                loss = loss_of(network(images), labels)
            stepper.zero_grad()
            loss.backward()
            stepper.step()
            seen += len(labels)
        watch.stop(seen)
        network.eval()
        with torch.no_grad():
            right = [
                network(images.to(device, memory_format=layout)).argmax(1).cpu() == labels.cpu()
                for images, labels in islice(val, task.steps and 1)
            ]
        accuracy = float(torch.cat(right).float().mean()) if right else accuracy
    return watch, accuracy


def ceiling(compiled: bool = False, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Train all layers of cxrnet's network on one random batch; under ``torch.compile`` if asked for."""
    task = Task(**settings)
    network = _whole(task)
    return resident_steps(task, torch.compile(network) if compiled else network, _fused_adam)  # type: ignore[arg-type]


def ceiling_in_bf16_arithmetic(**settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Train in float32 while oneDNN computes convolutions in bfloat16, on a processor that can.

    ``logits_moved`` is the relative L2 distance that this moves the logits of a batch by; 0 on other processors.
    """
    task = Task(**settings)
    network, (images, _) = _whole(task).to(memory_format=torch.channels_last), _batch(task)
    with torch.inference_mode():
        exact = network.eval()(images)
        torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]  # made at run time
        moved = float((network(images) - exact).norm() / exact.norm())
    return {**resident_steps(task, network, _fused_adam), "logits_moved": moved}


def ceiling_predict(fused: bool, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (a Task)
    """Do forward passes on one random batch; with ``fused``, as cxrnet does them (:mod:`cxrnet.models.fusion`)."""
    task = Task(**settings)
    network, (images, _) = _whole(task).eval(), _batch(task)
    network = fused_copy(network) if fused else network
    network.to(task.device).to(memory_format=torch.channels_last if task.channels_last else torch.contiguous_format)
    watch = Stopwatch(task.device)
    with torch.inference_mode(), ieee_convolutions():
        for steps in (WARM_UP, task.steps or 1):
            watch.start()
            for _ in range(steps):
                network(images)
            watch.stop(steps * task.batch_size)
    return {"images_per_second": watch.rate, "images": watch.images[-1], **peak_memory(task.device)}


def resident_steps(task: Task, network: nn.Module, optimizer: MakeOptimizer) -> dict[str, Any]:
    """Train on a batch that lies on the device: warm-up, then the steps of the task."""
    torch.backends.cudnn.benchmark = task.device == "cuda"  # as timm has it; every batch has the same shape
    batch = _batch(task)
    epochs = [repeat(batch, steps) for steps in (WARM_UP, task.steps or 1)]
    watch, _ = fit(task, network, epochs, (), optimizer)
    warm_up = watch.seconds[0] - WARM_UP * watch.seconds[1] / (task.steps or 1)
    numbers = {"images_per_second": watch.rate, "images": watch.images[-1], "warm_up_seconds": warm_up}
    return {**numbers, **peak_memory(task.device)}


def _whole(task: Task) -> nn.Module:
    keep_freed_memory()  # as every command of cxrnet does
    network = starting_network(task, CLASSES)
    return nn.Sequential(network.backbone, network.pool, network.head)


def _batch(task: Task) -> tuple[Tensor, Tensor]:
    layout = torch.channels_last if task.channels_last else torch.contiguous_format
    images = torch.rand(task.batch_size, 3, *task.size, device=task.device).to(memory_format=layout)
    return images, torch.randint(CLASSES, (task.batch_size,), device=task.device)


def _fused_adam(network: nn.Module) -> Optimizer:
    return Adam(network.parameters(), lr=1e-4, fused=True)
