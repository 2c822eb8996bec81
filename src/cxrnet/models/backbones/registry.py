"""Backbones: networks that turn (N, 3, H, W) into a map of features (N, C, h, w), or into features (N, F).

One of :data:`BACKBONES` is an ``nn.Sequential`` that keeps the published parameter names (torchvision's
``features.0.0.weight``, ``layer1.0.conv1.weight``), so that published weight files load without renaming. Every network
of timm is a backbone too, as ``timm/<name>``: it pools by its own rule (a transformer by its class token, say) to
features (N, F). timm is imported when one is asked for, and looked up, so new releases bring their backbones along.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import torchvision.models as tv
from safetensors.torch import load_file
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.settings import Triple

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of images scaled to 0..1, as torchvision's weights want them
IMAGENET_STD = (0.229, 0.224, 0.225)

_TIMM = "timm/"
_HUB_FILE = "model.safetensors"

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
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
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


def _torchvision(build: Callable[[], nn.Module], weights: tv.WeightsEnum) -> BackboneSpec:
    """Specify a network of torchvision without its pooling and classifier."""

    def without_classifier(_size: Size) -> nn.Sequential:
        parts = [part for part in build().named_children() if part[0] not in ("avgpool", "fc", "classifier")]
        return nn.Sequential(OrderedDict(parts))

    return BackboneSpec(without_classifier, from_url(weights.url))


def _custom_cnn(_size: Size) -> nn.Sequential:
    """Build three blocks of convolution, batch norm, ReLU and 2 x 2 max pooling with 32, 64 and 128 channels."""
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (before, after) in enumerate(pairwise((3, 32, 64, 128)), start=1):
        convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
        blocks[f"block{number}"] = nn.Sequential(
            convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
    return nn.Sequential(blocks)


BACKBONES: dict[str, BackboneSpec] = {
    "mobilenet_v2": _torchvision(tv.mobilenet_v2, tv.MobileNet_V2_Weights.IMAGENET1K_V1),
    "resnet50": _torchvision(tv.resnet50, tv.ResNet50_Weights.IMAGENET1K_V2),
    "vgg16": _torchvision(tv.vgg16, tv.VGG16_Weights.IMAGENET1K_V1),
    "vgg19": _torchvision(tv.vgg19, tv.VGG19_Weights.IMAGENET1K_V1),
    "custom_cnn": BackboneSpec(_custom_cnn, None),
}


def backbone_spec(name: str) -> BackboneSpec:
    """Look a backbone up.

    Raises:
        CxrnetError: there is no backbone of that name, or timm has no such weights for it.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith(_TIMM):
        return _timm_spec(name.removeprefix(_TIMM))
    raise CxrnetError(f"model.backbone: '{name}' is not known; choose one of {', '.join(BACKBONES)}, or {_TIMM}<name>")


def _timm_spec(name: str) -> BackboneSpec:
    """Look a backbone up by timm's name, with the tag of its weights or without (``resnet18.tv_in1k``)."""
    import timm
    from timm.models import PretrainedCfg

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        advice = f"nearest: {', '.join(near)}" if near else "timm.list_models() names all"
        raise CxrnetError(f"model.backbone: timm has no '{architecture}'; {advice}")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        raise CxrnetError(f"model.backbone: timm has no weights '{tag}' for {architecture}; it has {', '.join(tagged)}")
    settings = timm.get_pretrained_cfg(name) or PretrainedCfg()
    build = partial(_build_timm, name, settings)

    def fit(state: Mapping[str, Tensor], size: Size) -> Mapping[str, Tensor]:
        # timm renames keys of older files, interpolates position embeddings to the size, and drops the classifier.
        return build(size, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)}).state_dict()

    published = None  # else the weights are where timm itself would look: on the hub if they are there, else at a URL
    if repository := settings.hf_hub_id:
        published = Published(
            address=f"hf-hub:{repository}",
            fetch=lambda size: fit(load_file(_hub_file(repository)), size),
            cached=lambda: _cached_hub_file(repository),
        )
    elif settings.url:
        published = from_url(str(settings.url), fit)
    mean, std = cast("Triple", tuple(settings.mean)), cast("Triple", tuple(settings.std))
    return BackboneSpec(build, published, mean, std, own_pool=True)


def _build_timm(name: str, settings: "PretrainedCfg", size: Size, **weights: Any) -> nn.Module:  # noqa: ANN401 (timm's)
    import timm

    # timm's flag for architectures that are built for images of one size, such as transformers.
    fixed = {"img_size": size} if settings.fixed_input_size else {}
    try:
        model: nn.Module = timm.create_model(name, num_classes=0, **{"pretrained": False, **fixed, **weights})
    except (AssertionError, ValueError, ZeroDivisionError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CxrnetError(
            f"data.size: timm/{name} can't be built for {size[0]} x {size[1]} pixels ({reason})"
        ) from error
    return model


def _cached_hub_file(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, _HUB_FILE)
    return Path(found) if isinstance(found, str) else None


def _hub_file(repository: str) -> Path:
    """Find the weights in the hub's cache, after downloading them if need be."""
    from huggingface_hub import hf_hub_download, hf_hub_url

    if (cached := _cached_hub_file(repository)) is not None:
        return cached
    # The hub's client asks six times for each of two files, 47 seconds without a network. So we knock first.
    try:
        urlopen(Request(hf_hub_url(repository, _HUB_FILE), method="HEAD")).close()
    except HTTPError as error:  # an answer, even if it is no; the client knows what to make of it
        error.close()
    return Path(hf_hub_download(repository, _HUB_FILE))
