"""Augmentations of training images: torchvision v2 transforms of one grey image (1, H, W) uint8."""

from torchvision.transforms import InterpolationMode, v2

from cxrnet.errors import CxrnetError


def none() -> None:
    """No augmentation; ``null`` can't be an option of its own in Hydra."""


def geometric(
    flip: float, degrees: float, translate: float, shear: float, zoom: float, distortion: float
) -> v2.Transform:
    """Flip, affine map and perspective, each drawn anew for every image; what comes from outside it is black.

    Args:
        flip: probability of a left-right flip, 0 to 1.
        degrees: rotation drawn from -degrees..degrees, 0 to 180.
        translate: shift drawn from -translate..translate, as a share of width and height, 0 to 1.
        shear: along the rows, drawn from -shear..shear degrees, 0 to 89.
        zoom: scale drawn from 1-zoom..1+zoom, 0 to 0.99.
        distortion: each corner is drawn inwards by up to that share of half the side, 0 to 1.

    Raises:
        CxrnetError: a number is out of its range.
    """
    given = {
        "flip": (flip, 1),
        "degrees": (degrees, 180),
        "translate": (translate, 1),
        "shear": (shear, 89),
        "zoom": (zoom, 0.99),
        "distortion": (distortion, 1),
    }
    for name, (value, most) in given.items():
        if not isinstance(value, int | float) or not 0 <= value <= most:
            raise CxrnetError(f"augment.{name}: {value} is out of range; give a number from 0 to {most}")
    affine = v2.RandomAffine(
        degrees=degrees,
        translate=(translate, translate),
        scale=(1 - zoom, 1 + zoom),
        shear=shear or None,  # 0 would draw a random number
        interpolation=InterpolationMode.BILINEAR,
        fill=0,
    )
    # What is off is left out: it would take time and draw random numbers.
    flips = [v2.RandomHorizontalFlip(flip)] if flip else []
    distortions = [v2.RandomPerspective(distortion, p=1.0, fill=0)] if distortion else []
    return v2.Compose([*flips, affine, *distortions])
