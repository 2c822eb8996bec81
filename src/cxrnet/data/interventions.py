"""Interventions: images with one thing changed, to see what a network makes of it.

All take and return ``(N, H, W) uint8`` and leave what they are given as it is.
"""

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, grey_opening

from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.regions import BoolArray, border, corners

_STROKE = 0.04  # of the side: what is thinner and brighter than what is around it is a stroke of a letter
_BLUR = 0.01  # standard deviation, share of the side: 2.2 pixels of 224
_CONTRAST = 0.6
_QUALITY = 20  # of JPEG
_DEGREES = 5

Change = Callable[[UInt8Array], UInt8Array]


def blacked_out(images: UInt8Array, region: BoolArray) -> UInt8Array:
    """Make a region black; ``(H, W)`` of all images, or ``(N, H, W)`` of each."""
    return np.where(region, np.uint8(0), images)


def kept_only(images: UInt8Array, region: BoolArray) -> UInt8Array:
    """Make everything but a region black, as :func:`blacked_out`."""
    return np.where(region, images, np.uint8(0))


def without_markers(images: UInt8Array) -> UInt8Array:
    """Take thin bright strokes out of the corners by a grey opening; the rest of a corner hardly changes."""
    size = (images.shape[1], images.shape[2])
    changed, side = images.copy(), max(3, round(_STROKE * min(size))) | 1
    for region in corners(size).values():
        rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
        part = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        changed[part] = grey_opening(images[part], size=(1, side, side), mode="nearest")
    return changed


def blurred(images: UInt8Array) -> UInt8Array:
    """Blur by a Gaussian with a standard deviation of 1 % of the shorter side."""
    sigma = _BLUR * min(images.shape[1:])
    smooth = gaussian_filter(images.astype(np.float32), (0, sigma, sigma), mode="nearest")
    return _grey(smooth)


def flattened(images: UInt8Array) -> UInt8Array:
    """Take 40 % of the contrast away, about the mean of each image."""
    grey = images.astype(np.float32)
    mean = grey.mean(axis=(1, 2), keepdims=True)
    return _grey(mean + _CONTRAST * (grey - mean))


def compressed(images: UInt8Array) -> UInt8Array:
    """Compress as JPEG of quality 20."""
    changed = np.empty_like(images)
    for place, image in enumerate(images):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=_QUALITY)
        changed[place] = np.asarray(Image.open(file))
    return changed


def rotated(images: UInt8Array) -> UInt8Array:
    """Turn by 5 degrees to the left; black comes in at the corners."""
    turned = [np.asarray(Image.fromarray(i).rotate(_DEGREES, Image.Resampling.BILINEAR)) for i in images]
    return np.stack(turned)


def mirrored(images: UInt8Array) -> UInt8Array:
    """Mirror left and right: the heart comes to the wrong side."""
    return np.ascontiguousarray(images[:, :, ::-1])


ON_ALL: Mapping[str, Change] = {
    "border out": lambda images: blacked_out(images, border((images.shape[1], images.shape[2]))),
    "corner markers out": without_markers,
    "blur": blurred,
    "contrast": flattened,
    "JPEG": compressed,
    "rotation": rotated,
    "mirror": mirrored,
}
"""By name, what needs no lungs."""


def planted(images: UInt8Array, donors: UInt8Array, region: BoolArray) -> UInt8Array:
    """Put the region ``(H, W)`` of donors ``(N, H, W)`` into images: a marker comes with what stands around it."""
    return np.where(region, donors, images)


def choose_donors(
    labels: npt.NDArray[np.int64], clusters: npt.NDArray[np.int64], of: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.int64]:
    """Choose a donor for each image at random, of a class and, where there is one, of another patient.

    Args:
        labels: class of each of N images, ``(N,)``.
        clusters: patient or duplicate group of each, ``(N,)``.
        of: class that the donor of each image is to be of, ``(N,)``; each has an image.
        seed: seed of the choice.

    Returns:
        Places of the donors, ``(N,)``.
    """
    random = np.random.default_rng(seed)
    chosen = np.empty(len(labels), np.int64)
    places = {label: np.flatnonzero(labels == label) for label in np.unique(of)}
    for image, label in enumerate(of):
        others = places[label][clusters[places[label]] != clusters[image]]
        chosen[image] = random.choice(others if len(others) else places[label])
    return chosen


def _grey(values: npt.NDArray[np.float32]) -> UInt8Array:
    rounded: UInt8Array = np.rint(values).clip(0, 255).astype(np.uint8)
    return rounded
