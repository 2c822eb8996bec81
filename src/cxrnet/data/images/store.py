"""A store of the images of a manifest, decoded once: in memory, or in files that all runs share.

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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL
import torch

from cxrnet.core.cache import kept, new_array, wait_for_disk
from cxrnet.core.console import bar
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import (
    FACTS,
    AtSize,
    FactsArray,
    check_on_error,
    one_ahead,
    read_into,
    report_bad,
    report_outliers,
)
from cxrnet.data.images.resize import Images, Size, check_resize
from cxrnet.data.settings import OnError, ResizeRule
from cxrnet.errors import CxrnetError

FORMAT = 4  # of the files, and of how images are decoded and resized

_BLOCK = 512  # images after which what was read is safe, should the process die

logger = logging.getLogger("cxrnet")


def made_with() -> list[Any]:
    """List what pixels depend on besides files, size and rule: for the names of what is made of them."""
    return [FORMAT, PIL.__version__, torch.__version__]


class _Read(NamedTuple):
    """N files as they were read.

    Attributes:
        arrays: for each size ``(N, H, W) uint8``.
        facts: ``(N,)`` of :data:`cxrnet.data.images.reader.FACTS`.
        bad: what is wrong with the files that give no image, by row.
    """

    arrays: Sequence[UInt8Array]
    facts: FactsArray
    bad: dict[int, str]


def load_images(
    manifest: pd.DataFrame, size: Size, resize_rule: ResizeRule, on_error: OnError, cache: Path | None = None
) -> tuple[pd.DataFrame, Images]:
    """Read every image of a manifest at one size; see :func:`load_at_sizes`."""
    manifest, (images,) = load_at_sizes(manifest, [(size, resize_rule)], on_error, cache)
    return manifest, images


def load_at_sizes(
    manifest: pd.DataFrame, sizes: Sequence[AtSize], on_error: OnError, cache: Path | None = None
) -> tuple[pd.DataFrame, list[Images]]:
    """Read every image of a manifest, on all processors, decode it once and resize it to each of several sizes.

    Args:
        manifest: a manifest; ``path`` is read, ``image_id`` names images in warnings.
        sizes: pairs of ``(H, W)`` in pixels and a rule of :func:`cxrnet.data.images.resize`.
        on_error: ``fail`` raises when any file gives no image, ``skip`` leaves those rows out and warns.
        cache: folder of the store, from which nothing is read twice; ``None`` keeps the images in memory.

    Returns:
        The manifest with ``width``, ``height`` (of the image upright) and ``sha256`` filled, and for each size the
        images in the order of its rows.

    Raises:
        CxrnetError: files that give no image (the total by kind and the first ten), no image left, an unknown
            ``on_error`` or rule, or the cache can't be written.
    """
    check_on_error(on_error)
    for size, rule in sizes:
        check_resize(size, rule)
    paths = manifest["path"].tolist()
    table = _in_memory(paths, sizes) if cache is None else _on_disk(paths, sizes, cache)
    if table.bad:
        report_bad(table.bad, paths, on_error)
    report_outliers(manifest["image_id"].iloc[np.flatnonzero(table.facts["outliers"])].tolist())
    rows = np.flatnonzero(table.facts["read"])
    facts = table.facts[rows]
    manifest = manifest.iloc[rows].reset_index(drop=True)
    return manifest.assign(
        width=pd.array(facts["width"], "Int64"),
        height=pd.array(facts["height"], "Int64"),
        sha256=pd.array([digest.tobytes().hex() for digest in facts["sha256"]], "string"),
    ), [Images(array, rows) for array in table.arrays]


def _in_memory(paths: list[str], sizes: Sequence[AtSize]) -> _Read:
    arrays = [np.empty((len(paths), *size), np.uint8) for size, _ in sizes]
    facts = np.zeros(len(paths), FACTS)
    bad: dict[int, str] = {}
    with bar("reading images", len(paths)) as advance:
        for start in range(0, len(paths), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(paths)))
            facts[start : rows.stop], unread = read_into(arrays, rows, paths, sizes)
            bad |= unread
            advance(len(rows))
    return _Read(arrays, facts, bad)


def _on_disk(paths: list[str], sizes: Sequence[AtSize], cache: Path) -> _Read:
    folder = kept(cache / "images" / _key(paths, sizes), partial(_make, paths=paths, sizes=sizes))
    bad = json.loads((folder / "bad.json").read_text(encoding="utf-8"))
    return _Read(*_open(folder, len(sizes), "r"), {int(row): kind for row, kind in bad.items()})


def _make(folder: Path, paths: list[str], sizes: Sequence[AtSize]) -> None:
    """Fill the folder of a store, or go on where a process that died had come to."""
    arrays, facts = _taken_up(folder, len(paths), sizes) or _begun(folder, len(paths), sizes)
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
    # Path.is_file raises where a name is too long.
    there = [paths[row] for row, kind in bad.items() if kind == "missing" and os.path.isfile(paths[row])]  # noqa: PTH113
    if lost := [path for path in there if os.access(path, os.R_OK)]:
        raise CxrnetError(  # whatever is to be done with bad files: such a store must not stay
            f"{len(lost)} of {len(paths)} files are there and gave nothing ('{lost[0]}' is the first): the disk or the "
            "network failed; start again, and leave out what stays so"
        )
    (folder / "bad.json").write_text(json.dumps(bad), encoding="utf-8")


def _begun(folder: Path, rows: int, sizes: Sequence[AtSize]) -> tuple[list[np.memmap], np.memmap]:
    """Make the files of a store of which nothing is read yet."""
    for place, (size, _) in enumerate(sizes):
        new_array(folder / f"{place}.npy", (rows, *size), np.uint8)
    new_array(folder / "facts.partial", (rows,), FACTS)
    (folder / "facts.partial").rename(folder / "facts.npy")
    return _open(folder, len(sizes), "r+")


def _taken_up(folder: Path, rows: int, sizes: Sequence[AtSize]) -> tuple[list[np.memmap], np.memmap] | None:
    """Take up the files of a store as a process that died left them; what is damaged doesn't count as read.

    Returns:
        ``None`` where there are none, or where their headers are damaged.
    """
    if not (folder / "facts.npy").exists():  # the last that is made
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


def _checksums(arrays: Sequence[UInt8Array], rows: npt.NDArray[np.int64], facts: FactsArray) -> npt.NDArray[np.uint32]:
    """Compute the CRC-32 of some rows of all arrays and of their facts, but for the checksum itself."""
    checksums = np.empty(len(rows), np.uint32)
    for place, row in enumerate(rows.tolist()):
        crc = zlib.crc32(facts[place].tobytes()[: FACTS.fields["crc32"][1]])  # type: ignore[index]
        for array in arrays:
            crc = zlib.crc32(array[row], crc)
        checksums[place] = crc
    return checksums


def _key(paths: Sequence[str], sizes: Sequence[AtSize]) -> str:
    made_of = hashlib.sha256(json.dumps([*made_with(), sizes]).encode())
    for path in paths:
        made_of.update(f"{path}\0{_version(path)}\n".encode())
    return made_of.hexdigest()[:32]


def _version(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 (a third of the time of Path.stat, a million times)
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return "missing"
    # Who copies a file over another may keep the time of change, but not that of the entry on the disk.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {os.access(path, os.R_OK)}"
