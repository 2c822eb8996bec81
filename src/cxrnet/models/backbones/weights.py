"""Loading of weights into a backbone: published ImageNet weights, a file, or none.

``auto``      the local cache, then the official download; if neither can be had, random weights, loudly
``imagenet``  the same, but an error if they can't be had
``none``      random weights
a path        a ``.safetensors`` file or a weights-only checkpoint
"""

import logging
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.registry import Size, backbone_spec

DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer
_WRAPPERS = re.compile(r"^(module\.)?(network\.)?(backbone\.)?")  # DDP, our checkpoints, our bundles

# Errors of reading a damaged file: torch's reader of pickles checks little of what it finds.
UNREADABLE = (
    OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error,
    SafetensorError,
)  # fmt: skip

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class LoadedWeights:
    """Weights that a network starts from.

    Attributes:
        origin: where they come from.
        detail: the file or address, or why there are none.
        fallback: the user wanted weights and got none; the report and MLflow must say so.
        unused: keys of the file that the backbone doesn't have, such as the classifier for ImageNet.
    """

    origin: Literal["imagenet", "file", "random"]
    detail: str
    fallback: bool = False
    unused: tuple[str, ...] = ()

    @property
    def pretrained(self) -> bool:
        """True where the weights are trained ones, so that the backbone can be frozen."""
        return self.origin != "random"


def load_weights(backbone: nn.Module, name: str, weights: str, size: Size) -> LoadedWeights:
    """Load weights into a backbone in place.

    Args:
        backbone: as built by :mod:`cxrnet.models.backbones.registry` for images of a size.
        name: the backbone's name.
        weights: ``auto``, ``imagenet``, ``none`` or the path of a file.
        size: height and width in pixels.

    Raises:
        CxrnetError: ``imagenet`` isn't available, or the file is missing, unreadable, or of another architecture.
    """
    if weights == "none":
        return LoadedWeights("random", "not asked for (model.weights=none)")
    if weights not in ("auto", "imagenet"):
        return LoadedWeights("file", weights, unused=_fill(backbone, _read(Path(weights)), name, weights))
    published = backbone_spec(name).published
    if published is None:
        if weights == "imagenet":
            raise CxrnetError(f"model.weights: there are no ImageNet weights for {name}; use auto, none or a file")
        return LoadedWeights("random", f"none are published for {name}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # torch.hub has no time-out of its own and would hang behind a firewall
    try:
        state = published.fetch(size)
    except (*UNREADABLE, UnpicklingError) as error:
        # URLError and time-outs are OSErrors, a wrong hash is a RuntimeError; the rest is a damaged file in the cache.
        cached = published.cached()
        line = f"ImageNet weights for {name} can't be had: "
        if cached is not None and cached.is_file():
            line += f"'{cached}' is damaged ({type(error).__name__}); delete it"
        else:
            line += f"{published.address} ({_first_line(error)})" + (f", and '{cached}' isn't there" if cached else "")
        if weights == "imagenet":
            place = "put a good file there or " if cached else ""
            raise CxrnetError(f"model.weights: {line}; {place}name one with model.weights=<file>") from error
        logger.warning("%s. Training from scratch, with nothing frozen.", line)
        return LoadedWeights("random", line, fallback=True)
    finally:
        socket.setdefaulttimeout(before)
    return LoadedWeights("imagenet", published.address, unused=_fill(backbone, state, name, published.address))


def _read(path: Path) -> Mapping[str, Tensor]:
    """Read a file of weights without running code."""
    if not path.is_file():
        raise CxrnetError(f"model.weights: '{path}' is not a file; use auto, imagenet, none or an existing file")
    try:
        state: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except UNREADABLE as error:
        raise CxrnetError(f"model.weights: '{path}' can't be read ({_first_line(error)})") from error
    except UnpicklingError as error:  # weights_only refuses anything that could run code
        raise CxrnetError(
            f"model.weights: '{path}' holds something else than plain tensors and is not loaded, for it could run "
            "code; save model.state_dict() with torch.save or as .safetensors"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CxrnetError(f"model.weights: '{path}' holds no state_dict; save model.state_dict()")
    return state


def _fill(backbone: nn.Module, state: Mapping[str, Tensor], name: str, origin: str) -> tuple[str, ...]:
    """Copy a state into the backbone, in which every parameter must be there and fit; return the unused keys."""
    state = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unused = tuple(key for key in state if key not in wanted)
    misfits = [key for key in wanted if key in state and wanted[key].shape != state[key].shape]
    if missing or misfits:
        raise CxrnetError(
            f"model.weights: '{origin}' is not of the architecture {name}: "
            f"{_list('missing', missing)}, {_list('of another shape', misfits)}, {_list('unexpected', list(unused))}"
        )
    backbone.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)
    return unused


def _list(what: str, keys: list[str]) -> str:
    shown = f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
    return f"{len(keys)} {what}{shown}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
