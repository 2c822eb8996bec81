"""What the machine can do: the same step on a random batch that is in memory already."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cxrnet.benchmarking.contenders.instruments import synchronise
from cxrnet.benchmarking.contenders.memory import peak_memory
from cxrnet.benchmarking.contenders.start import starting_network
from cxrnet.memory import keep_freed_memory
from cxrnet.models.folding import folded
from cxrnet.models.freezing import Trainable

WARM_UP = 3  # steps: kernels are chosen, memory is fetched


def train(
    backbone: str,
    trainable: Trainable,
    size: list[int],
    batch_size: int,
    steps: int,
    bf16: bool,
    channels_last: bool,
    compiled: bool,
    device: str,
) -> dict[str, Any]:
    """Training steps a second.

    Args:
        backbone: that cxrnet has by that name, with a linear head.
        trainable: as a phase has it; the frozen part is in evaluation mode.
        size: height and width.
        batch_size: images a step.
        steps: that are timed.
        bf16: mixed precision.
        channels_last: layout.
        compiled: by ``torch.compile``; the time that takes is told apart.
        device: that trains.
    """
    network = starting_network(backbone, "none", trainable, size, classes=4)
    return _train(nn.Sequential(network.backbone, network.pool, network.head), **_shared(locals()))


def train_timm(
    backbone: str,
    size: list[int],
    batch_size: int,
    steps: int,
    bf16: bool,
    channels_last: bool,
    compiled: bool,
    device: str,
) -> dict[str, Any]:
    """The step of ``benchmark.py --bench train`` of timm: its model and its optimizer (SGD), the same random batch."""
    from timm.models import create_model
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # nothing there says that it is exported

    from cxrnet.benchmarking.contenders.timm_recipe import NAMES

    network = create_model(NAMES.get(backbone, backbone), pretrained=False, num_classes=4)
    return _train(network, **_shared(locals()), make_optimizer=lambda of: create_optimizer_v2(of, opt="sgd", lr=1e-4))


def predict(
    backbone: str,
    size: list[int],
    batch_size: int,
    steps: int,
    bf16: bool,
    channels_last: bool,
    fold: bool,
    device: str,
) -> dict[str, Any]:
    """Forward passes a second, in evaluation mode; with ``fold``, batch norms folded into convolutions."""
    keep_freed_memory()
    network = starting_network(backbone, "none", "all", size, classes=4)
    chosen = torch.device(device)
    whole: nn.Module = nn.Sequential(network.backbone, network.pool, network.head).eval()
    whole = folded(whole) if fold else whole
    images, _ = _place(whole, size, batch_size, channels_last, chosen)

    @torch.inference_mode()
    def step() -> None:
        with torch.autocast(chosen.type, torch.bfloat16, enabled=bf16):
            whole(images)

    return _rate(step, batch_size, steps, chosen)


def _shared(arguments: dict[str, Any]) -> dict[str, Any]:
    names = ("size", "batch_size", "steps", "bf16", "channels_last", "compiled", "device")
    return {name: arguments[name] for name in names}


def _fused_adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-4, fused=True)


def _train(
    network: nn.Module,
    size: list[int],
    batch_size: int,
    steps: int,
    bf16: bool,
    channels_last: bool,
    compiled: bool,
    device: str,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] = _fused_adam,
) -> dict[str, Any]:
    keep_freed_memory()
    chosen, loss_of = torch.device(device), nn.CrossEntropyLoss()
    images, labels = _place(network, size, batch_size, channels_last, chosen)
    optimizer = make_optimizer(network)
    forward: Callable[[Tensor], Tensor] = torch.compile(network) if compiled else network

    def step() -> None:
        with torch.autocast(chosen.type, torch.bfloat16, enabled=bf16):
            loss = loss_of(forward(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _rate(step, batch_size, steps, chosen)


def _place(
    network: nn.Module, size: list[int], batch_size: int, channels_last: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Bring the network into the layout, on the device, and make a random batch there."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.rand(batch_size, 3, *size).to(device, memory_format=layout)
    labels = torch.randint(4, (batch_size,)).to(device)
    network.to(device).to(memory_format=layout)
    return images, labels


def _rate(step: Callable[[], None], batch_size: int, steps: int, device: torch.device) -> dict[str, Any]:
    begin = time.perf_counter()
    for _ in range(WARM_UP):
        step()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronise(device)
    seconds = time.perf_counter() - start
    return {
        "images_per_second": steps * batch_size / seconds,
        "warm_up_seconds": start - begin,
        "memory_mb": peak_memory(),
    }
