"""Shards against the memory-mapped store and against the libraries of the field: the tables in docs/scale.md.

    python scripts/shards.py [images=8192] [size=224] [rounds=5] [root=<folder of class folders>] [out=shards.md]
    python scripts/shards.py memory [images=100000] [out=memory.md]

The first writes the same images, at one size, as the store and as shards of each library that is installed (pip install
litdata webdataset mosaicml-streaming), and reads batches of 32 in random order, in turn, warm, on one process. The
images are those of ``root``, or phantoms, repeated as often as need be. The second measures the peak of the memory of a
set-up (``data=folder`` with a cache, ``data=shards``), and makes of 100,000 images a manifest of a million rows, whose
shards are links to the same files.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cxrnet.data.loading import Share, train_loader

BATCH = 32
MOST = 3.0  # seconds that a format is read at a time
PER_SHARD = 1024
LIBRARIES = {"litdata": "litdata", "webdataset": "webdataset", "streaming": "mosaicml-streaming"}  # by module

Array = npt.NDArray[np.uint8]
Fetch = Callable[[npt.NDArray[np.int64]], object]


def main(words: list[str]) -> int:
    """Measure what is asked for, and print the table."""
    if set(words) & {"--help", "-h"}:
        print(__doc__)
        return 0
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if "start" in options:
        print(json.dumps(start(options["start"], Path(options["folder"]))))
        return 0
    if "setup" in options:
        print(json.dumps(setup(options["setup"], options["root"], options["cache"], int(options["size"]))))
        return 0
    with TemporaryDirectory(prefix="cxrnet-shards-") as scratch:
        if "memory" in words:
            lines = memory(Path(scratch), int(options.get("images", 100_000)))
        else:
            lines = formats(Path(scratch), options)
    if "out" in options:
        Path(options["out"]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


# ---------------------------------------------------------------------------------------------------------- formats


def formats(scratch: Path, options: dict[str, str]) -> list[str]:
    """Write and read the same images in each format."""
    number, side = int(options.get("images", 8192)), int(options.get("size", 224))
    manifest = source(scratch, number, options.get("root"))
    from cxrnet.data.images.store import load_at_sizes
    from cxrnet.data.shards.writing import write_shards

    at = ((side, side), "stretch")
    _, (images,) = load_at_sizes(manifest, [at], "fail", scratch / "cache")  # type: ignore[list-item]
    write_shards(manifest, str(scratch / "shards"), at, PER_SHARD, "fail", None, {})  # type: ignore[arg-type]
    pixels = images[:]
    places = {"store": scratch / "cache", "shards": scratch / "shards"}
    for module, package in LIBRARIES.items():
        if importlib.util.find_spec(module):
            places[module] = scratch / module
            WRITERS[module](pixels, scratch / module)
        else:
            print(f"{package} is not installed and left out", file=sys.stderr)
    fetch = {name: OPENERS[name](place) for name, place in places.items()}
    for name, get in fetch.items():
        rows = np.array([number - 1, 0, 7])
        if name != "webdataset":  # which reads in its own order
            np.testing.assert_array_equal(np.asarray(get(rows)), pixels[rows], err_msg=name)
    rates: dict[str, list[float]] = {name: [] for name in fetch}
    for turn in range(int(options.get("rounds", 5)) + 1):  # the first warms up
        order = np.random.default_rng(turn).permutation(number)
        for name, get in fetch.items():
            rates[name].append(rate(get(order[first : first + BATCH]) for first in range(0, number, BATCH)))
    loaded: dict[str, list[float]] = {"store": [], "shards": []}
    for turn in range(int(options.get("rounds", 5)) + 1):
        for name, found in loaded.items():
            dataset = Labelled(fetch[name], torch.zeros(number, dtype=torch.int64))
            found.append(
                rate(train_loader(dataset, SimpleNamespace(sampler="shuffle", seed=turn, batch_size=BATCH), 0, None))
            )
    lines = [
        "| | version | images/s | of the store | in a loader | MB | start, s | memory, MB | order of 0 and 2 workers |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, place in places.items():
        ratio = float(np.median(np.array(rates[name][1:]) / np.array(rates["store"][1:])))
        began = time.perf_counter()
        started = json.loads(ask(f"start={name}", f"folder={place}"))
        started["seconds"] = time.perf_counter() - began
        row = [
            NAMES[name],
            importlib.metadata.version(LIBRARIES[name]) if name in LIBRARIES else "",
            f"{np.median(rates[name][1:]):,.0f}",
            f"{ratio:.2f}",
            f"{np.median(np.array(loaded[name][1:]) / np.array(loaded['store'][1:])):.2f}" if name in loaded else "",
            f"{used(place):.0f}",
            f"{started['seconds']:.2f}",
            f"{started['memory']:.0f}",
            order_of(name, place) if name in LIBRARIES else "the same",
        ]
        lines.append(f"| {' | '.join(row)} |")
    print("\n".join(lines))
    return lines


class Labelled:
    """Batches as training has them, of what is fetched."""

    def __init__(self, fetch: Fetch, labels: torch.Tensor) -> None:
        self.fetch = fetch
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, share: Share) -> dict[str, torch.Tensor]:
        """Make a whole batch."""
        images = np.asarray(self.fetch(np.array(share.indices)))
        return {"image": torch.from_numpy(images).unsqueeze(1), "label": self.labels[share.indices]}


def rate(batches: Iterable[object]) -> float:
    """Read batches, for a few seconds at most; return images/s."""
    began, read = time.perf_counter(), 0
    for _ in batches:
        read += BATCH
        if time.perf_counter() - began > MOST:
            break
    return read / (time.perf_counter() - began)


NAMES = {
    "store": "the store, one mapped file",
    "shards": "`data=shards`: MDS files, mapped",
    "litdata": "litdata, `dataset[i]`",
    "webdataset": "webdataset, in the order of its files",
    "streaming": "MosaicML streaming, `dataset[i]`",
}


def source(scratch: Path, number: int, root: str | None) -> Any:  # noqa: ANN401 (a table)
    """Make a manifest of as many rows; files stand in it again and again."""
    from cxrnet.data.manifest import make_manifest
    from cxrnet.data.sources.folder import folder
    from cxrnet.data.sources.phantom import phantom

    found = folder(root) if root else phantom(scratch / "phantom", 128, 224, 0)
    rows = found.iloc[np.arange(number) % len(found)].reset_index(drop=True)
    return make_manifest(rows.assign(image_id=[f"{row:08d}" for row in range(number)]), "images")


def open_store(place: Path) -> Fetch:
    """Open the store as :mod:`cxrnet.data.images.store` does."""
    from cxrnet.data.images.reader import Images

    (file,) = place.glob("images/*/0.npy")
    images = Images.all_of(np.load(file, mmap_mode="r"))
    return lambda rows: images[rows]


def open_shards(place: Path) -> Fetch:
    """Open shards as ``data=shards`` does, without the manifest."""
    from cxrnet.data.images.reader import Images
    from cxrnet.data.shards.array import Place, ShardArray
    from cxrnet.data.shards.storage import storage_of

    index = json.loads((place / "images" / "index.json").read_text())["shards"]
    size = tuple(json.loads((place / "shards.json").read_text())["size"])
    array = ShardArray(Place(storage_of(str(place)), str(place), None, None), "images", index, size)
    images = Images.all_of(array)
    return lambda rows: images[rows]


def write_litdata(pixels: Array, place: Path) -> None:
    """Write chunks of as many images, by the writer below ``litdata.optimize``."""
    from litdata.streaming.writer import BinaryWriter

    place.mkdir()
    writer = BinaryWriter(str(place), chunk_size=PER_SHARD)
    for row, image in enumerate(pixels):
        writer[row] = {"image": image, "row": row}
    writer.done()
    writer.merge()


def open_litdata(place: Path) -> Fetch:
    """Open them by index."""
    import litdata

    dataset = litdata.StreamingDataset(str(place))
    return lambda rows: np.stack([dataset[row]["image"] for row in rows.tolist()])


def write_webdataset(pixels: Array, place: Path) -> None:
    """Write tar files."""
    import webdataset

    place.mkdir()
    with webdataset.ShardWriter(str(place / "%05d.tar"), maxcount=PER_SHARD, verbose=0) as writer:
        for row, image in enumerate(pixels):
            writer.write({"__key__": f"{row:08d}", "npy": image, "cls": row})


def open_webdataset(place: Path) -> Fetch:
    """Open them in the order in which they lie, again and again: the library has no other access since 1.0."""
    import webdataset

    files = [str(file) for file in sorted(place.glob("*.tar"))]
    made = webdataset.WebDataset(files, shardshuffle=False).decode().to_tuple("npy").batched(BATCH, partial=True)
    stream = iter(made.repeat())
    return lambda rows: np.stack(next(stream)[0])[: len(rows)]


def write_streaming(pixels: Array, place: Path) -> None:
    """Write MDS files by the library's own writer."""
    from streaming import MDSWriter

    columns = {"image": f"ndarray:uint8:{pixels.shape[1]},{pixels.shape[2]}", "row": "int"}
    limit = PER_SHARD * (pixels[0].size + 16)
    with MDSWriter(out=str(place), columns=columns, hashes=["sha256"], size_limit=limit) as writer:
        for row, image in enumerate(pixels):
            writer.write({"image": image, "row": row})


def open_streaming(place: Path) -> Fetch:
    """Open them by index."""
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(place), batch_size=BATCH)
    return lambda rows: np.stack([dataset[row]["image"] for row in rows.tolist()])


WRITERS = {"litdata": write_litdata, "webdataset": write_webdataset, "streaming": write_streaming}
OPENERS = {
    "store": open_store,
    "shards": open_shards,
    "litdata": open_litdata,
    "webdataset": open_webdataset,
    "streaming": open_streaming,
}


def start(name: str, place: Path) -> dict[str, float]:
    """Open a format and read one batch in this process; return megabytes at the peak."""
    OPENERS[name](place)(np.arange(BATCH))
    return {"memory": peak()}


def order_of(name: str, place: Path) -> str:
    """Compare the shuffled order of a library's own loader with 0 and 2 workers, at one seed."""
    try:
        orders = [list(ORDERS[name](place, workers)) for workers in (0, 2)]
    except Exception as error:  # whatever a library raises is what there is to say
        return f"fails: {type(error).__name__}"
    if orders[0] == orders[1]:
        return "the same"
    return "another" if sorted(orders[0]) == sorted(orders[1]) else "another, not every image once"


def order_litdata(place: Path, workers: int) -> Iterator[int]:
    """List the rows of an epoch."""
    import litdata

    dataset = litdata.StreamingDataset(str(place), shuffle=True, seed=1)
    for batch in litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers):
        yield from batch["row"].tolist()


def order_webdataset(place: Path, workers: int) -> Iterator[int]:
    """List the rows of an epoch."""
    import webdataset

    files = [str(file) for file in sorted(place.glob("*.tar"))]
    made = webdataset.WebDataset(files, shardshuffle=len(files), seed=1, workersplitter=webdataset.split_by_worker)
    dataset = made.shuffle(1000, seed=1).decode().to_tuple("cls").batched(BATCH)
    for (rows,) in webdataset.WebLoader(dataset, batch_size=None, num_workers=workers):
        yield from np.asarray(rows).tolist()


def order_streaming(place: Path, workers: int) -> Iterator[int]:
    """List the rows of an epoch."""
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(local=str(place), shuffle=True, shuffle_seed=1, batch_size=BATCH)
    for batch in StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers):
        yield from batch["row"].tolist()


ORDERS = {"litdata": order_litdata, "webdataset": order_webdataset, "streaming": order_streaming}


# ----------------------------------------------------------------------------------------------------------- memory


def memory(scratch: Path, number: int) -> list[str]:
    """Measure set-ups of a tenth of the images, of all, and of ten rows for each."""
    side, cache = 64, scratch / "cache"
    cases: list[tuple[str, str, int, str]] = []
    for count in (number // 10, number):
        draw(scratch / f"files{count}", count, side)
        words = ["data=folder", f"data.root={scratch}/files{count}", f"shards={scratch}/shards{count}"]
        sizes = [f"data.size=[{side},{side}]", f"per_shard={PER_SHARD}", f"cache={cache}"]
        subprocess.run([sys.executable, "-m", "cxrnet.shard", *words, *sizes], check=True, stdout=subprocess.DEVNULL)
        cases += [(kind, f"{scratch}/{place}{count}", count, f"{count:,}") for kind, place in KINDS.items()]
    many(scratch / f"shards{number}", scratch / "many", 10)
    cases.append(("shards", f"{scratch}/many", 10 * number, f"{number:,}, each in 10 rows"))
    lines = [
        "| data | rows | images | set-up, s | memory before, MB | peak, MB | more, bytes a row |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, root, rows, images in cases:
        for _ in range(2):  # the second finds what the first has kept
            found = json.loads(ask(f"setup={kind}", f"root={root}", f"cache={cache}", f"size={side}"))
        more = (found["peak"] - found["before"]) * 1e6 / rows
        cells = [f"{rows:,}", images, *(f"{found[name]:.0f}" for name in ("seconds", "before", "peak")), f"{more:.0f}"]
        lines.append(f"| `data={kind}` | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))
    return lines


KINDS = {"folder": "files", "shards": "shards"}


def draw(folder: Path, number: int, side: int) -> None:
    """Draw small images, no two alike, in two class folders."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for row in range(number):
        blobs = Image.fromarray(rng.integers(0, 255, (9, 9), np.uint8)).resize((side, side))
        blobs.save(folder / "ab"[row % 2] / f"{row:07d}.png", compress_level=1)


def many(shards: Path, target: Path, times: int) -> None:
    """Make shards of a manifest with each row several times, under other names; the files of images are links."""
    import pandas as pd

    from cxrnet.data.shards import mds
    from cxrnet.data.shards.reading import ABOUT, FACTS_FILE, IMAGES, MANIFEST, PAIRS, SMALL

    about: dict[str, Any] = json.loads((shards / ABOUT).read_text())
    tables: dict[str, bytes] = {PAIRS: (shards / PAIRS).read_bytes()}
    for folder in (IMAGES, SMALL):
        (target / folder).mkdir(parents=True)
        index = json.loads((shards / folder / mds.INDEX).read_text())["shards"]
        entries = []
        for number in range(times * len(index)):
            entry = index[number % len(index)]
            name = mds.name(number)
            os.link(shards / folder / entry["raw_data"]["basename"], target / folder / name)
            entries.append({**entry, "raw_data": {**entry["raw_data"], "basename": name}})
        tables[f"{folder}/{mds.INDEX}"] = mds.index_of(entries).encode()
    table, facts = pd.read_parquet(shards / MANIFEST), np.tile(np.load(shards / FACTS_FILE), times)
    facts["sha256"] = np.random.default_rng(0).integers(0, 256, facts["sha256"].shape)  # of files of their own
    ids = [f"{turn}/{name}" for turn in range(times) for name in table["image_id"]]
    numbers = np.arange(len(facts)) // len(table) * len(index)
    first = table["path"].str.extract(r"shard\.(\d+)\.mds#(\d+)").astype(int).to_numpy()
    places = np.tile(first, (times, 1))
    paths = [f"{IMAGES}/{mds.name(n)}#{row}" for n, row in zip(places[:, 0] + numbers, places[:, 1], strict=True)]
    rows = pd.concat([table] * times, ignore_index=True)
    digests = [digest.tobytes().hex() for digest in facts["sha256"]]
    rows.assign(image_id=ids, path=paths, sha256=digests).to_parquet(target / MANIFEST, index=False)
    tables[MANIFEST] = (target / MANIFEST).read_bytes()
    with (target / FACTS_FILE).open("wb") as file:
        np.save(file, facts)
    tables[FACTS_FILE] = (target / FACTS_FILE).read_bytes()
    for name, content in tables.items():
        (target / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in tables.items()}
    (target / ABOUT).write_text(json.dumps({**about, "images": len(rows), "tables": hashes}))


def setup(kind: str, root: str, cache: str, side: int) -> dict[str, float]:
    """Set up the data of a configuration in this process."""
    from cxrnet.cli.app import compose_config
    from cxrnet.core.config import plain_config
    from cxrnet.workflows.build import make_data
    from cxrnet.workflows.settings import Train

    words = [f"data={kind}", f"data.root={root}", f"cache={cache}", f"data.size=[{side},{side}]"]
    config, before, began = plain_config(compose_config(Train, words)), peak(), time.perf_counter()
    data = make_data(config["data"])
    batch = next(iter(data.train_dataloader()))
    assert len(batch["label"]) == BATCH
    return {"seconds": time.perf_counter() - began, "before": before, "peak": peak()}


def peak() -> float:
    """Return the peak of this process's memory in megabytes; Linux."""
    # Not getrusage's, which a process begins with that of its parent.
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def used(place: Path) -> float:
    """Return the megabytes of the files of images in and below a folder."""
    files = (path for path in place.rglob("*") if path.is_file() and not {"small", "parts"} & {*path.parts})
    return sum(path.stat().st_size for path in files) / 1e6


def ask(*words: str) -> str:
    """Run this script in a process of its own; return the last line that it prints."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
