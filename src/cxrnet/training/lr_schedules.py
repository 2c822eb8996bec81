"""Learning-rate schedules, stepped once an epoch, and weight decay, which follows the rate at every step."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from cxrnet.errors import CxrnetError


def lr_schedule(optimizer: Optimizer, spec: Mapping[str, Any], epochs: int, monitor: str, mode: str) -> dict[str, Any]:
    """Lightning's ``lr_scheduler`` dictionary of a phase's ``lr_schedule``.

    Args:
        optimizer: whose rates are scheduled.
        spec: ``{name: plateau, factor: 0.5, patience: 2}`` or ``{name: cosine, warmup_epochs: 1}``.
        epochs: of the phase.
        monitor: the metric that a plateau watches.
        mode: ``min`` or ``max``.

    Raises:
        CxrnetError: the specification is none of these.
    """
    match dict(spec):
        case {"name": "plateau", "factor": float(factor), "patience": int(patience), **rest} if not rest:
            plateau = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)  # type: ignore[arg-type]
            return {"scheduler": plateau, "monitor": monitor, "interval": "epoch"}
        case {"name": "cosine", "warmup_epochs": int(warmup), **rest} if not rest and 0 <= warmup < epochs:
            return {"scheduler": _cosine(optimizer, epochs, warmup), "interval": "epoch"}
    raise CxrnetError(
        f"phase: lr_schedule: {dict(spec)} is not known; use {{name: plateau, factor: 0.5, patience: 2}} or "
        f"{{name: cosine, warmup_epochs: 1}} with fewer warm-up epochs than the phase has ({epochs})"
    )


def _cosine(optimizer: Optimizer, epochs: int, warmup: int) -> LRScheduler:
    """Cosine decay to zero (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5) after a linear warm-up."""
    decay = CosineAnnealingLR(optimizer, T_max=epochs - warmup)
    if warmup == 0:
        return decay
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [rise, decay], milestones=[warmup])


class WeightDecay(Callback):
    """Shrinks what is trained before each step by ``decay`` / (steps of the phase) x rate / (first rate).

    So decay does the same with few images and with many, at any number of epochs (Wang & Aitchison 2024,
    arXiv:2405.13698), and whatever the optimizer: it is apart from the gradient, as in AdamW (Loshchilov & Hutter 2019,
    arXiv:1711.05101). At a constant rate weights that get no gradient end at exp(-``decay``) of their size; a cosine
    makes that exp(-``decay`` / 2).

    Args:
        decay: from 0 on.
        lr: the first rate.
    """

    def __init__(self, decay: float, lr: float) -> None:
        self.decay, self.lr = decay, lr

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Shrink the weights that the optimizer is about to change."""
        part = self.decay / trainer.estimated_stepping_batches
        with torch.no_grad():
            for group in optimizer.param_groups:
                torch._foreach_mul_(group["params"], 1 - part * group["lr"] / self.lr)
