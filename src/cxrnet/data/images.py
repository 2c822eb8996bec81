"""Images as arrays: grey, 8 bits, at the size of the model, wherever they lie.

The same functions serve training and prediction, so a network never sees an image that was prepared in
another way than those it learned from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxrnet.data.decode import UInt8Array
from cxrnet.errors import CxrnetError

ResizeRule = Literal["stretch", "pad", "crop"]
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
        """Where the array is mapped from a file, a process that gets these images maps it too, instead of a copy."""
        if isinstance(self.array, np.memmap):
            return _mapped, (str(self.array.filename), self.rows)
        return type(self), (self.array, self.rows)

    @classmethod
    def all_of(cls, array: UInt8Array) -> Self:
        """Every image of an array."""
        return cls(array, np.arange(len(array)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        return (len(self.rows), *self.array.shape[1:])

    def __getitem__(self, index: slice | list[int] | npt.NDArray[np.int64]) -> UInt8Array:
        """Images ``(n, H, W) uint8``, in memory."""
        return self.array[self.rows[index]]

    def __iter__(self) -> Iterator[UInt8Array]:
        """Images ``(H, W) uint8``, one after the other."""
        return (self.array[row] for row in self.rows)

    def take(self, chosen: npt.NDArray[np.generic]) -> Self:
        """The images at some places, or those that a mask ``(N,)`` is true of; nothing is read."""
        return type(self)(self.array, self.rows[chosen])


def _mapped(file: str, rows: npt.NDArray[np.int64]) -> Images:
    return Images(np.load(file, mmap_mode="r"), rows)


def resize(image: UInt8Array, size: Size, rule: ResizeRule) -> UInt8Array:
    """Bring an image to a given size.

    The filter is Pillow's bilinear, whose support grows with the reduction (antialiased). Unlike Lanczos it
    does not overshoot, so a marker or a rib gets no dark seam, and it is faster.

    Args:
        image: ``(h, w) uint8``.
        size: ``(H, W)`` in pixels.
        rule: ``stretch`` changes the aspect ratio, ``pad`` keeps it and adds a black border on two sides,
            ``crop`` keeps it and cuts two sides off; both stay centred.

    Returns:
        ``(H, W) uint8``.

    Raises:
        CxrnetError: unknown rule, or a size below one pixel.
    """
    check_resize(size, rule)
    return np.array(resize_picture(Image.fromarray(image), size, rule))


def resize_picture(source: Image.Image, size: Size, rule: ResizeRule) -> Image.Image:
    """The same for a picture of mode ``L``, by a rule and to a size that were checked."""
    height, width = size
    if source.size == (width, height):
        return source
    if rule == "stretch":
        return source.resize((width, height), Image.Resampling.BILINEAR)
    if rule == "pad":
        return _pad(source, size)
    scale = max(height / source.height, width / source.width)
    cut_x = (source.width - width / scale) / 2
    cut_y = (source.height - height / scale) / 2
    box = (max(cut_x, 0.0), max(cut_y, 0.0), source.width - max(cut_x, 0.0), source.height - max(cut_y, 0.0))
    return source.resize((width, height), Image.Resampling.BILINEAR, box=box)


def check_resize(size: Size, rule: str) -> None:
    """Refuse what :func:`resize` can't do.

    Raises:
        CxrnetError: unknown rule, or a size below one pixel.
    """
    if rule not in get_args(ResizeRule):
        raise CxrnetError(f"data.resize: '{rule}' is not known; use {', '.join(get_args(ResizeRule))}")
    if len(size) != 2 or min(size) < 1:
        raise CxrnetError(f"data.size: {tuple(size)} is not a size; give height and width in pixels")


def _pad(source: Image.Image, size: Size) -> Image.Image:
    height, width = size
    scale = min(height / source.height, width / source.width)
    inner_h, inner_w = max(1, round(source.height * scale)), max(1, round(source.width * scale))
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas = Image.new("L", (width, height))
    canvas.paste(source.resize((inner_w, inner_h), Image.Resampling.BILINEAR), (left, top))
    return canvas
