"""Tables of features: the output of a frozen trunk for each image, computed once and kept in the cache.

A table lies in the cache under the name of all that it depends on, so the runs of a sweep over heads, rates or losses
share it. What has no such name, an augmentation of the user's own, is computed for the run and stays in memory.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import NoneType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.backends import cudnn, mkldnn

from cxrnet.core.cache import kept, new_array
from cxrnet.core.console import bar
from cxrnet.data.augment import Augmentation, Geometric
from cxrnet.data.images import store
from cxrnet.data.images.reader import Images
from cxrnet.data.settings import ResizeRule

Table = npt.NDArray[np.float32]  # (V, N, F) or (V, N, h, w, C): V views of N images, channels last

_FORMAT = 2  # of the files, and of how features are computed
_FILE = "table.npy"

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Views:
    """The images of a table: those of a split, each as often as there are views; the first view is the image itself.

    Attributes:
        images: N of them.
        digests: SHA-256 of their files.
        resize: how they were brought to their size.
        augment: makes a further view of a batch of images; ``None`` where there is none.
        number: number of views, V.
        seed: seed of the augmentation.
    """

    images: Images
    digests: Sequence[str]
    resize: ResizeRule
    augment: Augmentation | None
    number: int
    seed: int


def features_of(
    trunk: nn.Module, views: Views, shape: Sequence[int], device: torch.device, batch_size: int, cache: Path | None
) -> Table:
    """Return the features of some images, in memory or mapped from a read-only file; computed if not in the cache.

    Args:
        trunk: trunk of :class:`cxrnet.models.freezing.SplitNetwork`; moved to the device.
        views: views of the images.
        shape: shape of the features of an image, channels first, as the trunk gives them.
        device: where the trunk runs.
        batch_size: images that go through the trunk at a time, at most.
        cache: folder of the tables; ``None`` keeps them in memory.

    Raises:
        CxrnetError: the cache can't be written.
    """
    full = (views.number, len(views.images), *shape[1:], shape[0])
    if cache is not None and not has_name(views.augment):
        logger.info("features of images that are augmented by a function of one's own stay in memory")
        cache = None
    if cache is None:
        table = np.empty(full, np.float32)
        _compute(table, trunk, views, device, batch_size)
        return table
    made_of = json.dumps(_ingredients(trunk, views, device), indent=2)

    def write(folder: Path) -> None:
        (folder / "made_of.json").write_text(made_of, encoding="utf-8")
        _compute(new_array(folder / _FILE, full, np.float32), trunk, views, device, batch_size)

    folder = kept(cache / "features" / hashlib.sha256(made_of.encode()).hexdigest()[:32], write)
    stored: Table = np.load(folder / _FILE, mmap_mode="r")
    return stored


def _ingredients(trunk: nn.Module, views: Views, device: torch.device) -> dict[str, object]:
    """List all that a table depends on: its digest names the table, and it is written beside it."""
    return {
        "front": digest(trunk),  # not renamed: the caches of older versions stay good
        "images": hashlib.sha256("\n".join(views.digests).encode()).hexdigest(),
        "size": views.images.shape[1:],
        "resize": views.resize,
        "augment": repr(views.augment) if views.augment is not None else None,
        "views": views.number,
        "seed": views.seed if views.augment is not None else None,
        "device": device.type,
        "versions": [version(package) for package in ("torch", "torchvision", "timm")],
        "arithmetic": [
            torch.get_float32_matmul_precision(),
            *(operations.fp32_precision for operations in (cudnn.conv, mkldnn.conv, mkldnn.matmul)),  # type: ignore[attr-defined]
            os.environ.get("ONEDNN_DEFAULT_FPMATH_MODE", ""),
        ],
        "format": (_FORMAT, *store.made_with()),
    }


def has_name(augment: Augmentation | None) -> bool:
    """Tell whether an augmentation can be named, so that its views can be found again."""
    return type(augment) in (Geometric, NoneType)


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's structure and of all its numbers."""
    made_of = hashlib.sha256(repr(module).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        made_of.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        made_of.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return made_of.hexdigest()


@torch.no_grad()
def _compute(table: Table, trunk: nn.Module, views: Views, device: torch.device, batch_size: int) -> None:
    """Fill a table; the caller's random state is left as it was.

    Images are augmented in batches that don't follow the run's, on which the views would then depend.
    """
    trunk.to(device)
    drawn = 32 if device.type == "cpu" else 256
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        bar("computing features", table.shape[0] * table.shape[1]) as advance,
    ):
        torch.manual_seed(views.seed)
        for place, view in enumerate(table):
            for start in range(0, len(views.images), drawn):
                batch = torch.from_numpy(views.images[start : start + drawn]).unsqueeze(1).to(device)
                if place > 0 and views.augment is not None:
                    batch = views.augment(batch)
                rows = view[start : start + len(batch)]
                for first in range(0, len(batch), batch_size):
                    features: Tensor = trunk(batch[first : first + batch_size])
                    rows[first : first + batch_size] = features.movedim(1, -1).float().cpu().numpy()
                    advance(len(features))
