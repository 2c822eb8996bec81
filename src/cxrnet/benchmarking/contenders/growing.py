"""What large data sets cost: a manifest of many rows, the first set-up of many images."""

import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from cxrnet.benchmarking.contenders.memory import peak_resident
from cxrnet.core.process import keep_freed_memory
from cxrnet.data.images.files import find_images
from cxrnet.data.manifest import make_manifest, read_manifest, write_manifest
from cxrnet.data.splits import split_manifest

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


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
    keep_freed_memory()
    begin = time.perf_counter()
    table = read_manifest(file)
    opened = time.perf_counter()
    split_manifest(table, FRACTIONS, seed)
    done = time.perf_counter()
    return {
        "rows": len(table), "open_seconds": opened - begin, "split_seconds": done - opened, "memory_mb": peak_resident()
    }  # fmt: skip


def setup(root: str, images: int, size: list[int], batch_size: int, seed: int, scratch: str) -> dict[str, Any]:
    """The first set-up of a data module on so many of the images below a folder of class folders.

    The cache lies in ``scratch``, as large as the images together, and is removed.
    """
    from cxrnet.data.datamodule import XrayDataModule  # brings torch, which the manifest doesn't need

    keep_freed_memory()
    # Files are numbered through the classes: the first ones are of all classes alike.
    chosen = sorted(find_images(Path(root)).images, key=lambda file: file.name)[:images]
    rows = {"image_id": [file.relative_to(root).as_posix() for file in chosen], "path": [str(file) for file in chosen]}
    table = pd.DataFrame({**rows, "label": [file.parent.name for file in chosen], "source": "drawn"})
    with TemporaryDirectory(dir=scratch) as cache:
        begin = time.perf_counter()
        data = XrayDataModule(
            manifest=make_manifest(table, root),
            split=partial(split_manifest, fractions=FRACTIONS, seed=seed),
            size=size,
            resize="stretch",
            augment=None,
            batch_size=batch_size,
            sampler="shuffle",
            num_workers=0,
            on_error="fail",
            seed=seed,
            cache=cache,
        )
        data.setup()
        seconds = time.perf_counter() - begin
    return {"images": images, "seconds": seconds, "ms_per_image": 1000 * seconds / images, "memory_mb": peak_resident()}
