"""Reading shards: images by their place among all, as from one array, whichever file they are in.

A folder of shards, on a disk or on S3::

    shards.json                 what the images are, and the SHA-256 of the other tables; the last that is written
    manifest.parquet            the manifest: path is images/shard.00000.mds#<place in the file>
    images/shard.00000.mds ...  images at the size of the model, and index.json (:mod:`cxrnet.data.shards.mds`)
    small/shard.00000.mds ...   the same at 64 x 64 pixels, in which duplicates are looked for
    facts.npy                   of each image: the SHA-256 of its file, and what a reader is warned of
    duplicates.npz              the pairs of duplicates that were found
    parts/                      what is finished, while shards are written
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import AtSize, Images, Noted
from cxrnet.data.shards import mds
from cxrnet.data.shards.array import AGAIN, Place, ShardArray, missing
from cxrnet.data.shards.storage import Storage, storage_of
from cxrnet.errors import CxrnetError

FORMAT = 1  # of the folder
ABOUT, MANIFEST, FACTS_FILE, PAIRS = "shards.json", "manifest.parquet", "facts.npy", "duplicates.npz"
IMAGES, SMALL = "images", "small"
_SIZES = {IMAGES: "size", SMALL: "small"}  # keys of the first

# What is kept of each image beside the manifest: the SHA-256 of its file, whether outliers of it were clipped, whether
# it has two grey levels at most.
FACTS = np.dtype([("sha256", np.uint8, 32), ("outliers", np.bool_), ("binary", np.bool_)])

_PATH = re.compile(rf"(.+)/{IMAGES}/shard\.(\d+)\.mds#(\d+)")
_ROWS = 10_000  # whose paths are taken apart at a time


def root_of(paths: pd.Series) -> str | None:
    """Return where the shards lie that the paths of a manifest name; ``None`` where they name files.

    Raises:
        CxrnetError: some name shards and others files, or shards in several places.
    """
    sharded = paths.str.contains(".mds#", regex=False)
    if not sharded.any():
        return None
    first = _PATH.fullmatch(str(paths[sharded].iloc[0]))
    if first is None or not paths.str.startswith(f"{first[1]}/{IMAGES}/").all():
        raise CxrnetError(
            "data: images of shards are mixed with others, which can't be read together; write shards of all of them "
            "with python -m cxrnet.shard"
        )
    return first[1]


def read_about(storage: Storage, root: str) -> dict[str, Any]:
    """Read what the images of a folder are.

    Raises:
        CxrnetError: there is no such file, or it is of another version.
    """
    try:
        about: dict[str, Any] = json.loads(storage.read(ABOUT))
    except FileNotFoundError as error:
        raise CxrnetError(
            f"data.root: '{root}' has no {ABOUT}, so there are no shards, or they are not finished; give the folder "
            "that python -m cxrnet.shard has written, or start that again"
        ) from error
    except ValueError as error:
        raise CxrnetError(f"data.root: '{root}/{ABOUT}' is damaged; {AGAIN}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise CxrnetError(f"data.root: '{root}' was written by another version of cxrnet; write the shards again")
    if lacking := {"size", "resize", "small", "rules", "known_issues", "tables"} - about.keys():
        raise CxrnetError(f"data.root: '{root}/{ABOUT}' is damaged, it lacks {', '.join(sorted(lacking))}; {AGAIN}")
    return about


def read_table(storage: Storage, root: str, about: Mapping[str, Any], name: str) -> bytes:
    """Read a table of a folder that belongs to its shards.

    Raises:
        CxrnetError: it isn't there, or not the one that was written with them.
    """
    try:
        content = storage.read(name)
    except FileNotFoundError as error:
        raise CxrnetError(missing(root, name)) from error
    if hashlib.sha256(content).hexdigest() != about["tables"][name]:
        raise CxrnetError(f"data.root: '{root}/{name}' is damaged, or of other shards; {AGAIN}")
    return content


def load_sharded(
    manifest: pd.DataFrame, root: str, sizes: Sequence[AtSize], cache: Path | None, kept_gb: float | None
) -> tuple[pd.DataFrame, list[Images], list[str]]:
    """Find the images of a manifest in shards; none is read.

    Args:
        manifest: whose paths name images of shards at ``root``.
        root: from :func:`root_of`.
        sizes: at which the images are wanted.
        cache: folder of copies from S3.
        kept_gb: gigabytes of images that are copied there at most; ``None`` keeps all.

    Returns:
        The manifest, the images at each size, and the ids of those whose outliers were clipped.

    Raises:
        CxrnetError: the shards are missing, cut short, damaged, of another manifest or another size.
    """
    storage = storage_of(root)
    about = read_about(storage, root)
    there = {(tuple(about["size"]), about["resize"]): IMAGES, (tuple(about["small"]), "stretch"): SMALL}
    for size, rule in sizes:
        if (tuple(size), rule) not in there:
            (height, width), own = about["size"], about["resize"]
            raise CxrnetError(
                f"data.size: the shards in '{root}' hold images of {height} x {width} pixels ({own}), and {size[0]} x "
                f"{size[1]} ({rule}) are asked for; give data.size=[{height},{width}] data.resize={own}, or write "
                "other shards with python -m cxrnet.shard"
            )
    names = [there[tuple(size), rule] for size, rule in sizes]
    indexes = {
        name: json.loads(read_table(storage, root, about, f"{name}/{mds.INDEX}"))["shards"]
        for name in dict.fromkeys(names)
    }
    facts = np.load(BytesIO(read_table(storage, root, about, FACTS_FILE)))
    place = Place(storage, root, cache, kept_gb)
    place.check({f"{name}/{each['raw_data']['basename']}": each for name, index in indexes.items() for each in index})
    arrays = {name: ShardArray(place, name, index, tuple(about[_SIZES[name]])) for name, index in indexes.items()}
    if SMALL in arrays:
        with np.load(BytesIO(read_table(storage, root, about, PAIRS))) as pairs:
            arrays[SMALL].noted = Noted(facts["binary"].copy(), dict(pairs), about["rules"])
    rows = _rows(manifest, root, next(iter(indexes.values())))
    _check_files(manifest, facts["sha256"], rows, root)
    clipped = manifest["image_id"].iloc[np.flatnonzero(facts["outliers"][rows])].tolist()
    return manifest, [Images(arrays[name], rows) for name in names], clipped


def _rows(manifest: pd.DataFrame, root: str, index: Sequence[mds.Entry]) -> npt.NDArray[np.int64]:
    """Return the place of each image among all: ``(N,)``."""
    samples = np.array([each["samples"] for each in index], np.int64)
    starts = np.cumsum(samples) - samples
    numbers = [int(each["raw_data"]["basename"].split(".")[1]) for each in index]
    place = np.full(max(numbers) + 1, -1)
    place[numbers] = np.arange(len(numbers))
    rows = np.empty(len(manifest), np.int64)
    skipped = len(f"{root}/{IMAGES}/shard.")
    for start in range(0, len(manifest), _ROWS):  # a million split texts would be hundreds of megabytes
        parts = [each[skipped:].split(".mds#") for each in manifest["path"].iloc[start : start + _ROWS]]
        number, inside = np.array(parts, dtype=np.int64).T
        shard = np.where(number < len(place), place[np.minimum(number, len(place) - 1)], -1)
        wrong = (shard < 0) | (inside >= samples[shard])
        if wrong.any():
            raise CxrnetError(_other(manifest, root, start + int(np.flatnonzero(wrong)[0])))
        rows[start : start + _ROWS] = starts[shard] + inside
    return rows


def _check_files(manifest: pd.DataFrame, digests: UInt8Array, rows: npt.NDArray[np.int64], root: str) -> None:
    """Refuse a manifest whose images have other files than those that the shards were made of."""
    for start in range(0, len(rows), _ROWS):
        named = "".join(manifest["sha256"].iloc[start : start + _ROWS].fillna("0" * 64))
        found = np.frombuffer(bytes.fromhex(named), np.uint8).reshape(-1, 32)
        if (wrong := (found != digests[rows[start : start + _ROWS]]).any(axis=1)).any():
            raise CxrnetError(_other(manifest, root, start + int(np.flatnonzero(wrong)[0])))


def _other(manifest: pd.DataFrame, root: str, row: int) -> str:
    name = manifest["image_id"].iloc[row]
    return (
        f"data.root: the shards in '{root}' are of another manifest: '{name}' is not in its place; give the manifest "
        "that lies beside them, data=shards"
    )
