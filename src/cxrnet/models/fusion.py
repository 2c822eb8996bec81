"""Networks for evaluation alone: the same output up to rounding, with fewer passes over memory.

In evaluation a batch norm is a fixed scale and shift of each channel, which the convolution before it can do itself
(https://docs.pytorch.org/tutorials/intermediate/fx_conv_bn_fuser.html). On processors of Intel and AMD oneDNN's
convolutions can also do the activation after it, while the numbers are at hand. The graph only tells what follows
what: the copy keeps its own modules, names and ``forward``.
"""

import copy
import logging
from collections import Counter
from collections.abc import Mapping
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)

# What oneDNN calls an activation, and its numbers. torch keeps these calls for its own compiler, so that a new release
# may change them; test_folding.py sees whether they are there and give the same.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0, 6])}

logger = logging.getLogger("cxrnet")


def folded(module: M) -> M:
    """An evaluation copy whose batch norms are folded into the convolutions before them.

    On a processor that can, ReLU and ReLU6 are done by the convolutions too, unless the network holds a number that is
    not finite.

    Args:
        module: left as it is. One that ``torch.fx`` can't trace (some of timm) is copied without folding.

    Returns:
        The copy: in evaluation mode, no parameter requires a gradient, the memory format is kept. Its output is that of
        the module up to rounding.
    """
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    followers = _followers(module)
    _fold_batch_norms(copied, followers)
    # oneDNN's activations make 0 of what is not a number: a network that diverged would seem to predict.
    if fuses_activations() and all(bool(tensor.isfinite().all()) for tensor in copied.state_dict().values()):
        _fuse_activations(copied, followers)
    return copied


def _fold_batch_norms(copied: nn.Module, followers: Mapping[str, str]) -> None:
    for name, after in followers.items():
        conv, norm = copied.get_submodule(name), copied.get_submodule(after)
        if type(conv) is nn.Conv2d and _is_batch_norm(norm):  # a class made of it may treat its weights in its own way
            assert isinstance(norm, nn.BatchNorm2d)
            copied.set_submodule(name, fuse_conv_bn_eval(conv, norm))
            # That of timm holds what it does after the normalisation: dropout and activation, in this order.
            copied.set_submodule(after, nn.Sequential(*norm.children()).eval())


def _fuse_activations(copied: nn.Module, followers: Mapping[str, str]) -> None:
    for name, after in followers.items():
        folded_away = _is_nothing(copied.get_submodule(after))  # a batch norm
        place = followers.get(after, after) if folded_away else after
        conv, activation = copied.get_submodule(name), copied.get_submodule(place)
        if type(activation) in _ACTIVATIONS and _can_activate(conv):
            copied.set_submodule(name, _ActivatedConv2d(conv, activation).eval())
            copied.set_submodule(place, nn.Sequential().eval())


def _can_activate(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    return type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def fuses_activations() -> bool:
    """Whether convolutions can do activations on this processor."""
    on_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return on_x86 and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class _ActivatedConv2d(nn.Module):
    """A convolution and the activation after it; in one pass on the CPU, in float32 and without gradients."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
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
    """Names of modules, and of the module that alone takes the output of each; of those that are called once."""
    # Other people's forward may keep what it is traced with, so a copy is traced; it shares the numbers.
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    shadow = copy.deepcopy(module, shared).eval()
    try:
        graph = _Tracer().trace(shadow)
    except Exception as error:  # a forward that is run on stand-ins for tensors may fail in any way
        logger.info("batch norms of %s stay as they are: %s", type(module).__name__, str(error).partition("\n")[0])
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


def _is_nothing(module: nn.Module) -> bool:
    return type(module) is nn.Sequential and len(module) == 0
