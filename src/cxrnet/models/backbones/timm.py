"""Backbones of timm, by the names that timm gives them: ``timm/resnet18``, ``timm/vit_tiny_patch16_224.augreg_in21k``.

They pool by their own rules (a transformer by its class token, say) and give features (N, F). Names, normalisation and
weights are looked up in timm, so a new release of timm brings its new backbones along. This module is imported when
a timm backbone is asked for, and not before.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.spec import BackboneSpec, Published, Size, from_url

HUB_FILE = "model.safetensors"
Triple = tuple[float, float, float]


def timm_spec(name: str) -> BackboneSpec:
    """Look a backbone up by timm's name, with or without the tag of its weights (``resnet18``, ``resnet18.tv_in1k``).

    Raises:
        CxrnetError: timm has no such backbone, or no such weights for it.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        advice = f"nearest: {', '.join(near)}" if near else "timm.list_models() names all"
        raise CxrnetError(f"model.backbone: timm has no '{architecture}'; {advice}")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if tag and name not in tagged:
        raise CxrnetError(f"model.backbone: timm has no weights '{tag}' for {architecture}; it has {', '.join(tagged)}")
    settings = timm.get_pretrained_cfg(name) or PretrainedCfg()
    return BackboneSpec(
        build=partial(_build, name, settings),
        published=_published(name, settings),
        mean=cast("Triple", tuple(settings.mean)),
        std=cast("Triple", tuple(settings.std)),
        own_pool=True,
    )


def _build(name: str, settings: PretrainedCfg, size: Size, **weights: Any) -> nn.Module:  # noqa: ANN401 (timm's own)
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


def _published(name: str, settings: PretrainedCfg) -> Published | None:
    """Find the weights where timm itself would: on the hub if they are there, else at an address."""

    def fit(state: Mapping[str, Tensor], size: Size) -> Mapping[str, Tensor]:
        # timm renames keys of older files, interpolates position embeddings to the size, and drops the classifier.
        model = _build(name, settings, size, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)})
        return model.state_dict()

    if settings.hf_hub_id:
        return Published(
            address=f"hf-hub:{settings.hf_hub_id}",
            fetch=lambda size: fit(load_file(_hub_file(str(settings.hf_hub_id))), size),
            cached=lambda: _cached(str(settings.hf_hub_id)),
        )
    return from_url(str(settings.url), fit) if settings.url else None


def _cached(repository: str) -> Path | None:
    found = try_to_load_from_cache(repository, HUB_FILE)
    return Path(found) if isinstance(found, str) else None


def _hub_file(repository: str) -> Path:
    """Find the weights in the hub's cache, after downloading them if need be."""
    if (cached := _cached(repository)) is not None:
        return cached
    # The hub's client asks six times for each of two files, 47 seconds without a network. So we knock first.
    try:
        urlopen(Request(hf_hub_url(repository, HUB_FILE), method="HEAD")).close()
    except HTTPError as error:  # an answer, even if it is no; the client knows what to make of it
        error.close()
    return Path(hf_hub_download(repository, HUB_FILE))
