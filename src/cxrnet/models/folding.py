"""Batch norms folded into the convolutions before them: the same output, with fewer passes over memory.

In evaluation a batch norm is a fixed scale and shift of each channel, which the convolution before it can do itself
(https://docs.pytorch.org/tutorials/intermediate/fx_conv_bn_fuser.html). The graph only tells which batch norm follows
which convolution: the copy keeps its own modules, names and ``forward``.
"""

import copy
import logging
from collections import Counter
from typing import TypeVar

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

M = TypeVar("M", bound=nn.Module)

logger = logging.getLogger("cxrnet")


def folded(module: M) -> M:
    """An evaluation copy whose batch norms are folded into the convolutions before them.

    Args:
        module: left as it is. One that ``torch.fx`` can't trace (some of timm) is copied without folding.

    Returns:
        The copy: in evaluation mode, no parameter requires a gradient, the memory format is kept.
    """
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    modules = dict(copied.named_modules())
    for conv_name, norm_name in _pairs(module):
        conv, norm = modules[conv_name], modules[norm_name]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        copied.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        # That of timm holds what it does after the normalisation: dropout and activation, in this order.
        copied.set_submodule(norm_name, nn.Sequential(*norm.children()).eval())
    return copied


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of convolutions and of the batch norms that alone take their output."""
    # Other people's forward may keep what it is traced with, so a copy is traced; it shares the numbers.
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    shadow = copy.deepcopy(module, shared).eval()
    try:
        graph = _Tracer().trace(shadow)
    except Exception as error:  # a forward that is run on stand-ins for tensors may fail in any way
        logger.info("batch norms of %s stay as they are: %s", type(module).__name__, str(error).partition("\n")[0])
        return []
    modules = dict(shadow.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    found = []
    for node in graph.nodes:
        if node.op != "call_module" or not _is_batch_norm(modules[node.target]):
            continue
        before = node.args[0]
        if (
            before.op == "call_module"
            and type(modules[before.target]) is nn.Conv2d  # a class made of it may treat its weights in its own way
            and len(before.users) == calls[before.target] == calls[node.target] == 1
        ):
            found.append((before.target, node.target))
    return found


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_batch_norm(m) or super().is_leaf_module(m, module_qualified_name)


def _is_batch_norm(module: nn.Module) -> bool:
    known = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"  # the latter is timm's
    return known and module.running_mean is not None
