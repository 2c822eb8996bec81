"""Checksums of a folder's files: whether they still hold what was written into them.

Each mebibyte of each file has a CRC-32 of its own, which tells every flipped bit of it and all but one in four thousand
million of other kinds of damage; a core checks 2.6 GB/s. It is no protection against somebody who means to deceive.
"""

import json
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAME = "checksums.json"

_BLOCK = 2**20  # bytes
_TOGETHER = 64  # blocks that a thread takes at a time


def write_checksums(folder: Path, name: str) -> None:
    """Note what all files in and below a folder hold.

    Args:
        folder: where the files are; linked ones are left out.
        name: that the folder is about to get: moved under another one, it is the result of something else.
    """
    files = {
        file.relative_to(folder).as_posix(): {"bytes": (size := file.stat().st_size), "crc32": _all_of(file, size)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_symlink() and file != folder / NAME
    }
    (folder / NAME).write_text(json.dumps({"of": name, "files": files}), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """Say what is wrong with the files of a folder; ``None`` where all of them hold what was written.

    All of each file is read, on all processors where there is much of it.
    """
    if not (folder / NAME).is_file():
        return f"'{folder / NAME}' is missing"
    try:
        noted = json.loads((folder / NAME).read_bytes())
        files = [(folder / name, int(file["bytes"]), list(file["crc32"])) for name, file in noted["files"].items()]
        if noted["of"] != folder.name:
            return f"'{folder}' is of '{noted['of']}'"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return f"'{folder / NAME}' can't be read"
    for file, size, checksums in files:
        if wrong := _another_size(file, size) or (len(checksums) != -(-size // _BLOCK) and "lacks checksums"):
            return f"'{file}' {wrong}"
    parts = [
        (file, first, checksums[first : first + _TOGETHER])
        for file, _, checksums in files
        for first in range(0, len(checksums), _TOGETHER)
    ]
    with ThreadPoolExecutor() as pool:  # which has no threads before they are asked for
        apply = pool.map if sum(len(checksums) for _, _, checksums in files) > _TOGETHER else map
        return next(filter(None, apply(lambda part: _wrong_block(*part), parts)), None)


def _another_size(file: Path, size: int) -> str | None:
    try:
        found = os.lstat(file)
    except OSError:
        return "is missing"
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    return None if found.st_size == size else f"has {found.st_size} bytes of {size}"


def _wrong_block(file: Path, first: int, checksums: Sequence[int]) -> str | None:
    try:
        found = list(_of_blocks(file, first, len(checksums)))
    except OSError as error:
        return f"'{file}' can't be read ({error.strerror})"
    if found == list(checksums):
        return None
    place = next(place for place, pair in enumerate(zip(found, checksums, strict=True)) if pair[0] != pair[1])
    return f"'{file}' has changed in its MiB {first + place + 1}"


def _all_of(file: Path, size: int) -> list[int]:
    return list(_of_blocks(file, 0, -(-size // _BLOCK)))


def _of_blocks(file: Path, first: int, number: int) -> Iterator[int]:
    """CRC-32 of some blocks of a file, the last of which may be short."""
    block = memoryview(bytearray(_BLOCK))
    with file.open("rb") as opened:  # a reader with a buffer reads a block whole, and large ones past its buffer
        opened.seek(first * _BLOCK)
        for _ in range(number):
            yield zlib.crc32(block[: opened.readinto(block)])
