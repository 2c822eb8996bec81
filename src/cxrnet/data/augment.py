"""Augmentations of training images, a whole batch at a time, on the device where the batch lies.

An augmentation is any callable from a batch ``(B, 1, H, W) uint8`` to a batch of the same shape, type and device that
draws its random numbers, other ones for each image, from torch's default generator of the CPU: then the seed repeats
an epoch on every device. A transform of torchvision draws once a call, so it has to be called image by image:
``lambda images: torch.stack([transform(image) for image in images])``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrnet.core.schema import need
from cxrnet.errors import CxrnetError

Augmentation = Callable[[Tensor], Tensor]

_PIXELS_OF_THREAD = 2**18  # sampled at once on the CPU: what lies between the steps stays in its cache
_PIXELS_OF_DEVICE = 2**25  # elsewhere, where few large steps are fast; takes some 600 MB
NUMBERS = 14
"""Random numbers that are drawn for an image."""
_MOST = {"flip": 1, "degrees": 180, "translate": 1, "shear": 89, "zoom": 0.99, "distortion": 1}


def none() -> None:
    """Return no augmentation; ``null`` can't be an option of its own in Hydra."""


def check_augmentation(augment: Augmentation | None, size: tuple[int, int]) -> None:
    """Refuse what gives no batch of the same shape and type; torch's generator stays as it is."""
    if augment is None or isinstance(augment, Geometric):
        return
    images, wanted = torch.zeros(2, 1, *size, dtype=torch.uint8), "(B, 1, H, W) uint8 to the same"
    try:
        with torch.random.fork_rng(devices=[]):
            result = augment(images)
    except Exception as error:  # whatever a user's own function raises
        reason = " ".join(str(error).split())
        raise CxrnetError(
            f"augment: {augment} can't augment a batch ({reason}); give a function from {wanted}"
        ) from error
    if not isinstance(result, Tensor) or (result.shape, result.dtype) != (images.shape, images.dtype):
        found = f"{tuple(result.shape)} {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        raise CxrnetError(f"augment: {augment} makes {found} of a batch; give a function from {wanted}")


@dataclass(frozen=True)
class Geometric:
    """Flip, affine map and perspective in this order, drawn anew for every image.

    The three make one map, and an image is sampled once: it isn't blurred again with every step, and what one step
    pushes over the edge and the next brings back isn't lost. What comes from outside the image is black.

    Anatomy stays: grey values are moved, not changed, and neighbours stay neighbours, so a finding keeps its looks
    and its place in the chest. Only a flip changes its side, and a large shift or zoom can push it out of the image.

    Attributes:
        flip: probability of a left-right flip, 0 to 1.
        degrees: rotation drawn from -degrees..degrees, 0 to 180.
        translate: shift drawn from -translate..translate, as a share of width and height, 0 to 1.
        shear: along the rows, drawn from -shear..shear degrees, 0 to 89.
        zoom: scale drawn from 1-zoom..1+zoom, 0 to 0.99.
        distortion: each corner is drawn inwards by up to that share of half the side, 0 to 1. Up to 2/3 the result
            is a convex quadrangle; above, an image may be folded over.

    Raises:
        CxrnetError: a number is out of its range.
    """

    flip: float
    degrees: float
    translate: float
    shear: float
    zoom: float
    distortion: float

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            need(number and 0 <= value <= most, f"augment.{name}", value, f"a number from 0 to {most}")

    def __call__(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Augment a batch ``(B, 1, H, W) uint8``; ``images`` itself where everything is off.

        ``drawn`` ``(B, NUMBERS)`` are the random numbers, uniform from 0 to 1; torch draws them where there are none.
        """
        if not any(getattr(self, name) for name in _MOST):
            return images
        # All numbers in one draw, also of what is off, so that switching one thing off leaves the others as they were.
        drawn = torch.rand(len(images), NUMBERS) if drawn is None else drawn
        return _warp(images, self._maps(drawn, images.shape[-1] / images.shape[-2]))

    def _maps(self, drawn: Tensor, aspect: float) -> Tensor:
        """Make the maps of some images for :func:`_warp`: homographies where ``distortion`` is on, else affine maps."""
        flipped = drawn[:, 0] < self.flip
        angle, shear, zoom, across, down = (2 * drawn[:, 1:6] - 1).unbind(1)
        maps = _affine_maps(
            flipped,
            torch.deg2rad(self.degrees * angle),
            torch.deg2rad(self.shear * shear),
            1 + self.zoom * zoom,
            2 * self.translate * across,
            2 * self.translate * down,
            aspect,
        )
        if not self.distortion:
            return maps
        return _compose(maps, _perspective_maps(self.distortion * drawn[:, 6:].reshape(-1, 4, 2)))


geometric = Geometric  # by this name the configuration calls it


def _affine_maps(
    flipped: Tensor, angle: Tensor, shear: Tensor, scale: Tensor, across: Tensor, down: Tensor, aspect: float
) -> Tensor:
    """Map the points of an image that was flipped, sheared, rotated, scaled and shifted, in this order, to the source.

    This inverts torchvision's affine map about the centre (``transforms.v2.functional.affine``). All are ``(B,)``:
    angle (clockwise) and shear (along the rows) in radians, shifts in half widths and heights; ``aspect`` is width over
    height.

    Returns:
        ``(B, 2, 3) float32``, from a point ``(x, y, 1)`` of the result to its source, both -1 to 1 from edge to edge.
    """
    side = 1 - 2 * flipped.float()
    cos, sin, lean = torch.cos(angle) / scale, torch.sin(angle) / scale, torch.tan(shear)
    xx, xy = side * (cos - lean * sin), side * (sin + lean * cos) / aspect
    yx, yy = -sin * aspect, cos
    rows = [[xx, xy, -xx * across - xy * down], [yx, yy, -yx * across - yy * down]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _perspective_maps(inwards: Tensor) -> Tensor:
    """Map the points of an image whose corners were drawn inwards, the rest following in perspective, to their source.

    ``inwards`` ``(B, 4, 2)`` are the shifts in x and y, in half widths and heights, of the corners round from the upper
    left over the upper right; the maps ``(B, 3, 3) float32`` are homogeneous.
    """
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    ends = F.pad(corners * (1 - inwards), (0, 1), value=1.0)
    # The corners c of the square have c0 - c1 + c2 - c3 = 0. A linear map can take each to a multiple of its end only
    # if the same holds for these multiples; by Cramer's rule they are the determinants of the three other ends.
    others = ends[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]]
    p0, p1, p2, p3 = (torch.linalg.det(others)[..., None] * ends).unbind(1)
    x, y, one = p1 - p0, p3 - p0, p0 + p2  # images of (2, 0, 0), (0, 2, 0), (0, 0, 2): the map from corners to ends
    # Its inverse, but for a factor that doesn't matter.
    return torch.stack([torch.linalg.cross(y, one), torch.linalg.cross(one, x), torch.linalg.cross(x, y)], dim=1)


def _compose(affine: Tensor, perspective: Tensor) -> Tensor:
    """Compose an affine map with a perspective after it: ``(B, 3, 3) float32``, homogeneous."""
    upper = (affine[:, :, :, None] * perspective[:, None]).sum(dim=2)  # `@` would lose digits under autocast
    return torch.cat([upper, perspective[:, 2:]], dim=1)


def _warp(images: Tensor, maps: Tensor) -> Tensor:
    """Sample each image once, bilinearly, along its map (on the CPU); outside an image it is black."""
    # Nothing of this makes the CPU wait for the device.
    maps = maps.to(images.device, non_blocking=True)
    limit = _PIXELS_OF_THREAD * torch.get_num_threads() if images.device.type == "cpu" else _PIXELS_OF_DEVICE
    step = max(1, limit // images.shape[1:].numel())
    chunks = zip(torch.split(images, step), torch.split(maps, step), strict=True)
    return torch.cat([_sample(some, places) for some, places in chunks])


def _sample(images: Tensor, maps: Tensor) -> Tensor:
    def centres(number: int) -> Tensor:  # of a row of pixels that reaches from -1 to 1
        return (2 * torch.arange(number, dtype=torch.float32, device=images.device) + 1) / number - 1

    height, width = images.shape[-2:]
    down = maps[:, :, 1:2] * centres(height) + maps[:, :, 2:]
    across = maps[:, :, 0:1] * centres(width)
    places = down[:, :, :, None] + across[:, :, None, :]
    if maps.shape[1] == 3:
        places = places[:, :2].div_(places[:, 2:])
    grey = F.grid_sample(images.float(), places.permute(0, 2, 3, 1), "bilinear", "zeros", align_corners=False)
    return grey.round_().to(torch.uint8)
