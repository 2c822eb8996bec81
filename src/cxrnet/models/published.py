"""Published weights: where they are, and how to get them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True)
class Published:
    """Weights that somebody published for a backbone.

    Attributes:
        address: for people to read.
        fetch: returns a state that fits the backbone built for images of that height and width; from the local cache
            or by a download, which may end in whatever reading a damaged file ends in.
        cached: the file in the local cache, whether it is there or not; ``None`` where it can't be told.
    """

    address: str
    fetch: Callable[[Size], Mapping[str, Tensor]]
    cached: Callable[[], Path | None]


def from_url(url: str, fit: Callable[[Mapping[str, Tensor], Size], Mapping[str, Tensor]] | None = None) -> Published:
    """Weights in a file at an address, which ends in part of the file's SHA-256.

    Args:
        url: of a state_dict.
        fit: makes the state fit a backbone for images of a size; ``None`` where it fits as it is.
    """

    def fetch(size: Size) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, progress=False, weights_only=True
        )
        return fit(state, size) if fit is not None else state

    return Published(url, fetch, lambda: Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name)
