"""Attribution: which pixels of an image speak for a class, by Grad-CAM and by occlusion, as maps in 0..1.

Both are Captum's (N. Kokhlikyan et al., arXiv:2009.07896) and explain the log odds of a class against all others, which
a network with one sigmoid has too. A map can look right and depend on nothing that the network learned (J. Adebayo et
al. 2018, arXiv:1810.03292): :func:`randomised` gives the network to compare with.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrnet.errors import CxrnetError
from cxrnet.models.backbones.layers import output_shapes, stages
from cxrnet.models.network import Network

if TYPE_CHECKING:
    from PIL.Image import Image

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Explain = Callable[[Network, UInt8Array, Sequence[int]], FloatArray]

_WINDOWS = 8  # occluding windows along each side; they move by half of their width
_TOGETHER = 16  # images in a forward pass
_STRONGEST = 0.65  # how much of the colour covers the picture where the map is 1
_COLOURS = "inferno"  # of matplotlib: told apart by colour-blind readers, and by their brightness alone


@torch.inference_mode(False)
def grad_cam(network: Network, images: UInt8Array, classes: Sequence[int]) -> FloatArray:
    """Explain a class of each image by Grad-CAM (R. R. Selvaraju et al. 2017, arXiv:1610.02391).

    The map is that of the backbone's last layer with a height and a width; of a row of tokens, as a vision transformer
    has it, that before the last block, after which only the class token counts. It is made larger bilinearly.

    Args:
        network: left as it is; it needs no gradients, and may be fused (:mod:`cxrnet.models.fusion`).
        images: ``(N, H, W) uint8`` of the network's size.
        classes: place of the class that is explained, of each image.

    Returns:
        ``(N, H, W) float32`` in 0..1, each map divided by its maximum; all 0 where nothing speaks for the class.

    Raises:
        CxrnetError: Captum is not installed, or the backbone has no layer with a height and a width.
    """
    attr = captum()
    copied, layer = _with_map(network)
    parts = []
    for batch, index in _batches(copied, images, classes):
        method = attr.LayerGradCam(_LogOdds(copied, index), layer)
        with torch.enable_grad():
            # Gradients flow from the images on, as the weights may want none.
            small = method.attribute(batch.clone().requires_grad_(), relu_attributions=True).detach()
        parts.append(F.interpolate(small, images.shape[1:], mode="bilinear").squeeze(1))
    return _scaled(torch.cat(parts))


def occlusion(network: Network, images: UInt8Array, classes: Sequence[int]) -> FloatArray:
    """Explain a class of each image by what covering it costs (M. D. Zeiler & R. Fergus 2014, arXiv:1311.2901).

    Windows of an eighth of the sides, in the mean grey of the image, move by half of their width: 225 forward passes
    an image. Arguments, result and errors are those of :func:`grad_cam`; any backbone will do.
    """
    attr = captum()
    windows = [max(1, side // _WINDOWS) for side in images.shape[1:]]
    parts = []
    for batch, index in _batches(network, images, classes):
        with torch.no_grad():
            lost = attr.Occlusion(_LogOdds(network, index)).attribute(
                batch,
                sliding_window_shapes=(1, *windows),
                strides=(1, *(max(1, side // 2) for side in windows)),
                baselines=batch.mean(dim=(2, 3), keepdim=True).expand_as(batch),
            )
        parts.append(lost.squeeze(1).clamp(min=0))
    return _scaled(torch.cat(parts))


METHODS: dict[str, Explain] = {"grad_cam": grad_cam, "occlusion": occlusion}


def randomised(network: Network, seed: int) -> Network:
    """Make a network of the same architecture with random weights, on the same device, in evaluation mode."""
    device = network.normalise.shift.device
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Network(network.config).eval().requires_grad_(False).to(device)


def overlay(image: UInt8Array, heat: npt.NDArray[np.floating]) -> "Image":
    """Lay a map over a grey picture.

    Args:
        image: ``(H, W) uint8``.
        heat: ``(H, W)`` in 0..1; where it is 0 the picture stays as it is.

    Returns:
        An RGB picture of the same size; :func:`colours` has its scale.
    """
    from PIL import Image

    strength = _STRONGEST * heat[..., None]
    mixed = (1 - strength) * image[..., None] + strength * colours(heat)
    return Image.fromarray(np.rint(mixed).astype(np.uint8), "RGB")


def colours(heat: npt.NDArray[np.floating]) -> UInt8Array:
    """Return the colour of each value in 0..1, ``(..., 3) uint8``."""
    from matplotlib import colormaps

    found: UInt8Array = colormaps[_COLOURS](np.asarray(heat, np.float64), bytes=True)[..., :3]
    return found


def captum() -> Any:  # noqa: ANN401 (a module that is not always there)
    """Import the attributions of Captum.

    Raises:
        CxrnetError: it is not installed.
    """
    try:
        from captum import attr
    except ImportError as error:
        raise CxrnetError("attribution: Captum is not installed; pip install 'cxrnet[audit]'") from error
    return attr


class _LogOdds(nn.Module):
    """The log odds (N,) of one class of each image, against all others together."""

    def __init__(self, network: nn.Module, index: Tensor) -> None:
        super().__init__()
        self.network = network
        self.index = index

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        chosen = F.one_hot(self.index, logits.shape[1]).bool()
        return logits[chosen] - logits.masked_fill(chosen, -torch.inf).logsumexp(dim=1)  # type: ignore[no-any-return]


class _MapAfter(nn.Module):
    """A layer whose output passes through ``map`` as (N, C, h, w), in the layout that Captum takes it in.

    Of a row of tokens (N, L, C) ``grid`` is the height and width of those of the picture, which stand last.
    """

    def __init__(self, layer: nn.Module, layout: str, grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.map = nn.Identity()
        self.layout = layout
        self.grid = grid

    def forward(self, *inputs: Any, **more: Any) -> Tensor:  # noqa: ANN401 (those of the layer)
        output: Tensor = self.layer(*inputs, **more)
        if self.layout == "NHWC":
            found: Tensor = self.map(output.permute(0, 3, 1, 2))
            return found.permute(0, 2, 3, 1)
        if self.grid is not None:
            before = output.shape[1] - self.grid[0] * self.grid[1]
            first, rest = output[:, :before], output[:, before:]
            found = self.map(rest.transpose(1, 2).reshape(len(rest), -1, *self.grid))
            return torch.cat([first, found.flatten(2).transpose(1, 2)], dim=1)
        return self.map(output)  # type: ignore[no-any-return]


def _with_map(network: Network) -> tuple[Network, nn.Module]:
    """Copy a network with the map that Grad-CAM looks at as a layer of its own; return both."""
    import copy

    copied = copy.deepcopy(network).eval()
    backbone = copied.backbone
    shapes = output_shapes(backbone, network.config.size)
    if len(shapes[""]) == 4:
        after = _MapAfter(backbone, "NCHW")
        copied.backbone = after
        return copied, after.map
    names = [name for name in stages(backbone) if name in shapes]
    layout, grid = str(getattr(backbone, "output_fmt", "NCHW")), _grid_of(backbone)
    high = slice(1, 3) if layout == "NHWC" else slice(2, 4)
    maps = [name for name in names if len(shapes[name]) == 4 and shapes[name][high].numel() > 1]
    rows = [name for name in names if len(shapes[name]) == 3 and grid is not None]
    if rows and (not maps or names.index(rows[-1]) > names.index(maps[-1])):
        blocks = [name for name in rows if "." in name] or rows
        name = blocks[max(0, len(blocks) - 2)]
        after = _MapAfter(backbone.get_submodule(name), "tokens", grid)
    elif maps:
        name = maps[-1]
        after = _MapAfter(backbone.get_submodule(name), layout)
    else:
        raise CxrnetError(f"Grad-CAM: {network.config.backbone} has no layer with a height and a width; use occlusion")
    backbone.set_submodule(name, after)
    return copied, after.map


def _grid_of(backbone: nn.Module) -> tuple[int, int] | None:
    """Return height and width of the picture's tokens, as timm's transformers and mixers have them."""
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    return None if grid is None else (int(grid[0]), int(grid[1]))


def _batches(network: Network, images: UInt8Array, classes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Cut images into batches (B, 1, H, W) float32 on the network's device, with the class of each (B,)."""
    device = network.normalise.shift.device
    places = np.asarray(classes, np.int64)
    return [
        (
            torch.from_numpy(images[start : start + _TOGETHER]).unsqueeze(1).float().to(device),
            torch.from_numpy(places[start : start + _TOGETHER]).to(device),
        )
        for start in range(0, len(images), _TOGETHER)
    ]


def _scaled(maps: Tensor) -> FloatArray:
    """Divide each map (N, H, W) by its maximum; one that holds what is no number is 0 as a whole."""
    whole = torch.where(maps.isfinite().all(dim=(1, 2), keepdim=True), maps, 0.0)
    highest = whole.amax(dim=(1, 2), keepdim=True)
    found: FloatArray = torch.where(highest > 0, whole / highest.clamp(min=1e-30), 0.0).cpu().numpy()
    return found
