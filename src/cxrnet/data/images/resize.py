"""Images as arrays: grey, 8 bits, at the size of the model, wherever they lie.

The same functions serve training and prediction, so a network never sees an image that was prepared in
another way than those it learned from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.settings import ResizeRule
from cxrnet.errors import CxrnetError

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Images:
    """Rows of an array of images, which may be far larger than the memory.

    ``images[rows]`` reads these rows and no others, as of an array; nothing is read before.

    Attributes:
        array: ``(M, H, W) uint8``, in memory or mapped from a file.
        rows: of the array, in the order of these images, ``(N,) int64``.
    """

    array: UInt8Array
    rows: npt.NDArray[np.int64]

    def __reduce__(self) -> tuple[Callable[..., "Images"], tuple[object, ...]]:
        """Send the name of a mapped file to another process, which maps it too, instead of a copy."""
        if isinstance(self.array, np.memmap):
            return _mapped, (str(self.array.filename), self.rows)
        return type(self), (self.array, self.rows)

    @classmethod
    def all_of(cls, array: UInt8Array) -> Self:
        """Take every image of an array."""
        return cls(array, np.arange(len(array)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        return (len(self.rows), *self.array.shape[1:])

    def __getitem__(self, index: slice | list[int] | npt.NDArray[np.int64]) -> UInt8Array:
        """Read images ``(n, H, W) uint8`` into memory."""
        return self.array[self.rows[index]]

    def __iter__(self) -> Iterator[UInt8Array]:
        """Read images ``(H, W) uint8``, one after the other."""
        return (self.array[row] for row in self.rows)

    def take(self, chosen: npt.NDArray[np.generic]) -> Self:
        """Choose images by place, or by a mask ``(N,)``; nothing is read."""
        return type(self)(self.array, self.rows[chosen])


def _mapped(file: str, rows: npt.NDArray[np.int64]) -> Images:
    return Images(np.load(file, mmap_mode="r"), rows)


def resize(image: UInt8Array, size: Size, rule: ResizeRule) -> UInt8Array:
    """Bring an image ``(h, w) uint8`` to a size, ``(H, W)``, as :func:`resize_all` does; always a new array."""
    return np.array(resize_all(image[None], size, rule)[0], order="C")


def resize_all(images: UInt8Array, size: Size, rule: ResizeRule) -> UInt8Array:
    """Bring images to a size; many small ones at once cost far less than one by one.

    The filter is bilinear, and its support grows with the reduction (antialiased), as in Pillow, from whose result it
    differs by one grey level at most, where rounding does. Unlike Lanczos it does not overshoot, so a marker or a rib
    gets no dark seam.

    Args:
        images: ``(n, h, w) uint8``.
        size: ``(H, W)`` in pixels.
        rule: ``stretch`` changes the aspect ratio, ``pad`` keeps it and adds a black border on two sides,
            ``crop`` keeps it and cuts whole pixels off two sides; both stay centred.

    Returns:
        ``(n, H, W) uint8``, in any order in memory; a view of ``images`` where nothing has to be done.

    Raises:
        CxrnetError: unknown rule, or a size below one pixel.
    """
    check_resize(size, rule)
    (n, h, w), (height, width) = images.shape, size
    if rule == "pad":
        scale = min(height / h, width / w)
        inner = max(1, round(h * scale)), max(1, round(w * scale))
        canvas = np.zeros((n, *size), np.uint8)
        _centre(canvas, inner)[:] = _stretch(images, inner)
        return canvas
    if rule == "crop":
        scale = max(height / h, width / w)
        images = _centre(images, (max(1, round(height / scale)), max(1, round(width / scale))))
    return _stretch(images, size)


def check_resize(size: Size, rule: str) -> None:
    """Refuse what :func:`resize` can't do.

    Raises:
        CxrnetError: unknown rule, or a size below one pixel.
    """
    if rule not in get_args(ResizeRule):
        raise CxrnetError(f"data.resize: '{rule}' is not known; use {', '.join(get_args(ResizeRule))}")
    if len(size) != 2 or min(size) < 1:
        raise CxrnetError(f"data.size: {tuple(size)} is not a size; give height and width in pixels")


def _centre(images: UInt8Array, size: Size) -> UInt8Array:
    """View the middle of each image, of a size that is no larger than theirs."""
    top, left = (images.shape[1] - size[0]) // 2, (images.shape[2] - size[1]) // 2
    return images[:, top : top + size[0], left : left + size[1]]


def _stretch(images: UInt8Array, size: Size) -> UInt8Array:
    high = _to_height(images, size[0])
    return _to_height(high.swapaxes(1, 2), size[1]).swapaxes(1, 2)


def _to_height(images: UInt8Array, height: int) -> UInt8Array:
    """Resize the columns, which don't mix: ``(n, h, w)`` to ``(n, height, w)``."""
    n, h, w = images.shape
    if h == height:
        return images
    # Three neighbours go as the colours of one pixel: torch has vector instructions for pictures of three colours.
    colours = np.zeros((n, h, -(-w // 3), 3), np.uint8)
    colours.reshape(n, h, -1)[..., :w] = images
    pixels = torch.from_numpy(colours).permute(0, 3, 1, 2)
    resized = functional.interpolate(pixels, (height, pixels.shape[3]), mode="bilinear", antialias=True)
    columns: UInt8Array = resized.permute(0, 2, 3, 1).numpy().reshape(n, height, -1)
    return columns[..., :w]
