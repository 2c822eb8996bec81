"""The specification of a backbone: how it is built, and its published weights, where they are and how to get them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of images scaled to 0..1, as torchvision's weights want them
IMAGENET_STD = (0.229, 0.224, 0.225)


Size = tuple[int, int]
"""Height and width of images in pixels."""


@dataclass(frozen=True)
class Published:
    """Published weights of a backbone.

    Attributes:
        address: for people to read.
        fetch: loads a state for the backbone of that image size, from the local cache or by a download; raises any of
            :data:`cxrnet.models.backbones.weights.UNREADABLE`.
        cached: names the file in the local cache, which may not exist; ``None`` where it isn't known.
    """

    address: str
    fetch: Callable[[Size], Mapping[str, Tensor]]
    cached: Callable[[], Path | None]


@dataclass(frozen=True)
class BackboneSpec:
    """The builder of a backbone, and the normalisation that its weights were trained with.

    Attributes:
        build: makes the backbone with random weights for images of a height and width.
        published: its ImageNet weights; ``None`` without any.
        mean: per channel, on the scale 0..1.
        std: per channel, on the scale 0..1.
        own_pool: it gives features (N, F) instead of a map.
    """

    build: Callable[[Size], nn.Module]
    published: Published | None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    own_pool: bool = False


def from_url(url: str, fit: Callable[[Mapping[str, Tensor], Size], Mapping[str, Tensor]] | None = None) -> Published:
    """Publish a state_dict at an address that ends in part of the file's SHA-256.

    ``fit`` adapts it to a backbone for images of a size; ``None`` where it fits as it is.
    """

    def fetch(size: Size) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, progress=False, weights_only=True
        )
        return fit(state, size) if fit is not None else state

    return Published(url, fetch, lambda: Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name)
