"""Images in shards as one array: those that are asked for are read from the file that they are in.

Shards in a folder are mapped into memory where they lie; their SHA-256 is checked once, and again when a file has
changed. Those on S3 are copied to the cache when an image of them is first asked for, and checked then.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from cxrnet.core.atomic import write_json
from cxrnet.core.console import bar
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.reader import Images, Noted, Size, processors
from cxrnet.data.shards import mds
from cxrnet.data.shards.storage import S3, Storage
from cxrnet.errors import CxrnetError

AGAIN = "write the shards again with python -m cxrnet.shard, or copy them again"

_AT_ONCE = 8  # files that are copied from S3


@dataclass(frozen=True)
class Place:
    """Where the files of shards are, and how they come to this disk.

    Attributes:
        storage: at the root.
        root: a folder, or ``s3://<bucket>/<folder>``.
        cache: folder of copies, and of what was checked; ``None`` keeps nothing.
        kept_gb: gigabytes of copies at most; ``None`` keeps all.
    """

    storage: Storage
    root: str
    cache: Path | None
    kept_gb: float | None

    @property
    def remote(self) -> bool:
        """Whether they are copied to this disk before they are read."""
        return self.root.startswith(S3)

    @property
    def copies(self) -> Path:
        """The folder of what is kept here of these shards."""
        if self.cache is None:
            raise CxrnetError("cache: null, but shards on S3 are copied to this disk; give cache=<folder>")
        return self.cache / "shards" / hashlib.sha256(self.root.encode()).hexdigest()[:32]

    def check(self, entries: Mapping[str, mds.Entry]) -> None:
        """Refuse shards that are missing, cut short or damaged; those on S3 are read, and checked, when needed."""
        if self.remote:
            self.copies.mkdir(parents=True, exist_ok=True)
        folders = {name.partition("/")[0] for name in entries}
        found = {name: size for folder in folders for name, size in self.storage.sizes(f"{folder}/").items()}
        for name, entry in entries.items():
            wanted = entry["raw_data"]["bytes"]
            if name not in found:
                raise CxrnetError(missing(self.root, name))
            if found[name] != wanted:
                raise CxrnetError(
                    f"data.root: the shard '{self.root}/{name}' has {found[name]} bytes of {wanted}; {AGAIN}"
                )
        if self.remote:
            return
        if self.cache is None:
            self._compare(entries)
        else:
            self.copies.mkdir(parents=True, exist_ok=True)
            with FileLock(self.copies / "checked.lock"):  # processes of one training check them once
                self._compare_new(entries, self.copies / "checked.json")

    def _compare_new(self, entries: Mapping[str, mds.Entry], note: Path) -> None:
        """Compare the files with their digests that have changed since they were compared last."""
        noted: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            noted = json.loads(note.read_bytes())
        states = {name: [each["raw_data"]["hashes"], *_state(Path(self.root, name))] for name, each in entries.items()}
        self._compare({name: each for name, each in entries.items() if noted.get(name) != states[name]})
        if any(noted.get(name) != state for name, state in states.items()):
            write_json(note, noted | states)

    def _compare(self, entries: Mapping[str, mds.Entry]) -> None:
        if not entries:
            return
        with bar("checking shards", len(entries)) as advance, ThreadPoolExecutor(processors()) as pool:
            for name, right in zip(entries, pool.map(self._is_right, entries, entries.values()), strict=True):
                if not right:
                    raise CxrnetError(_damaged(self.root, name))
                advance(1)

    def _is_right(self, name: str, entry: mds.Entry) -> bool:
        return bool(_sha256(Path(self.root, name)) == entry["raw_data"]["hashes"]["sha256"])

    def file(self, name: str, entry: mds.Entry) -> Path:
        """Return the file of a shard on this disk, copied there if need be."""
        if not self.remote:
            return Path(self.root, name)
        file = self.copies / name
        if _is_there(file, entry):
            file.touch()  # used now: the last that has to go
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f"{file.name}.lock")):
            if not _is_there(file, entry):  # else another process has copied it
                partial = file.with_name(f"{file.name}.partial")
                try:
                    self.storage.fetch(name, partial)
                except FileNotFoundError as error:
                    raise CxrnetError(missing(self.root, name)) from error
                if _sha256(partial) != entry["raw_data"]["hashes"]["sha256"]:
                    partial.unlink()
                    raise CxrnetError(_damaged(self.root, name))
                partial.replace(file)
                self._make_room(file)
        return file

    def _make_room(self, new: Path) -> None:
        """Remove the copies that were not used for longest, until there are no more than may be kept."""
        if self.kept_gb is None:
            return
        found = []
        for path in self.copies.glob("*/*.mds"):
            with suppress(FileNotFoundError):  # another process makes room too
                found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.kept_gb * 1e9:
                break
            if path != new:
                path.unlink(missing_ok=True)
                total -= size


def _state(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_there(file: Path, entry: mds.Entry) -> bool:
    try:
        return bool(file.stat().st_size == entry["raw_data"]["bytes"])
    except FileNotFoundError:
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def missing(root: str, name: str) -> str:
    """Say that a file of the shards isn't there."""
    return f"data.root: '{root}/{name}' is missing; {AGAIN}"


def _damaged(root: str, name: str) -> str:
    return f"data.root: the shard '{root}/{name}' is damaged, its SHA-256 is another one; {AGAIN}"


@dataclass
class ShardArray:
    """Images ``(N, H, W) uint8`` of all shards, one after the other; indexing reads those that are asked for.

    Attributes:
        noted: duplicates and images with two grey levels, as found when the shards were written; of the small images.
    """

    place: Place
    name: str
    index: Sequence[mds.Entry]
    size: Size
    noted: Noted | None = None
    _maps: "OrderedDict[int, memoryview]" = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        samples = np.array([each["samples"] for each in self.index], np.int64)
        self.ends = np.cumsum(samples)
        self.starts = self.ends - samples
        largest = max(each["raw_data"]["bytes"] for each in self.index)
        limited = self.place.remote and self.place.kept_gb is not None
        self.room = max(1, int((self.place.kept_gb or 0) * 1e9 // largest)) if limited else len(self.index)
        self._turn = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Go to another process without what is mapped here."""
        return {**self.__dict__, "_maps": OrderedDict(), "_turn": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_turn": threading.Lock()}

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        return (int(self.ends[-1]), *self.size)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def shards_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of the shard that each image is in."""
        return np.searchsorted(self.ends, rows, side="right")

    def __getitem__(self, rows: npt.NDArray[np.int64] | int) -> UInt8Array:
        """Read images by their places: ``(n, H, W)``, or ``(H, W)`` of one."""
        if isinstance(rows, int | np.integer):
            one: UInt8Array = self[np.array([rows])][0]
            return one
        numbers = self.shards_of(rows)
        pixels = self.size[0] * self.size[1]
        firsts, shards = ((rows - self.starts[numbers]) * pixels).tolist(), numbers.tolist()
        used = set(shards)
        if self.place.remote and sum(shard not in self._maps for shard in used) > 1:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                maps = dict(zip(used, pool.map(self._map, used), strict=True))
        else:
            maps = {shard: self._map(shard) for shard in used}
        parts = [maps[shard][first : first + pixels] for shard, first in zip(shards, firsts, strict=True)]
        if not parts:
            return np.empty((0, *self.size), np.uint8)
        # Joining parts of memory costs less than filling an array row by row.
        return np.frombuffer(bytearray().join(parts), np.uint8).reshape(-1, *self.size)

    def _map(self, shard: int) -> memoryview:
        if (found := self._maps.get(shard)) is not None:
            return found
        entry = self.index[shard]
        name = f"{self.name}/{entry['raw_data']['basename']}"
        for last in (False, False, True):
            try:
                found = mds.mapped(self.place.file(name, entry), entry, self.size).reshape(-1).data
                break
            except FileNotFoundError as error:  # another process has made room meanwhile
                if last or not self.place.remote:
                    raise CxrnetError(f"data.root: the shard '{self.place.root}/{name}' is missing; {AGAIN}") from error
        assert found is not None
        with self._turn:
            self._maps[shard] = found
            while len(self._maps) > self.room:
                self._maps.popitem(last=False)
        return found


def shards_of(images: Images) -> npt.NDArray[np.int64]:
    """Return the number of the shard that each image is in, ``(N,)``; 0 where there are no shards."""
    array = images.array
    return array.shards_of(images.rows) if isinstance(array, ShardArray) else np.zeros(len(images), np.int64)


def check_window(images: Images, window: int | None) -> None:
    """Refuse an order of the images that would copy each shard from S3 again and again, or a window of no shards.

    Raises:
        CxrnetError: that is what it would do.
    """
    array = images.array
    if not isinstance(array, ShardArray):
        if window is not None:
            raise CxrnetError("data.window: is of shards, and these images are none; leave it out")
    elif array.room < len(array.index) and (window is None or window + 2 > array.room):
        fits = array.room - 2
        what = f"give data.window={fits} or less, or" if fits > 0 else "give"
        raise CxrnetError(
            f"data.kept_gb: {array.place.kept_gb} GB hold {array.room} of {len(array.index)} shards, and images come "
            f"from {'all of them' if window is None else f'{window} + 2'} at a time; {what} a greater data.kept_gb"
        )
