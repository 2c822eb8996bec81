"""From image files to arrays of grey, 8 bits, at the size of the model: read on all processors, decoded, resized.

The same functions serve training and prediction, so a network never sees an image that was prepared in another way
than those it learned from.
"""

import hashlib
import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Condition, Event
from typing import Any, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from cxrnet.core.process import return_freed_memory
from cxrnet.data.images.decode import MAX_MEMORY, ImageError, Picture, UInt8Array
from cxrnet.data.settings import ResizeRule
from cxrnet.errors import CxrnetError

Size = tuple[int, int]  # height and width in pixels
AtSize = tuple[Size, ResizeRule]

# What is noted of a file: whether it gave an image, whether outliers of it were clipped (cxrnet.data.images.deep), that
# image's size in pixels (upright), the SHA-256 of its bytes; last, for who keeps it, a checksum
# (cxrnet.data.images.store).
FACTS = np.dtype(
    [
        ("read", np.bool_),
        ("outliers", np.bool_),
        ("width", np.int32),
        ("height", np.int32),
        ("sha256", np.uint8, 32),
        ("crc32", np.uint32),
    ]
)
FactsArray = npt.NDArray[np.void]

_TOGETHER = 16  # files that a thread takes at a time, as many small images are resized faster than one by one
_PIXELS = 2_000_000  # in the images that wait to be resized together
_MEMORY = 128_000_000  # bytes: the largest radiographs need no more
_LARGE = 8_000_000  # bytes of a file from which on it waits for memory before it is read


@dataclass(frozen=True)
class Noted:
    """What was found in images when they were kept, which spares reading them again.

    Attributes:
        binary: whether each image has two grey levels at most, ``(M,)``.
        duplicates: columns of :class:`cxrnet.data.duplicates.Found`, which names images by their places.
        rules: by which they were searched.
    """

    binary: npt.NDArray[np.bool_]
    duplicates: Mapping[str, npt.NDArray[Any]]
    rules: str


class Pixels(Protocol):
    """An array of images ``(M, H, W) uint8``, or what is read as one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """M, H, W."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> UInt8Array: ...  # noqa: ANN401 (as of an array)


@dataclass(frozen=True)
class Images:
    """Rows ``(N,) int64`` of an array ``(M, H, W) uint8`` that may be far larger: in memory, mapped, or in shards.

    ``images[rows]`` reads these rows and no others, as of an array; nothing is read before.
    """

    array: Pixels
    rows: npt.NDArray[np.int64]

    def __reduce__(self) -> tuple[Callable[..., "Images"], tuple[object, ...]]:
        """Send the name of a mapped file to another process, which maps it too, instead of a copy."""
        if isinstance(self.array, np.memmap):
            return _mapped, (str(self.array.filename), self.rows)
        return type(self), (self.array, self.rows)

    @classmethod
    def all_of(cls, array: Pixels) -> Self:
        """Take every image of an array."""
        return cls(array, np.arange(len(array)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        _, height, width = self.array.shape
        return len(self.rows), height, width

    @property
    def noted(self) -> Noted | None:
        """What is known of the array's images without reading them."""
        return getattr(self.array, "noted", None)

    def __getitem__(self, index: slice | list[int] | npt.NDArray[np.int64]) -> UInt8Array:
        """Read images ``(n, H, W) uint8`` into memory."""
        return self.array[self.rows[index]]

    def __iter__(self) -> Iterator[UInt8Array]:
        """Read images ``(H, W) uint8``, one after the other."""
        return (self.array[row] for row in self.rows)

    def take(self, chosen: npt.NDArray[np.generic]) -> Self:
        """Choose images by place, or by a mask ``(N,)``; nothing is read."""
        return type(self)(self.array, self.rows[chosen])


@dataclass(frozen=True)
class Resized:
    """Images at another size ``(H, W)``, stretched when they are read; :meth:`Images.all_of` takes it for an array."""

    images: Images
    size: Size

    @property
    def shape(self) -> tuple[int, ...]:
        """N, H, W."""
        return len(self.images), *self.size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any, /) -> UInt8Array:  # noqa: ANN401 (as of an array)
        return resize_all(self.images[rows], self.size, "stretch")


def _mapped(file: str, rows: npt.NDArray[np.int64]) -> Images:
    return Images(np.load(file, mmap_mode="r"), rows)


def processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # knows the limit of a container; Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_into(
    arrays: Sequence[UInt8Array],
    rows: Sequence[int],
    paths: Sequence[str],
    sizes: Sequence[AtSize],
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[FactsArray, dict[int, str]]:
    """Read the files at ``rows`` of all ``paths``, decode each once and resize it to each size and rule.

    Args:
        arrays: for each size ``(N, H, W) uint8``; written at ``rows``. A file that gives no image leaves its row.
        rows: places of the files.
        paths: paths of all N files.
        sizes: sizes of the arrays.
        stopped: asked before each file; once it is true, none is read any more.

    Returns:
        Facts of these files, ``(len(rows),)`` of :data:`FACTS`, and the kind of ImageError of those that give no image,
        by row.
    """
    for size, rule in sizes:
        check_resize(size, rule)
    facts = np.zeros(len(rows), FACTS)
    broken = Event()
    budget = _Budget(MAX_MEMORY)  # of all threads together, on however many processors

    def read(places: range) -> dict[int, str]:
        unread: dict[int, str] = {}
        waiting: dict[int, UInt8Array] = {}
        for place in places:
            if stopped() or broken.is_set():
                break
            row = rows[place]
            with ExitStack() as held:
                try:
                    waiting[row], facts[place] = _read(paths[row], budget, held)
                except ImageError as error:
                    unread[row] = error.kind
                if sum(each.size for each in waiting.values()) > _PIXELS:
                    _resize_into(arrays, waiting, sizes)
                    waiting.clear()
        _resize_into(arrays, waiting, sizes)
        return unread

    # Not for these lines alone: the list of filters belongs to the whole process, where other threads are at work.
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    places = range(len(rows))
    step = max(1, min(_TOGETHER, len(rows) // (4 * processors())))  # fewer where some processors would have none
    with ThreadPoolExecutor(processors()) as pool:
        try:
            parts = list(pool.map(read, (places[start : start + step] for start in places[::step])))
        except BaseException:
            broken.set()  # or the threads would go on to the end of their parts
            raise
    return facts, {row: kind for part in parts for row, kind in part.items()}


class _Budget:
    """A number of bytes, of which threads take what they need for a while; who needs more gets it alone."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._given_back = Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them. Who holds some must not ask for more."""
        amount = min(amount, self._total)
        with self._given_back:
            self._given_back.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._given_back:
                self._free += amount
                self._given_back.notify_all()


def _read(path: str, budget: _Budget, held: ExitStack) -> tuple[UInt8Array, tuple[object, ...]]:
    """Decode an image and note its facts; the memory that it needs is held from then on."""

    def hold(memory: int) -> None:
        held.enter_context(budget.taken(memory))
        if memory > _MEMORY:
            held.callback(return_freed_memory)  # before others get it

    with _missing_if_not_readable(path):
        status = os.stat(path)  # noqa: PTH116 (a third of the time of Path.stat)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read without end
        raise ImageError("not a file", path)
    large = status.st_size > _LARGE
    if large:  # or who waits would have it in memory already
        with _missing_if_not_readable(path), Path(path).open("rb") as file:
            hold(Picture(file, path).memory)
    data = _read_bytes(path)
    digest = hashlib.sha256(data).digest()
    picture = Picture(BytesIO(data), path)
    del data  # or it would stay while the image is decoded
    if not large:
        hold(picture.memory)
    image, outliers = picture.decode()
    height, width = image.shape
    return image, (True, outliers, width, height, np.frombuffer(digest, np.uint8), 0)


def _read_bytes(path: str) -> bytes:
    with _missing_if_not_readable(path):
        return Path(path).read_bytes()


@contextmanager
def _missing_if_not_readable(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise ImageError("missing", path, getattr(error, "strerror", None) or str(error)) from error


def _resize_into(arrays: Sequence[UInt8Array], images: Mapping[int, UInt8Array], sizes: Sequence[AtSize]) -> None:
    """Resize images, given by row, to each size; those of one shape all at once."""
    alike = defaultdict(list)
    for row, image in images.items():
        alike[image.shape].append(row)
    for chosen in alike.values():
        originals = np.stack([images[row] for row in chosen]) if len(chosen) > 1 else images[chosen[0]][None]
        for array, (size, rule) in zip(arrays, sizes, strict=True):
            array[chosen] = resize_all(originals, size, rule)


def resize(image: UInt8Array, size: Size, rule: ResizeRule) -> UInt8Array:
    """Bring an image ``(h, w) uint8`` to a size, ``(H, W)``, as :func:`resize_all` does; always a new array."""
    return np.array(resize_all(image[None], size, rule)[0], order="C")


def resize_all(images: UInt8Array, size: Size, rule: ResizeRule) -> UInt8Array:
    """Bring images ``(n, h, w) uint8`` to a size ``(H, W)``; many small ones at once cost far less than one by one.

    ``stretch`` changes the aspect ratio, ``pad`` keeps it and adds a black border on two sides, ``crop`` keeps it and
    cuts whole pixels off two sides; both stay centred. The filter is bilinear, and its support grows with the reduction
    (antialiased), as in Pillow, from whose result it differs by one grey level at most, where rounding does. Unlike
    Lanczos it does not overshoot, so a marker or a rib gets no dark seam.

    Returns:
        ``(n, H, W) uint8``, in any order in memory; a view of ``images`` where nothing has to be done.
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
    """Refuse an unknown rule, or a size below one pixel."""
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
