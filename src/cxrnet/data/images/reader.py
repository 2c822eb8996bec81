"""Reading image files into arrays, on all processors, and saying what is odd about them."""

import hashlib
import logging
import os
import stat
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from threading import Condition, Event
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from cxrnet.core.process import return_freed_memory
from cxrnet.data.images.decode import MAX_MEMORY, ImageError, Picture, UInt8Array
from cxrnet.data.images.resize import Images, Size, check_resize, resize_all
from cxrnet.data.settings import OnError, ResizeRule
from cxrnet.errors import CxrnetError

AtSize = tuple[Size, ResizeRule]
T = TypeVar("T")

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
_FIRST = 10  # so many bad files are named; the total is always given
_NAMED = 5  # images that a warning names
_LOOKED_AT = 4096  # images at a time

# What to do about images of a kind of ImageError.
_ADVICE = {
    "not finite": "save them with finite numbers",
    "too many pixels": "make them smaller",
    "too much memory": "make them smaller",
}

logger = logging.getLogger("cxrnet")


class Budget:
    """A number of bytes, of which threads take what they need for a while.

    Attributes:
        total: bytes. Who needs more gets it when nobody else has any.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._given_back = Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them. Who holds some must not ask for more."""
        amount = min(amount, self.total)
        with self._given_back:
            self._given_back.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._given_back:
                self._free += amount
                self._given_back.notify_all()


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
    """Read files, decode each once and resize it to each size.

    Args:
        arrays: for each size ``(N, H, W) uint8``; written at ``rows``. A file that gives no image leaves its row.
        rows: places of the files.
        paths: of all N files.
        sizes: pairs of ``(H, W)`` in pixels and a rule of :func:`cxrnet.data.images.resize`.
        stopped: asked before each file; once it is true, none is read any more.

    Returns:
        Facts of these files, ``(len(rows),)`` of :data:`FACTS`, and what is wrong with those that give no
        image, by row: a kind of :class:`cxrnet.data.images.decode.ImageError`.
    """
    for size, rule in sizes:
        check_resize(size, rule)
    facts = np.zeros(len(rows), FACTS)
    broken = Event()
    budget = Budget(MAX_MEMORY)  # of all threads together, on however many processors

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


def _read(path: str, budget: Budget, held: ExitStack) -> tuple[UInt8Array, tuple[object, ...]]:
    """Decode an image and note its facts; the memory that it needs is held from then on."""
    with _missing_if_not_readable(path):
        status = os.stat(path)  # noqa: PTH116 (a third of the time of Path.stat)
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device read without end
        raise ImageError("not a file", path)
    large = status.st_size > _LARGE
    if large:  # or who waits would have it in memory already
        with _missing_if_not_readable(path), Path(path).open("rb") as file:
            _hold(Picture(file, path).memory, budget, held)
    data = _read_bytes(path)
    digest = hashlib.sha256(data).digest()
    picture = Picture(BytesIO(data), path)
    del data  # or it would stay while the image is decoded
    if not large:
        _hold(picture.memory, budget, held)
    image, outliers = picture.decode()
    height, width = image.shape
    return image, (True, outliers, width, height, np.frombuffer(digest, np.uint8), 0)


def _hold(memory: int, budget: Budget, held: ExitStack) -> None:
    held.enter_context(budget.taken(memory))
    if memory > _MEMORY:
        held.callback(return_freed_memory)  # before others get it


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


@contextmanager
def one_ahead(read: Callable[[int, Callable[[], bool]], T], starts: range) -> Iterator[Iterator[T]]:
    """Read chunk after chunk, each while the one before it is used.

    Args:
        read: gets where a chunk starts, and a function that tells it that nobody wants it any more.
        starts: of the chunks; at the end of them ``read`` is called once more, for nothing.

    Yields:
        Each result of ``read``, one after the other. Who leaves early doesn't wait for the rest of a chunk.
    """
    left = Event()

    def in_turn() -> Iterator[T]:
        reading = ahead.submit(read, starts.start, left.is_set)
        for start in starts:
            done = reading.result()
            reading = ahead.submit(read, start + starts.step, left.is_set)
            yield done

    with ThreadPoolExecutor(1) as ahead:
        try:
            yield in_turn()
        finally:
            left.set()


def stream_images(
    manifest: pd.DataFrame, size: Size, resize_rule: ResizeRule, on_error: OnError, chunk: int, ahead: bool
) -> Iterator[tuple[pd.DataFrame, Images]]:
    """Read the images of a manifest chunk by chunk, each on all processors, for prediction.

    Args:
        manifest: a manifest; ``path`` is read.
        size: ``(H, W)`` in pixels.
        resize_rule: of :func:`cxrnet.data.images.resize`.
        on_error: ``skip`` leaves files that give no image out and warns in the end. ``fail`` raises in the end, when
            all of them are known; after the first one nothing more is handed out.
        chunk: images that are read at a time.
        ahead: while one chunk is used, the next is read. Only for work elsewhere than on the processors: there,
            threads of OpenMP wait for each other after every operation, and a reader that holds one up holds up all.

    Yields:
        Rows of the manifest, in order, and their images.

    Raises:
        CxrnetError: files that give no image (the total by kind and the first ten), or no image is left.
    """
    check_on_error(on_error, "on_error")
    paths, bad, with_outliers = manifest["path"].tolist(), dict[int, str](), list[str]()

    def read(start: int, stopped: Callable[[], bool] = lambda: False) -> tuple[Images, dict[int, str], list[str]]:
        files = paths[start : start + chunk]
        array = np.empty((len(files), *size), np.uint8)
        facts, unread = read_into([array], range(len(files)), files, [(size, resize_rule)], stopped)
        clipped = [files[row] for row in np.flatnonzero(facts["outliers"])]
        images = Images(array, np.flatnonzero(facts["read"]))
        return images, {start + row: kind for row, kind in unread.items()}, clipped

    starts = range(0, len(paths), chunk)
    with one_ahead(read, starts) if ahead else nullcontext(map(read, starts)) as chunks:
        for start, (images, unread, clipped) in zip(starts, chunks, strict=True):
            bad |= unread
            with_outliers += clipped
            if len(images) and not (bad and on_error == "fail"):
                yield manifest.iloc[start + images.rows], images
    report_outliers(with_outliers)
    if bad:
        report_bad(bad, paths, on_error, "on_error")


def check_on_error(on_error: str, key: str = "data.on_error") -> None:
    """Refuse an unknown rule, given by a key of the configuration.

    Raises:
        CxrnetError: it is neither ``fail`` nor ``skip``.
    """
    if on_error not in get_args(OnError):
        raise CxrnetError(f"{key}: '{on_error}' is not known; use {' or '.join(get_args(OnError))}")


def report_bad(bad: Mapping[int, str], paths: Sequence[str], on_error: OnError, key: str = "data.on_error") -> None:
    """Say which files give no image: the total by kind and the first ten.

    Args:
        bad: kind of :class:`cxrnet.data.images.decode.ImageError` by row.
        paths: of all files, by row.
        on_error: ``skip`` warns.
        key: of the configuration, which gave ``on_error``.

    Raises:
        CxrnetError: ``on_error`` is ``fail``, or no file gives an image.
    """
    counts = Counter(bad.values())
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in sorted(counts))
    names = ", ".join(f"'{paths[row]}' ({kind})" for row, kind in list(bad.items())[:_FIRST])
    more = f" and {len(bad) - _FIRST} more" if len(bad) > _FIRST else ""
    found = f"{len(bad)} of {len(paths)} files give no image ({kinds}): {names}{more}"
    advice = ", ".join(dict.fromkeys(_ADVICE[kind] for kind in sorted(counts) if kind in _ADVICE))
    if len(bad) == len(paths):
        raise CxrnetError(f"{found}; not one image is left: {advice or 'check the paths'}")
    if on_error == "fail":
        raise CxrnetError(f"{found}; {advice or 'mend'} or remove them, or set {key}=skip to leave them out")
    logger.warning("left out: %s", found)


def report_outliers(names: Sequence[str]) -> None:
    """Say which images were scaled without their outliers: how many and the first five."""
    if names:
        logger.warning(
            "clipped outliers (hot pixels, burned-in letters) in %d of the files with more than 8 bits, "
            "so that the rest keeps its grey levels: %s",
            len(names),
            _first(names),
        )


def look_binary(images: Images | UInt8Array) -> npt.NDArray[np.bool_]:
    """Mark images ``(N, H, W) uint8`` that have two grey levels at most, as masks and blank pictures do, ``(N,)``.

    A radiograph has all grey levels, a mask two. Resizing blurs the border of a mask, so the share of pixels within 8
    grey levels of the darkest or the brightest one counts. At 64 x 64 pixels it was 0.00 to 0.49 in 557 radiographs of
    three public collections and 0.90 to 0.94 in 120 lung masks; from 0.75 on an image counts as one of two levels.
    """
    blocks = []
    for start in range(0, max(1, len(images)), _LOOKED_AT):  # of no images, none
        block = images[start : start + _LOOKED_AT]
        low, high = block.min(axis=(1, 2), keepdims=True), block.max(axis=(1, 2), keepdims=True)
        blocks.append(((block - low <= 8) | (high - block <= 8)).mean(axis=(1, 2)) >= 0.75)
    return np.concatenate(blocks)


def binary_warning(names: Sequence[str], images: int) -> list[str]:
    """Say that some of ``images`` look binary, by their names; nothing where none does."""
    if not names:
        return []
    verb = "has" if len(names) == 1 else "have"
    return [
        f"{len(names)} of {images} images {verb} two grey levels or one, as masks and blank pictures do: "
        f"{_first(names)}"
    ]


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMED], "..."][: len(names)])
