"""Reading and growing data sets, and how long commands take. torch isn't imported where its memory would count."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image
from shared import peak_memory

from cxrnet.core.process import keep_freed_memory
from cxrnet.data.images.files import find_images
from cxrnet.data.manifest import make_manifest, read_manifest, write_manifest
from cxrnet.data.splits import split_manifest

if TYPE_CHECKING:
    from torch import Tensor

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}
MARK = "CXRNET_BENCHMARK_MARK"  # names the file that the first batch writes


def decode(root: str, sizes: list[list[int]]) -> dict[str, Any]:
    """Decode every image below a folder with Pillow on all cores, to one grey channel at each of some sizes.

    Without a size images aren't resized, and only the brightness of colour JPEGs is decoded.
    """
    from cxrnet.data.images.reader import processors

    def decode_file(file: Path) -> None:
        with Image.open(file) as image:
            if not sizes:
                image.draft("L", None)
            grey = image.convert("L")
            for height, width in sizes:
                grey.resize((width, height), Image.Resampling.BILINEAR)

    files = find_images(Path(root)).images
    begin = time.perf_counter()
    with ThreadPoolExecutor(processors()) as pool:
        list(pool.map(decode_file, files))
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "images_per_second": len(files) / seconds, "images": len(files)}


def write_rows(file: str, rows: int, seed: int) -> dict[str, Any]:
    """Write a manifest of patients with one to four images and four classes; there are no files behind it."""
    rng = np.random.default_rng(seed)
    names = [f"images/{k:08d}.png" for k in range(rows)]
    table = pd.DataFrame({"image_id": names, "path": [f"/data/{name}" for name in names]})
    table["label"] = np.array(["COVID-19", "Lung Opacity", "Normal", "Viral Pneumonia"])[rng.integers(0, 4, rows)]
    patients = np.repeat(np.arange(rows), rng.integers(1, 5, rows))[:rows]
    table["patient_id"] = [f"P{patient:08d}" for patient in patients]
    write_manifest(make_manifest(table.assign(source="drawn"), file), file)
    return {}


def manifest(file: str, seed: int) -> dict[str, Any]:
    """Open a manifest and split it, patients together, classes in proportion."""
    keep_freed_memory()  # as every command of cxrnet does
    begin = time.perf_counter()
    table = read_manifest(file)
    opened = time.perf_counter()
    split_manifest(table, FRACTIONS, seed)
    times = {"open_seconds": opened - begin, "split_seconds": time.perf_counter() - opened}
    return {"rows": len(table), **times, **peak_memory()}


def command(line: list[str], fails: bool) -> dict[str, Any]:
    """Time ``python <line>``.

    Raises:
        RuntimeError: it fails and should not, or the other way round.
    """
    with TemporaryDirectory() as folder:
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, *line], cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
    if bool(done.returncode) != fails:
        raise RuntimeError(f"python {' '.join(line)} ended with {done.returncode}: {done.stderr[-500:]}")
    return {"seconds": seconds}


def first_batch(overrides: list[str]) -> dict[str, Any]:
    """Time ``python -m cxrnet.train`` until its first batch of training images is there.

    Raises:
        RuntimeError: there was none.
    """
    line = ["-m", "cxrnet.train", *overrides, f"augment._target_={__name__}.first_batch_came"]
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    with TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        environment = {**os.environ, "PYTHONPATH": path, MARK: str(mark)}
        begin = time.time()
        done = subprocess.run(
            [sys.executable, *line], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if not mark.is_file():
            raise RuntimeError(f"cxrnet.train came to no batch: {done.stderr[-500:]}")
        return {"seconds": float(mark.read_text(encoding="utf-8")) - begin}


def first_batch_came(**_settings: float) -> "Callable[[Tensor], Tensor]":
    """Make an augmentation that notes the time and ends the process."""

    def note(_images: "Tensor") -> "Tensor":
        Path(os.environ[MARK]).write_text(str(time.time()), encoding="utf-8")
        os._exit(0)

    return note
