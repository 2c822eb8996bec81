"""Writing shards: the images of a manifest, decoded on all processors and brought to the size of a model.

A shard is a fixed part of the manifest, so that a command that was killed and started again writes the same files to
the byte. What is finished is noted in ``parts/``, after the shard itself was stored; the tables come in the end, and
``shards.json``, without which nothing is read, last.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.console import bar
from cxrnet.data.duplicates import SEARCH_SIZE, rules, search
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import FACTS as READ
from cxrnet.data.images.reader import AtSize, Images, check_resize, read_into
from cxrnet.data.images.store import (
    file_version,
    look_binary,
    made_with,
    one_ahead,
    refuse_lost,
    report_bad,
    report_outliers,
)
from cxrnet.data.settings import OnError
from cxrnet.data.shards import mds
from cxrnet.data.shards.array import Place, ShardArray
from cxrnet.data.shards.reading import (
    ABOUT,
    FACTS,
    FACTS_FILE,
    FORMAT,
    IMAGES,
    MANIFEST,
    PAIRS,
    SMALL,
    root_of,
)
from cxrnet.data.shards.storage import Storage, storage_of
from cxrnet.errors import CxrnetError

_SMALL: AtSize = (SEARCH_SIZE, "stretch")
_PARTS = "parts"

logger = logging.getLogger("cxrnet")


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        images: in the shards.
        left_out: files that gave no image.
        shards: with images.
        before: those of them that an earlier command has written.
        bytes: bytes of all shards.
        duplicates: pairs.
        seconds: for decoding and storing the shards of this command.
    """

    images: int
    left_out: int
    shards: int
    before: int
    bytes: int
    duplicates: int
    seconds: float


@dataclass(frozen=True)
class _Part:
    """A finished shard: facts of its rows, whether they have two grey levels, and its entries in the two indexes."""

    of: str  # names the files that it is made of, their size, and how many are in a shard
    facts: npt.NDArray[np.void]
    binary: npt.NDArray[np.bool_]
    bad: dict[int, str]
    entries: Mapping[str, mds.Entry]


def write_shards(
    manifest: pd.DataFrame,
    target: str,
    at: AtSize,
    per_shard: int,
    on_error: OnError,
    cache: Path | None,
    known_issues: Mapping[str, Sequence[str]],
) -> Written:
    """Write the images of a manifest as shards, or go on where a command that was stopped had come to.

    Args:
        manifest: manifest of files.
        target: a folder, or ``s3://<bucket>/<folder>``.
        at: size and rule of the images.
        per_shard: images in a shard.
        on_error: ``fail`` raises in the end when a file gives no image, ``skip`` leaves it out.
        cache: folder of copies from S3.
        known_issues: known issues of the data, by source; whoever reads the shards is told.

    Raises:
        CxrnetError: the images are in shards already, a shard would be too large, there are shards of other images or
            something else at the target, files give no image, or the target can't be written or reached.
    """
    check_resize(*at)
    if root_of(manifest["path"]) is not None:
        raise CxrnetError("data: these images are in shards already; give data=<option> that reads files")
    if per_shard * at[0][0] * at[0][1] > mds.MOST * 0.99:
        raise CxrnetError(f"per_shard: {per_shard} images of {at[0]} are more than a shard holds, 4 GB; give fewer")
    storage, paths = storage_of(target), manifest["path"].tolist()
    named = json.dumps([FORMAT, *made_with(), at, _SMALL])
    names = [
        _named(named, manifest["image_id"].iloc[start : start + per_shard], paths[start : start + per_shard])
        for start in range(0, len(paths), per_shard)
    ]
    parts = _taken_up(storage, target, names)
    began, before = time.monotonic(), len(parts)
    todo = [number for number in range(len(names)) if number not in parts]
    files = [paths[number * per_shard : (number + 1) * per_shard] for number in todo]
    done = sum(len(part.facts) for part in parts.values())
    with (
        bar("writing shards", len(paths), done) as advance,
        one_ahead(partial(_read, files, at), range(len(todo))) as blocks,  # the next is decoded while one is stored
    ):
        for number, (arrays, facts, bad) in zip(todo, blocks, strict=True):
            parts[number] = _store(storage, number, names[number], arrays, facts, bad)
            advance(len(facts))
    seconds = time.monotonic() - began
    bad = {number * per_shard + row: kind for number in range(len(names)) for row, kind in parts[number].bad.items()}
    refuse_lost(bad, paths)
    if bad:
        report_bad(bad, paths, on_error, "data.on_error")
    return _finish(storage, target, manifest, at, parts, before, seconds, cache, known_issues)


def _read(
    shards: Sequence[Sequence[str]], at: AtSize, place: int, stopped: Callable[[], bool]
) -> tuple[list[UInt8Array], npt.NDArray[np.void], dict[int, str]]:
    """Read the files of one of several shards, large and small; nothing behind the last of them."""
    if place >= len(shards):
        return [], np.empty(0, READ), {}
    files = shards[place]
    arrays = [np.empty((len(files), *size), np.uint8) for size, _ in (at, _SMALL)]
    return arrays, *read_into(arrays, range(len(files)), files, [at, _SMALL], stopped)


def _named(made_with: str, ids: pd.Series, paths: Sequence[str]) -> str:
    """Name what a shard is made of."""
    digest = hashlib.sha256(made_with.encode())
    for image_id, path in zip(ids, paths, strict=True):
        digest.update(f"{image_id}\0{file_version(path)}\n".encode())
    return digest.hexdigest()


def _taken_up(storage: Storage, target: str, names: Sequence[str]) -> dict[int, _Part]:
    """Read what an earlier command has finished, by number.

    Raises:
        CxrnetError: it was of other images, or something else is at the target.
    """
    there = storage.sizes("")
    if there and not any(name.startswith((f"{_PARTS}/", f"{IMAGES}/", f"{SMALL}/")) for name in there):
        raise CxrnetError(f"shards: '{target}' is not empty and holds no shards; give another folder")
    parts, others = {}, {name for name in there if name.startswith(f"{_PARTS}/")}
    for number, named in enumerate(names):
        if (note := _note(number)) not in there:
            continue
        with np.load(BytesIO(storage.read(note))) as kept:
            text = json.loads(str(kept["text"]))
            bad = {int(row): kind for row, kind in text["bad"].items()}
            part = _Part(text["of"], kept["facts"], kept["binary"], bad, text["entries"])  # bad files are tried again
        stored = {f"{folder}/{mds.name(number)}": entry["raw_data"]["bytes"] for folder, entry in part.entries.items()}
        if part.of != named:
            break
        others.remove(note)
        if not part.bad and all(there.get(name) == size for name, size in stored.items()):
            parts[number] = part
    if others:
        raise CxrnetError(
            f"shards: '{target}' holds shards of other images, or of another size or number in each; give another "
            "folder, or remove that one"
        )
    return parts


def _note(number: int) -> str:
    return f"{_PARTS}/{number:05d}.npz"


def _store(
    storage: Storage,
    number: int,
    named: str,
    arrays: Sequence[UInt8Array],
    facts: npt.NDArray[np.void],
    bad: dict[int, str],
) -> _Part:
    """Store a shard, and then the note that it is finished."""
    read, entries = facts["read"], {}
    images, small = (array if read.all() else array[read] for array in arrays)
    for folder, pixels in ((IMAGES, images), (SMALL, small)):
        if len(pixels):
            encoded, entries[folder] = mds.encode(pixels, mds.name(number))
            storage.put(f"{folder}/{mds.name(number)}", partial(_write_parts, parts=encoded))
    part = _Part(named, facts, look_binary(small), bad, entries)
    text = json.dumps({"of": named, "bad": bad, "entries": entries}, sort_keys=True)
    storage.put(_note(number), lambda file: _write_npz(file, facts=facts, binary=part.binary, text=np.array(text)))
    return part


def _write_parts(file: Path, parts: Sequence[bytes | memoryview]) -> None:
    with file.open("wb") as opened:
        opened.writelines(parts)


def _write_npz(file: Path, **arrays: npt.NDArray[Any]) -> None:
    with file.open("wb") as opened:  # to a name, numpy would add .npz
        np.savez(opened, **arrays)  # type: ignore[arg-type]  # allow_pickle is none of them


def _finish(
    storage: Storage,
    target: str,
    manifest: pd.DataFrame,
    at: AtSize,
    parts: Mapping[int, _Part],
    before: int,
    seconds: float,
    cache: Path | None,
    known_issues: Mapping[str, Sequence[str]],
) -> Written:
    """Write the tables, the last of which says that all is there."""
    order = [parts[number] for number in range(len(parts))]
    manifest, facts = _read_rows(manifest, order)
    report_outliers(manifest["image_id"].iloc[np.flatnonzero(facts["outliers"])].tolist())
    indexes = {folder: [part.entries[folder] for part in order if folder in part.entries] for folder in (IMAGES, SMALL)}
    small = ShardArray(Place(storage, target, cache, None), SMALL, indexes[SMALL], SEARCH_SIZE)
    found = search(Images.all_of(small), manifest)

    tables: dict[str, Callable[[Path], object]] = {
        f"{folder}/{mds.INDEX}": partial(_write_text, text=mds.index_of(index)) for folder, index in indexes.items()
    }
    tables[FACTS_FILE] = lambda file: _write_npy(file, facts)
    tables[PAIRS] = lambda file: _write_npz(file, **found._asdict())
    tables[MANIFEST] = lambda file: manifest.to_parquet(file, index=False)
    digests = {}
    for name, write in tables.items():
        storage.put(name, write)
        digests[name] = hashlib.sha256(storage.read(name)).hexdigest()
    about = {
        "format": FORMAT,
        "images": len(manifest),
        "size": at[0],
        "resize": at[1],
        "small": SEARCH_SIZE,
        "made_with": made_with(),
        "rules": rules(),
        "known_issues": {source: list(issues) for source, issues in known_issues.items()},
        "tables": digests,
    }
    text = json.dumps(about, indent=2, sort_keys=True) + "\n"
    storage.put(ABOUT, partial(_write_text, text=text))
    size = sum(entry["raw_data"]["bytes"] for index in indexes.values() for entry in index)
    left_out = sum(len(part.bad) for part in order)
    return Written(len(manifest), left_out, len(indexes[IMAGES]), before, size, len(found.a), seconds)


def _read_rows(manifest: pd.DataFrame, order: Sequence[_Part]) -> tuple[pd.DataFrame, npt.NDArray[np.void]]:
    """Return the rows of the images that could be read, with their places in the shards, and their facts."""
    facts = np.concatenate([part.facts for part in order])
    there = np.flatnonzero(facts["read"])
    facts = facts[there]
    kept = np.zeros(len(facts), FACTS)
    kept["sha256"], kept["outliers"] = facts["sha256"], facts["outliers"]
    kept["binary"] = np.concatenate([part.binary for part in order])
    names = [f"{IMAGES}/{mds.name(number)}#" for number in range(len(order))]
    placed = [f"{name}{row}" for name, part in zip(names, order, strict=True) for row in range(len(part.binary))]
    rows = manifest.iloc[there].reset_index(drop=True)
    rows = rows.assign(
        path=pd.array(placed, "string"),
        width=pd.array(facts["width"], "Int64"),
        height=pd.array(facts["height"], "Int64"),
        sha256=pd.array([digest.tobytes().hex() for digest in facts["sha256"]], "string"),
    )
    return rows, kept


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _write_npy(file: Path, array: npt.NDArray[np.void]) -> None:
    with file.open("wb") as opened:
        np.save(opened, array)
