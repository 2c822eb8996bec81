"""Fusion of batch norms and activations into convolutions, for evaluation: the same output up to rounding, but faster.

In evaluation a batch norm is a fixed scale and shift of each channel, which the convolution before it can do itself
(https://docs.pytorch.org/tutorials/intermediate/fx_conv_bn_fuser.html). On Intel and AMD processors oneDNN's
convolutions can also do the activation after it. The traced graph only tells what follows what: the copy keeps its own
modules, names and ``forward``.
"""

import copy
import logging
from collections import Counter
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)

# oneDNN's names of activations, and their parameters. torch keeps these calls for its own compiler and may change them;
# test_fusion.py sees whether they are there and give the same.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0, 6])}

logger = logging.getLogger("cxrnet")


def fused(module: M) -> M:
    """Copy a module for evaluation, with batch norms fused into the convolutions before them.

    ReLU and ReLU6 are fused too on a processor that can, unless a number in the module is not finite.

    Args:
        module: left as it is. One that ``torch.fx`` can't trace (some of timm) is copied without fusion.

    Returns:
        The copy: in evaluation mode, without gradients, in the same memory format.
    """
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    followers = _followers(module)
    for name, after in followers.items():
        conv, norm = copied.get_submodule(name), copied.get_submodule(after)
        if type(conv) is nn.Conv2d and _is_batch_norm(norm):  # a subclass may treat its weights in its own way
            assert isinstance(norm, nn.BatchNorm2d)
            copied.set_submodule(name, fuse_conv_bn_eval(conv, norm))
            # timm's class holds what it does after the normalisation: dropout and activation, in this order.
            copied.set_submodule(after, nn.Sequential(*norm.children()).eval())
    # oneDNN's activations turn NaN into 0: a network that diverged would seem to predict.
    if not fuses_activations() or not all(bool(tensor.isfinite().all()) for tensor in copied.state_dict().values()):
        return copied
    for name, after in followers.items():
        empty = type(follower := copied.get_submodule(after)) is nn.Sequential and len(follower) == 0
        place = followers.get(after, after) if empty else after  # behind a fused batch norm
        conv, activation = copied.get_submodule(name), copied.get_submodule(place)
        plain = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        if plain and type(activation) in _ACTIVATIONS:
            copied.set_submodule(name, _ActivatedConv2d(conv, activation).eval())
            copied.set_submodule(place, nn.Sequential().eval())
    return copied


def fuses_activations() -> bool:
    """Tell whether convolutions can do activations on this processor."""
    on_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return on_x86 and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class _ActivatedConv2d(nn.Module):
    """A convolution and the activation after it; in one pass on the CPU, in float32 and without gradients."""

    def __init__(self, conv: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.activation = activation
        self.name, self.numbers = _ACTIVATIONS[type(activation)]

    def forward(self, images: Tensor) -> Tensor:
        conv = self.conv
        if images.device.type != "cpu" or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return self.activation(conv(images))  # type: ignore[no-any-return]
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            images, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups,
            self.name, self.numbers, "",
        )  # fmt: skip


def _followers(module: nn.Module) -> dict[str, str]:
    """Map a module's name to that of the module that alone takes its output; both are called once."""
    # Other people's forward may keep what it is traced with, so a copy is traced; it shares the numbers.
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    try:
        graph = _Tracer().trace(copy.deepcopy(module, shared).eval())
    except Exception as error:  # a forward that is run on stand-ins for tensors may fail in any way
        logger.info("no fusion in %s: %s", type(module).__name__, str(error).partition("\n")[0])
        return {}
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found = {}
    for node in graph.nodes:
        if node.op != "call_module" or len(node.all_input_nodes) != 1:
            continue
        (before,) = node.all_input_nodes
        if before.op == "call_module" and len(before.users) == calls[before.target] == calls[node.target] == 1:
            found[before.target] = node.target
    return found


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_batch_norm(m) or super().is_leaf_module(m, module_qualified_name)


def _is_batch_norm(module: nn.Module) -> bool:
    known = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"  # the latter is timm's
    return known and module.running_mean is not None
