"""Time ``python -m cxrnet.prepare`` on drawn images: the table under "One page on the data" in data/README.md.

    python scripts/prepare_time.py <folder> [--images 15000] [--weights <file of MobileNetV2>]

Draws grey PNG files of 299 x 299 pixels, as the COVID-19 Radiography Database has them, in three classes, no two of
them alike, and prepares them twice: with an empty cache, and with what the first time left.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 299
CLASSES = ("COVID", "Normal", "Viral Pneumonia")


def draw(number: int, folder: Path) -> None:
    """Draw an image of smooth blobs, brighter in one third of it, and a little noise."""
    random = np.random.default_rng(number)
    name = CLASSES[number % len(CLASSES)]
    blobs = random.integers(20, 200, (12, 12)).astype(np.uint8)
    image = np.asarray(Image.fromarray(blobs).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(np.float32)
    start = SIDE // len(CLASSES) * CLASSES.index(name)
    image[:, start : start + SIDE // len(CLASSES)] += 15
    image += random.normal(0, 3, image.shape)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:06d}.png")


def processor_seconds() -> float:
    """Return the seconds that the commands so far have had a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Draw the images and time the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--weights", default="none")
    given = parser.parse_args()
    images = (given.folder / f"images_{given.images}").resolve()
    if not images.exists():
        for name in CLASSES:
            (images / name).mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(draw, folder=images), range(given.images), chunksize=64))
    outputs = given.folder.resolve() / f"outputs_{time.time():.0f}"
    command = [sys.executable, "-m", "cxrnet.prepare", "data=folder", f"data.root='{images}'"]
    for what in ("empty cache", "filled cache"):
        start, before = time.perf_counter(), processor_seconds()
        subprocess.run([*command, f"weights={given.weights}", f"outputs='{outputs}'"], check=True)
        wall, work = time.perf_counter() - start, processor_seconds() - before
        print(f"{given.images} images, {what}: {wall:.0f} s, {work:.0f} s of processors, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
