"""Search more and more images for duplicates, and time it: the growth under "Duplicates" in docs/evaluation.md.

    python scripts/search_growth.py data=covid19_radiography data.root=<folder> [...] [images=2300,10000,100000]

The words are those of ``python -m cxrnet.train``. Images are drawn at random, each from the normal distribution with
the mean and the 256 main components of the images of the set, at the size at which duplicates are searched, so that no
two are copies and all are about as like each other as those of the set. Each hundredth is another one turned by 3
degrees. Times are seconds of the processors (of all threads), without drawing them.
"""

import sys
import time

import numpy as np
import numpy.typing as npt
import pandas as pd
from hydra.utils import instantiate
from PIL import Image

from cxrnet.cli.app import compose_config
from cxrnet.core.config import plain_config
from cxrnet.data.duplicates import SEARCH_SIZE, search
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.store import load_images
from cxrnet.workflows.settings import Train

COMPONENTS = 256
_BLOCK = 1000


def drawn(images: UInt8Array, count: int) -> UInt8Array:
    """Draw ``count`` images like those given, ``(count, H, W) uint8``."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    _, sizes, axes = np.linalg.svd(flat - mean, full_matrices=False)
    axes = axes[:COMPONENTS] * (sizes[:COMPONENTS, None] / np.sqrt(len(flat)))
    rng, made = np.random.default_rng(0), np.empty((count, *images.shape[1:]), np.uint8)
    for start in range(0, count, _BLOCK):
        part = made[start : start + _BLOCK]
        grey = mean + rng.standard_normal((len(part), len(axes)), np.float32) @ axes
        part[:] = grey.reshape(part.shape).clip(0, 255)
    for place in range(0, count - 1, 100):
        turned = Image.fromarray(made[place]).rotate(3, Image.Resampling.BILINEAR)
        made[place + 1] = np.asarray(turned)
    return made


def timed(images: UInt8Array) -> tuple[float, npt.NDArray[np.int64]]:
    """Search images: seconds of the processors, and the pairs ``(P, 2)``."""
    rows = pd.DataFrame({"sha256": pd.array([f"{row:064x}" for row in range(len(images))], "string")})
    began = time.process_time()
    found = search(images, rows)
    return time.process_time() - began, np.stack([found.a, found.b], axis=1)


def main() -> None:
    """Print a row for each number of images."""
    if not sys.argv[1:] or {"--help", "-h"} & set(sys.argv):
        print(__doc__)
        return
    words = [word for word in sys.argv[1:] if not word.startswith("images=")]
    asked = next((word.partition("=")[2] for word in sys.argv[1:] if word.startswith("images=")), "2300,10000,100000")
    config = plain_config(compose_config(Train, words))
    _, images = load_images(instantiate(config["data"]["manifest"])(), SEARCH_SIZE, "stretch", "skip")
    counts = [int(count) for count in asked.split(",")]
    made = drawn(images[:], max(counts))
    timed(made[:500])  # warms up
    print("| images | seconds | ms an image | of the 1 % copies found | other pairs |")
    print("|---|---|---|---|---|", flush=True)
    for count in counts:
        seconds, pairs = timed(made[:count])
        copies = (pairs[:, 0] % 100 == 0) & (pairs[:, 1] == pairs[:, 0] + 1)
        share = copies.sum() / len(range(0, count - 1, 100))
        print(
            f"| {count:,} | {seconds:.1f} | {1000 * seconds / count:.2f} | {share:.3f} | {(~copies).sum()} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
