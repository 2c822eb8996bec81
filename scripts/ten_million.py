"""What ten million images take, on paper: the table under "Ten million images" in docs/scale.md.

    python scripts/ten_million.py [images=10000000] [sizes=224,512] [root=<folder of class folders>] [out=table.md]

It measures this machine's own rates (decoding a file, reading shards, SHA-256, the disk, the search for duplicates) and
reckons with what it is told of the machines that would do the work, whose defaults are assumptions:

    gpus=8 gpu_rate=5000      GPUs, and images/s each trains at 224 x 224 (ResNet50, bf16); other sizes by their pixels
    cores=64 bandwidth=1.25   of the machine that writes the shards; GB/s between it, or the GPUs, and S3
    file_mb=1                 of an original file, as it is read
    gpu_price=3 core_price=0.05 storage_price=0.023 get_price=0.0004     dollars: an hour of a GPU and of a core, a
                              GB and month on S3, a thousand requests

Each line says whether its number is measured here, extrapolated from what was measured here, or assumed.
"""

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

PER_SHARD = 1024
SMALL = 64 * 64
NOTED = {"m": "measured", "e": "extrapolated", "a": "assumed"}

DEFAULTS = {
    "images": 10_000_000.0, "gpus": 8.0, "gpu_rate": 5000.0, "cores": 64.0, "bandwidth": 1.25, "file_mb": 1.0,
    "gpu_price": 3.0, "core_price": 0.05, "storage_price": 0.023, "get_price": 0.0004,
}  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """What this machine does.

    Attributes:
        cores: that did it.
        decode: images/s, from files to both sizes, by size, all cores.
        read: images/s from shards in random order, by size, one process, from memory.
        sha256: bytes/s, one core.
        write: bytes/s to the disk.
        fingerprint: images/s, all cores.
        pairs: pairs of images/s of the search for duplicates, whose loop is one thread's.
        searched: images of that search.
    """

    cores: int
    decode: dict[int, float]
    read: dict[int, float]
    sha256: float
    write: float
    fingerprint: float
    pairs: float
    searched: int


def main(words: list[str]) -> int:
    """Measure, reckon, print."""
    if set(words) & {"--help", "-h"}:
        print(__doc__)
        return 0
    options = dict(word.split("=", 1) for word in words)
    given = {name: float(options.get(name, value)) for name, value in DEFAULTS.items()}
    sizes = [int(side) for side in options.get("sizes", "224,512").split(",")]
    with TemporaryDirectory(prefix="cxrnet-estimate-") as scratch:
        rates = measured(Path(scratch), sizes, options.get("root"))
    print(json.dumps(rates.__dict__), file=sys.stderr)
    table = ["| | " + " | ".join(f"{side} x {side}" for side in sizes) + " | |", "| --- " * (len(sizes) + 2) + "|"]
    columns = [list(reckoned(side, given, rates)) for side in sizes]
    table += [
        f"| {cells[0][0]} | {' | '.join(cell[1] for cell in cells)} | {NOTED[cells[0][2]]} |"
        for cells in zip(*columns, strict=True)
    ]
    print("\n".join(table))
    if "out" in options:
        Path(options["out"]).write_text("\n".join(table) + "\n", encoding="utf-8")
    return 0


def measured(scratch: Path, sizes: list[int], root: str | None) -> Rates:
    """Measure what this machine does."""
    from cxrnet.data.images.reader import processors, read_into
    from cxrnet.data.sources.folder import folder
    from cxrnet.data.sources.phantom import phantom

    found = folder(root) if root else phantom(scratch / "phantom", 64, 1024, 0)
    paths = (found["path"].tolist() * 256)[:256]
    decode, read = {}, {}
    for side in sizes:
        at: Any = [((side, side), "stretch"), ((64, 64), "stretch")]
        arrays = [np.empty((len(paths), *size), np.uint8) for size, _ in at]
        began = time.perf_counter()
        read_into(arrays, range(len(paths)), paths, at)
        decode[side] = len(paths) / (time.perf_counter() - began)
        images = opened(scratch / f"{side}", side)
        read[side] = reading(images, 2)
    block = np.random.default_rng(0).integers(0, 256, 2**28, np.uint8)
    began = time.perf_counter()
    hashlib.sha256(block.data).digest()
    sha256 = len(block) / (time.perf_counter() - began)
    began = time.perf_counter()
    with (scratch / "block").open("wb") as file:
        for _ in range(2):
            file.write(block.data)
        file.flush()
        os.fsync(file.fileno())
    write = 2 * len(block) / (time.perf_counter() - began)
    fingerprint, pairs, searched = searching(60_000)
    return Rates(processors(), decode, read, sha256, write, fingerprint, pairs, searched)


def opened(folder: Path, side: int) -> Any:  # noqa: ANN401 (images)
    """Write shards of noise, more than a processor's cache holds, and open them as ``data=shards`` does."""
    from cxrnet.data.images.reader import Images
    from cxrnet.data.shards import mds
    from cxrnet.data.shards.array import Place, ShardArray
    from cxrnet.data.shards.storage import storage_of

    (folder / "images").mkdir(parents=True)
    index, each = [], 2**26 // side**2
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (each, side, side), np.uint8)
        parts, entry = mds.encode(pixels, mds.name(number))
        index.append(entry)
        with (folder / "images" / mds.name(number)).open("wb") as file:
            file.writelines(parts)
    place = Place(storage_of(str(folder)), str(folder), None, None)
    return Images.all_of(ShardArray(place, "images", index, (side, side)))


def reading(images: Any, repeats: int) -> float:  # noqa: ANN401
    """Read batches of 32 in random order; return images/s."""
    random, batches = np.random.default_rng(0), len(images) // 32 * repeats
    orders = [random.integers(0, len(images), 32) for _ in range(batches)]
    images[orders[0]]
    began = time.perf_counter()
    for order in orders:
        images[order]
    return 32 * len(orders) / (time.perf_counter() - began)


def searching(number: int) -> tuple[float, float, int]:
    """Search as many images for duplicates, and half of them: the first part grows with images, the rest with pairs.

    Returns:
        Fingerprints/s, pairs/s, and the number of images.
    """
    import pandas as pd

    from cxrnet.data.duplicates import search

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (number, 8, 8), np.uint8)
    images = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    rows = pd.DataFrame({"sha256": pd.array([f"{row:064x}" for row in range(number)], "string")})
    search(images[:256], rows.head(256))  # warms up
    seconds = []
    for part in (number // 2, number):
        tries = []
        for _ in range(2):
            began = time.perf_counter()
            search(images[:part], rows.head(part))
            tries.append(time.perf_counter() - began)
        seconds.append(min(tries))
    # T(n) = a n + b n^2 / 2 at n and n / 2.
    b = max((seconds[1] - 2 * seconds[0]) * 4 / number**2, 1e-15)
    a = max((seconds[1] - b * number**2 / 2) / number, 1e-9)
    return 1 / a, 1 / b, number


def reckoned(side: int, given: dict[str, float], rates: Rates) -> Iterator[tuple[str, str, str]]:
    """Yield what, how much, and where the number comes from: ``m``, ``e`` or ``a`` of :data:`NOTED`."""
    images, gpus, cores, bandwidth = given["images"], given["gpus"], given["cores"], given["bandwidth"] * 1e9
    pixels = side * side
    at_size, small = images * pixels, images * SMALL
    shards = math.ceil(images / PER_SHARD)
    gpu_rate = given["gpu_rate"] * 224**2 / pixels
    decode = rates.decode[side] / rates.cores
    yield "a file decoded and resized, images/s a core", f"{decode:,.0f}", "m"
    yield "reading shards in random order, images/s a process", f"{rates.read[side]:,.0f}", "m"
    yield "the same, GB/s", f"{rates.read[side] * pixels / 1e9:.1f}", "m"
    yield "SHA-256, GB/s a core", f"{rates.sha256 / 1e9:.2f}", "m"
    yield "writing to this disk, GB/s", f"{rates.write / 1e9:.2f}", "m"
    yield "images at their size, TB", f"{at_size / 1e12:.2f}", "e"
    yield "and at 64 x 64, TB", f"{small / 1e12:.3f}", "e"
    yield "shards of each", f"{shards:,} of {PER_SHARD * pixels / 1e6:.0f} MB", "e"
    yield "a GPU trains, images/s", f"{gpu_rate:,.0f}", "a"
    yield "it needs, MB/s", f"{gpu_rate * pixels / 1e6:,.0f}", "e"
    yield "so many processes read that", f"{math.ceil(gpu_rate / rates.read[side])}", "e"
    read_files = images * given["file_mb"] * 1e6 / bandwidth / 3600
    decoded = images / decode / cores / 3600
    stored = (at_size + small) / bandwidth / 3600
    fingerprints = images / (rates.fingerprint / rates.cores * cores) / 3600
    pairs = images**2 / 2 / rates.pairs / 3600  # in one loop, which more cores hardly help
    yield f"set-up: decoding on {cores:.0f} cores, hours", f"{decoded:.1f}", "e"
    yield (
        f"set-up: reading files of {given['file_mb']:g} MB at {given['bandwidth']:g} GB/s, hours",
        f"{read_files:.1f}",
        "e",
    )
    yield "set-up: storing the shards, hours", f"{stored:.2f}", "e"
    yield "set-up: duplicates, fingerprints, hours", f"{fingerprints:.2f}", "e"
    yield (
        f"set-up: duplicates, all pairs, one thread (of {rates.searched:,} images), hours",
        f"{pairs:,.0f}",
        "e",
    )
    # Reading, decoding and storing go on side by side; the search comes after them.
    hours = max(decoded, read_files, stored) + fingerprints
    yield "set-up without all pairs, hours", f"{hours:,.1f}", "e"
    computed = images / gpu_rate / gpus / 3600
    fetched = at_size / bandwidth / 3600
    epoch = max(computed, fetched)
    yield f"an epoch: {gpus:.0f} GPUs compute, hours", f"{computed:.2f}", "e"
    yield "an epoch: shards from S3, hours", f"{fetched:.2f}", "e"
    yield "an epoch that reads S3, hours", f"{epoch:.2f}", "e"
    yield "checking the shards once, all cores, hours", f"{(at_size + small) / rates.sha256 / cores / 3600:.2f}", "e"
    dollars = (hours * cores + pairs) * given["core_price"]
    yield "set-up with them, without the search over all pairs, $", f"{dollars:,.0f}", "e"
    requests = 2 * shards / 1000 * given["get_price"]
    yield "an epoch, $", f"{epoch * gpus * given['gpu_price'] + requests / 2:,.0f}", "e"
    yield "a month on S3, $", f"{(at_size + small) / 1e9 * given['storage_price']:,.0f}", "e"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
