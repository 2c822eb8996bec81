"""Files of images in MDS, the format of MosaicML's streaming library (version 2), which can open them too.

A file is the number of its images n, uint32; n + 1 offsets, uint32; a description of its one column, JSON; then the
images, byte after byte. All are of one size, so that a file is mapped into memory as one array. An index names the
files of a folder, each with its length and SHA-256.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import Size

INDEX = "index.json"
_ALIGNED = 64  # bytes: where images begin, or copying them takes longer
MOST = 2**32  # bytes in a file, whose offsets are of 32 bits

Entry = Mapping[str, Any]  # of an index: what there is to know of one file


def name(number: int) -> str:
    """Return the name of a file by its number, as the library counts them."""
    return f"shard.{number:05d}.mds"


def _description(size: Size) -> dict[str, Any]:
    return {
        "column_encodings": [f"ndarray:uint8:{size[0]},{size[1]}"],
        "column_names": ["image"],
        "column_sizes": [size[0] * size[1]],
        "compression": None,
        "format": "mds",
        "hashes": ["sha256"],
        "size_limit": None,
        "version": 2,
    }


def encode(images: UInt8Array, basename: str) -> tuple[list[bytes | memoryview], Entry]:
    """Encode images ``(n, H, W) uint8``; return the parts of the file, and its entry in the index."""
    n, height, width = images.shape
    description = _description((height, width))
    text = json.dumps(description, sort_keys=True).encode()
    text = text.ljust(-(-(8 + 4 * n + len(text)) // _ALIGNED) * _ALIGNED - 8 - 4 * n)
    offsets = 8 + 4 * n + len(text) + np.arange(n + 1, dtype=np.int64) * height * width
    if offsets[-1] >= MOST:
        raise ValueError(f"{offsets[-1]} bytes are more than a file can hold")
    pixels = np.ascontiguousarray(images).reshape(-1).data
    parts = [np.uint32(n).tobytes(), offsets.astype(np.uint32).tobytes(), text, pixels]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    data = {"basename": basename, "bytes": int(offsets[-1]), "hashes": {"sha256": digest.hexdigest()}}
    return parts, {**description, "samples": n, "raw_data": data, "zip_data": None}


def mapped(file: Path, entry: Entry, size: Size) -> UInt8Array:
    """Map a file into memory, read-only: ``(n, H, W) uint8``.

    Raises:
        OSError: it isn't there.
        ValueError: it is shorter than its entry says.
    """
    shape = (entry["samples"], *size)
    # A plain array: indexing one of numpy's own class for mapped files takes longer than to read a small image.
    return np.asarray(np.memmap(file, np.uint8, "r", entry["raw_data"]["bytes"] - int(np.prod(shape)), shape))


def index_of(entries: Sequence[Entry]) -> str:
    """Write the index of a folder."""
    return json.dumps({"shards": entries, "version": 2}, sort_keys=True) + "\n"
