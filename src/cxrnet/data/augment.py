"""Augmentations of training images: torchvision v2 transforms of one grey image (1, H, W) uint8."""

from torchvision.transforms import InterpolationMode, v2


def none() -> None:
    """No augmentation; ``null`` can't be an option of its own in Hydra."""


def light(degrees: float, translate: float, zoom: float) -> v2.Transform:
    """Small rotations, translations and zooms: what positioning a patient varies, and nothing that changes anatomy.

    There is no flip: the heart would change sides.

    Args:
        degrees: rotation drawn from -degrees..degrees.
        translate: shift drawn from -translate..translate, as a share of width and height.
        zoom: scale drawn from 1-zoom..1+zoom.
    """
    return v2.RandomAffine(
        degrees=degrees,
        translate=(translate, translate),
        scale=(1 - zoom, 1 + zoom),
        interpolation=InterpolationMode.BILINEAR,
        fill=0,
    )
