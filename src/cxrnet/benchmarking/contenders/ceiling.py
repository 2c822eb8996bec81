"""What the machine can do: the same step on a random batch that is in memory already."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cxrnet.benchmarking.contenders.instruments import synchronise
from cxrnet.benchmarking.contenders.memory import peak_memory
from cxrnet.benchmarking.contenders.start import starting_network
from cxrnet.core.process import keep_freed_memory
from cxrnet.inference import ieee_convolutions
from cxrnet.models.fusion import folded

WARM_UP = 3  # steps: kernels are chosen, memory is fetched
CLASSES = 4


@dataclass(frozen=True)
class Steps:
    """Steps on one batch.

    Attributes:
        size: height and width.
        batch_size: images a step.
        steps: that are timed.
        bf16: mixed precision.
        channels_last: layout.
        device: that does them.
    """

    size: list[int]
    batch_size: int
    steps: int
    bf16: bool
    channels_last: bool
    device: str


def train(backbone: str, compiled: bool, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of Steps)
    """Training steps of all layers of cxrnet's network, with a linear head; by ``torch.compile`` if asked for."""
    steps = Steps(**settings)
    return _train(_whole(backbone, steps), steps, _fused_adam, compiled)


def train_in_bf16_arithmetic(backbone: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of Steps)
    """Training steps in float32, whose convolutions oneDNN computes in bfloat16 on a processor that can.

    What that does to results: ``logits_moved`` is the relative L2 distance of the batch's logits, of random weights; 0
    where oneDNN goes on in float32.
    """
    steps = Steps(**settings)
    network = _whole(backbone, steps)
    images, _ = _place(network, steps)

    @torch.inference_mode()
    def logits() -> Tensor:
        return network.eval()(images)  # type: ignore[no-any-return]

    exact = logits()
    torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]  # made at run time
    moved = float((logits() - exact).norm() / exact.norm())
    return {**_train(network.train(), steps, _fused_adam), "logits_moved": moved}


def train_timm(backbone: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of Steps)
    """The step of ``benchmark.py --bench train`` of timm: its model and its optimizer (SGD), the same random batch."""
    from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]  # nothing there says that it is exported

    from cxrnet.benchmarking.contenders.timm_recipe import timm_network

    network = timm_network(backbone, CLASSES)
    return _train(network, Steps(**settings), lambda of: create_optimizer_v2(of, opt="sgd", lr=1e-4))


def predict(backbone: str, fold: bool, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 (those of Steps)
    """Forward passes in evaluation mode; with ``fold``, as cxrnet itself does them (:mod:`cxrnet.models.fusion`)."""
    steps = Steps(**settings)
    whole = _whole(backbone, steps).eval()
    whole = folded(whole) if fold else whole
    images, _ = _place(whole, steps)

    @torch.inference_mode()
    def step() -> None:
        with ieee_convolutions(), torch.autocast(steps.device, torch.bfloat16, enabled=steps.bf16):
            whole(images)

    return _rate(step, steps)


def _whole(backbone: str, steps: Steps) -> nn.Module:
    network = starting_network(backbone, "none", "all", steps.size, CLASSES)
    return nn.Sequential(network.backbone, network.pool, network.head)


def _fused_adam(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)


def _train(
    network: nn.Module,
    steps: Steps,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    compiled: bool = False,
) -> dict[str, Any]:
    loss_of = nn.CrossEntropyLoss()
    images, labels = _place(network, steps)
    optimizer = make_optimizer(network)
    forward: Callable[[Tensor], Tensor] = torch.compile(network) if compiled else network

    def step() -> None:
        with torch.autocast(steps.device, torch.bfloat16, enabled=steps.bf16):
            loss = loss_of(forward(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _rate(step, steps)


def _place(network: nn.Module, steps: Steps) -> tuple[Tensor, Tensor]:
    """Bring the network into the layout, on the device, and make a random batch there."""
    keep_freed_memory()
    torch.backends.cudnn.benchmark = steps.device == "cuda"  # as timm has it; every batch has the same shape
    layout = torch.channels_last if steps.channels_last else torch.contiguous_format
    images = torch.rand(steps.batch_size, 3, *steps.size, device=steps.device).to(memory_format=layout)
    labels = torch.randint(CLASSES, (steps.batch_size,), device=steps.device)
    network.to(steps.device).to(memory_format=layout)
    return images, labels


def _rate(step: Callable[[], None], steps: Steps) -> dict[str, Any]:
    device = torch.device(steps.device)
    begin = time.perf_counter()
    for _ in range(WARM_UP):
        step()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(steps.steps):
        step()
    synchronise(device)
    seconds = time.perf_counter() - start
    return {
        "images_per_second": steps.steps * steps.batch_size / seconds,
        "images": steps.steps * steps.batch_size,
        # What the first steps took beyond what they take later.
        "warm_up_seconds": start - begin - WARM_UP * seconds / steps.steps,
        **peak_memory(steps.device),
    }
