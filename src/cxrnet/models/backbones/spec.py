"""What a backbone is made of: how it is built, and its published weights, where they are and how to get them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of images scaled to 0..1, as torchvision's weights want them
IMAGENET_STD = (0.229, 0.224, 0.225)


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


@dataclass(frozen=True)
class BackboneSpec:
    """How to make a backbone, and what belongs to its weights.

    Attributes:
        build: makes the backbone with random weights for images of a height and width.
        published: its ImageNet weights; ``None`` where there are none.
        mean: per channel, of images scaled to 0..1, that the weights want.
        std: per channel, of images scaled to 0..1, that the weights want.
        own_pool: it gives features (N, F) instead of a map.
    """

    build: Callable[[Size], nn.Module]
    published: Published | None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    own_pool: bool = False


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
