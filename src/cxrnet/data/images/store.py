"""The images of a manifest: all of them, in memory or in files that all runs share, or one chunk after the other.

On disk an image takes a byte a pixel (50 kB at 224 x 224). The files are mapped into memory: training reads the pages
of the images of a batch, and the system keeps as many of them in memory as there is room for. They are named by
the files that they were made of (path, length and times of change), the sizes, the rules and what reads them. A damaged
store is made anew (:mod:`cxrnet.core.cache`).
"""

import hashlib
import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL
import torch

from cxrnet.core.cache import kept, new_array, wait_for_disk
from cxrnet.core.console import bar
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import FACTS, AtSize, FactsArray, Images, Size, check_resize, read_into
from cxrnet.data.settings import OnError, ResizeRule
from cxrnet.data.shards.reading import load_sharded, root_of
from cxrnet.errors import CxrnetError

FORMAT = 4  # of the files, and of how images are decoded and resized

_T = TypeVar("_T")
_Arrays = Sequence[UInt8Array]

_BLOCK = 512  # images after which what was read is safe, should the process die
_LOOKED_AT = 4096  # images at a time
_FIRST = 10  # so many bad files are named; the total is always given
_NAMED = 5  # images that a warning names
# What to do about images of a kind of ImageError.
_ADVICE = {
    "not finite": "save them with finite numbers",
    "too many pixels": "make them smaller",
    "too much memory": "make them smaller",
}

logger = logging.getLogger("cxrnet")


def made_with() -> list[Any]:
    """List what pixels depend on besides files, size and rule: for the names of what is made of them."""
    return [FORMAT, PIL.__version__, torch.__version__]


def load_images(
    manifest: pd.DataFrame, size: Size, resize_rule: ResizeRule, on_error: OnError, cache: Path | None = None
) -> tuple[pd.DataFrame, Images]:
    """Read every image of a manifest at one size; see :func:`load_at_sizes`."""
    manifest, (images,) = load_at_sizes(manifest, [(size, resize_rule)], on_error, cache)
    return manifest, images


def load_at_sizes(
    manifest: pd.DataFrame,
    sizes: Sequence[AtSize],
    on_error: OnError,
    cache: Path | None = None,
    kept_gb: float | None = None,
) -> tuple[pd.DataFrame, list[Images]]:
    """Read every image of a manifest on all processors, decode it once and resize it to each of several sizes.

    Args:
        manifest: ``path`` is read, ``image_id`` names images in warnings.
        sizes: pairs of ``(H, W)`` in pixels and a rule of :func:`cxrnet.data.images.reader.resize_all`.
        on_error: ``fail`` raises when any file gives no image, ``skip`` leaves those rows out and warns.
        cache: folder of the store, from which nothing is read twice; ``None`` keeps the images in memory.
        kept_gb: gigabytes of shards from S3 that are kept there; ``None`` keeps all.

    Returns:
        The manifest with ``width``, ``height`` (of the image upright) and ``sha256`` filled, and for each size the
        images in the order of its rows.

    Images of shards (:mod:`cxrnet.data.shards`) are read from there when they are used, and not at all before.

    Raises:
        CxrnetError: files that give no image, an unknown ``on_error`` or rule, the cache can't be written, or shards
            are not what the manifest says.
    """
    _check_on_error(on_error, "data.on_error")
    for size, rule in sizes:
        check_resize(size, rule)
    if (root := root_of(manifest["path"])) is not None:
        manifest, images, clipped = load_sharded(manifest, root, sizes, cache, kept_gb)
        report_outliers(clipped)
        return manifest, images
    paths = manifest["path"].tolist()
    arrays: _Arrays
    if cache is None:
        arrays, facts = [np.empty((len(paths), *size), np.uint8) for size, _ in sizes], np.zeros(len(paths), FACTS)
        bad: dict[int, str] = {}
        with bar("reading images", len(paths)) as advance:
            for start in range(0, len(paths), _BLOCK):
                rows = range(start, min(start + _BLOCK, len(paths)))
                facts[start : rows.stop], unread = read_into(arrays, rows, paths, sizes)
                bad |= unread
                advance(len(rows))
    else:
        made_of = hashlib.sha256(json.dumps([*made_with(), sizes]).encode())
        for path in paths:
            made_of.update(f"{path}\0{file_version(path)}\n".encode())
        make = partial(_make, paths=paths, sizes=sizes)
        folder = kept(cache / "images" / made_of.hexdigest()[:32], make)
        arrays, facts = _open(folder, len(sizes), "r")
        bad = {int(row): kind for row, kind in json.loads((folder / "bad.json").read_text(encoding="utf-8")).items()}
    if bad:
        report_bad(bad, paths, on_error, "data.on_error")
    report_outliers(manifest["image_id"].iloc[np.flatnonzero(facts["outliers"])].tolist())
    there = np.flatnonzero(facts["read"])
    facts = facts[there]
    manifest = manifest.iloc[there].reset_index(drop=True)
    return manifest.assign(
        width=pd.array(facts["width"], "Int64"),
        height=pd.array(facts["height"], "Int64"),
        sha256=pd.array([digest.tobytes().hex() for digest in facts["sha256"]], "string"),
    ), [Images(array, there) for array in arrays]


def file_version(path: str) -> str:
    """Tell one state of a file from others without reading it."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a third of the time of Path.stat, a million times)
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return "missing"
    # Who copies a file over another may keep the time of change, but not that of the entry on the disk.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {os.access(path, os.R_OK)}"


def _make(folder: Path, paths: list[str], sizes: Sequence[AtSize]) -> None:
    """Fill the folder of a store, or go on where a process that died had come to."""
    if (found := _taken_up(folder, len(paths), sizes)) is None:
        for place, (size, _) in enumerate(sizes):
            new_array(folder / f"{place}.npy", (len(paths), *size), np.uint8)
        new_array(folder / "facts.partial", (len(paths),), FACTS)
        (folder / "facts.partial").rename(folder / "facts.npy")  # the last that is made
        found = _open(folder, len(sizes), "r+")
    arrays, facts = found
    todo = np.flatnonzero(~facts["read"])
    bad: dict[int, str] = {}

    def read(start: int, stopped: Callable[[], bool]) -> tuple[FactsArray, dict[int, str]]:
        rows = todo[start : start + _BLOCK]
        noted, unread = read_into(arrays, rows.tolist(), paths, sizes, stopped)
        noted["crc32"] = _checksums(arrays, rows, noted)
        return noted, unread

    starts = range(0, len(todo), _BLOCK)
    with (
        bar("reading images", len(paths), len(paths) - len(todo)) as advance,
        one_ahead(read, starts) as blocks,  # the next is read while one is written to the disk
    ):
        for start, (noted, unread) in zip(starts, blocks, strict=True):
            for array in arrays:
                wait_for_disk(array)
            facts[todo[start : start + _BLOCK]] = noted  # only now: what counts as read is on the disk
            wait_for_disk(facts)
            bad |= unread
            advance(len(noted))
    refuse_lost(bad, paths)  # whatever is to be done with bad files: such a store must not stay
    (folder / "bad.json").write_text(json.dumps(bad), encoding="utf-8")


def refuse_lost(bad: Mapping[int, str], paths: Sequence[str]) -> None:
    """Refuse files that couldn't be read (kind of ImageError by row) and are there.

    Raises:
        CxrnetError: there are some.
    """
    # Path.is_file raises where a name is too long.
    there = [paths[row] for row, kind in bad.items() if kind == "missing" and os.path.isfile(paths[row])]  # noqa: PTH113
    if lost := [path for path in there if os.access(path, os.R_OK)]:
        raise CxrnetError(
            f"{len(lost)} of {len(paths)} files are there and gave nothing ('{lost[0]}' is the first): the disk or the "
            "network failed; start again, and leave out what stays so"
        )


def _taken_up(folder: Path, rows: int, sizes: Sequence[AtSize]) -> tuple[list[np.memmap], np.memmap] | None:
    """Take up the files of a process that died, if they are sound; what is damaged doesn't count as read."""
    if not (folder / "facts.npy").exists():
        return None
    try:
        arrays, facts = _open(folder, len(sizes), "r+")
    except Exception:  # a damaged header makes numpy raise all kinds
        found = []
    else:
        found = [(array.shape, array.dtype) for array in (*arrays, facts)]
    if found != [*(((rows, *size), np.dtype(np.uint8)) for size, _ in sizes), ((rows,), FACTS)]:
        logger.warning("cache: '%s' is damaged; its images are read again from the first on", folder)
        return None
    read = np.flatnonzero(facts["read"])
    lost = read[_checksums(arrays, read, facts[read]) != facts["crc32"][read]]
    if len(lost):
        logger.warning("cache: %d images in '%s' are damaged and are read again", len(lost), folder)
        facts["read"][lost] = False
    return arrays, facts


def _open(folder: Path, sizes: int, mode: Literal["r", "r+"]) -> tuple[list[np.memmap], np.memmap]:
    arrays = [np.load(folder / f"{place}.npy", mmap_mode=mode) for place in range(sizes)]
    return arrays, np.load(folder / "facts.npy", mmap_mode=mode)


def _checksums(arrays: _Arrays, rows: npt.NDArray[np.int64], facts: FactsArray) -> npt.NDArray[np.uint32]:
    """Compute the CRC-32 of some rows of all arrays and of their facts, but for the checksum itself."""
    checksums = np.empty(len(rows), np.uint32)
    for place, row in enumerate(rows.tolist()):
        crc = zlib.crc32(facts[place].tobytes()[: FACTS.fields["crc32"][1]])  # type: ignore[index]
        for array in arrays:
            crc = zlib.crc32(array[row], crc)
        checksums[place] = crc
    return checksums


@contextmanager
def one_ahead(read: Callable[[int, Callable[[], bool]], _T], starts: range) -> Iterator[Iterator[_T]]:
    """Read chunk after chunk, each while the one before it is used; who leaves early doesn't wait for the rest of one.

    ``read`` gets where a chunk starts, and a function that tells it that nobody wants it any more; at the end of
    ``starts`` it is called once more, for nothing.
    """
    left = Event()

    def in_turn() -> Iterator[_T]:
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

    ``on_error``: ``skip`` leaves files that give no image out and warns in the end; ``fail`` raises in the end, when
    all of them are known, and hands out nothing more after the first one. ``ahead``: while one chunk is used, the next
    is read. Only for work elsewhere than on the processors: there, threads of OpenMP wait for each other after every
    operation, and a reader that holds one up holds up all.

    Yields:
        Rows of the manifest, in order, and their images at ``size`` ``(H, W)``.
    """
    _check_on_error(on_error, "on_error")
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


def _check_on_error(on_error: str, key: str) -> None:
    if on_error not in get_args(OnError):
        raise CxrnetError(f"{key}: '{on_error}' is not known; use {' or '.join(get_args(OnError))}")


def report_bad(bad: Mapping[int, str], paths: Sequence[str], on_error: OnError, key: str) -> None:
    """Say which files give no image (kind of ImageError by row): the total by kind and the first ten."""
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
    """Say which images lost their outliers when they were decoded."""
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
    if isinstance(images, Images) and images.noted is not None:
        return images.noted.binary[images.rows]
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
