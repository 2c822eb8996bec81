"""What the processes of a distributed training share: the rows of a batch, and the statistics of batch norms.

Each process computes with its share of every batch (:class:`cxrnet.data.datamodule.Share`). With the loss and the
statistics of the whole batch, P processes do what one process does with P times the batch size.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cxrnet.errors import CxrnetError

_OWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Sum(torch.autograd.Function):
    """The sum over the processes, whose gradient is the sum of theirs; torch deprecates its own."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:  # noqa: ANN401 (torch's context)
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return _sum_over_processes(gradient)


def _sum_over_processes(values: Tensor) -> Tensor:
    """Add up what the processes have; gradients go back to all of them."""
    return _Sum.apply(values)  # type: ignore[no-any-return]


def whole_batch(rows: Tensor, total: int) -> Tensor:
    """Put the rows of all processes together, (total, ...), in the order of the batch.

    Gradients flow to this process's own rows (B, ...) alone.
    """
    processes, rank = dist.get_world_size(), dist.get_rank()
    sent = rows.new_zeros(math.ceil(total / processes), *rows.shape[1:])
    sent[: len(rows)] = rows.detach()
    received = [torch.empty_like(sent) for _ in range(processes)]
    dist.all_gather(received, sent)
    whole = torch.stack(received, dim=1).flatten(0, 1)[:total]
    whole[rank::processes] = rows
    return whole


@contextmanager
def synced_batch_norms(network: nn.Module, processes: int) -> Iterator[None]:
    """Let batch norms that train take mean and variance over the images of all processes.

    The modules stay the same, whoever holds them: only their class changes, which ``SyncBatchNorm`` of torch, that
    makes other modules, can't give, and it has no CPU.

    Raises:
        CxrnetError: a batch norm of a kind that isn't known.
    """
    found = {}
    if processes > 1:
        found = {norm: type(norm) for norm in network.modules() if isinstance(norm, _BatchNorm)}
    for kind in found.values():
        if kind not in _OWN and kind.__name__ != "BatchNormAct2d":
            raise CxrnetError(f"trainer: {kind.__name__} can't train on several devices; give trainer.devices=1")
    try:
        for norm in found:
            norm.__class__ = SyncedBatchNorm
        yield
    finally:
        for norm, kind in found.items():
            norm.__class__ = kind


class SyncedBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, on CPUs too; timm's with dropout and activation."""

    process_group = None
    _check_input_dim = nn.SyncBatchNorm._check_input_dim
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        """Normalise (B, C, ...); B may be 0 in a process."""
        on_cpu = self.training and input.device.type == "cpu"
        result: Tensor = self._normalised(input) if on_cpu else nn.SyncBatchNorm.forward(self, input)  # type: ignore[arg-type]
        for name in ("drop", "act"):  # of timm's BatchNormAct2d
            if hasattr(self, name):
                result = getattr(self, name)(result)
        return result

    def _normalised(self, batch: Tensor) -> Tensor:
        """Do the same as torch on a GPU, in two passes: first the mean over all images, then the variance about it."""
        dims = [0, *range(2, batch.dim())]
        shape = (-1, *(1 for _ in dims[1:]))
        values = batch if batch.dtype == torch.float64 else batch.float()
        n_own = values.new_tensor([batch.numel() / batch.shape[1]])
        sums = _sum_over_processes(torch.cat([values.sum(dims), n_own]))
        n, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = values - mean.view(shape)
        variance = _sum_over_processes(centred.square().sum(dims)) / n
        self._keep(mean.detach(), variance.detach(), n)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        result = centred * scale.view(shape)
        if self.bias is not None:
            result = result + self.bias.view(shape)
        return result.to(batch.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, n: Tensor) -> None:
        """Update the running statistics (C,) as torch does: the variance there is that of a sample."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        part = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
        self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var.dtype), part)
