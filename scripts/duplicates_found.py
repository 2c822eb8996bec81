"""Test which changes of an image the search for duplicates finds: the table under "Duplicates" in docs/evaluation.md.

    python scripts/duplicates_found.py data=covid19_image data.root=<folder> [...]

The words are those of ``python -m cxrnet.train``. A changed version of each image is put beside the images, and the
share of versions that the search pairs with their image is printed, kind by kind.
"""

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from PIL import Image, ImageDraw, ImageOps

from cxrnet.cli.app import compose_config
from cxrnet.core.config import plain_config
from cxrnet.data.duplicates import SEARCH_SIZE, find_duplicates
from cxrnet.data.images.decode import UInt8Array, read_image
from cxrnet.data.images.reader import resize
from cxrnet.workflows.settings import Train

Change = Callable[[Image.Image], Image.Image]


def cropped(share: float) -> Change:
    """Crop so much of the width and height from each side."""

    def change(image: Image.Image) -> Image.Image:
        across, down = round(share * image.width), round(share * image.height)
        return image.crop((across, down, image.width - across, image.height - down))

    return change


def framed(share: float) -> Change:
    """Add a black border, so much of the longer side wide."""
    return lambda image: ImageOps.expand(image, round(share * max(image.size)))


def turned(degrees: float) -> Change:
    """Rotate about the centre, black outside."""
    return lambda image: image.rotate(degrees, Image.Resampling.BILINEAR)


def compressed(quality: int) -> Change:
    """Compress as JPEG."""

    def change(image: Image.Image) -> Image.Image:
        file = BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("L")

    return change


def labelled(image: Image.Image) -> Image.Image:
    """Cover 5 % with a white box in the upper left corner, as a label does."""
    drawn = image.copy()
    ImageDraw.Draw(drawn).rectangle((0, 0, 0.25 * image.width, 0.2 * image.height), fill=255)
    return drawn


CHANGES: dict[str, Change] = {
    "JPEG, quality 10": compressed(10),
    "half the size": lambda image: image.resize((max(1, image.width // 2), max(1, image.height // 2))),
    "gamma 1.5": lambda image: image.point([round(255 * (level / 255) ** 1.5) for level in range(256)]),
    "histogram equalised": ImageOps.equalize,
    "cropped by 1 % a side": cropped(0.01),
    "cropped by 2.5 % a side": cropped(0.025),
    "border of 2 %": framed(0.02),
    "turned by 1 degree": turned(1),
    "turned by 2 degrees": turned(2),
    "label over 5 %": labelled,
    "mirrored": ImageOps.mirror,
    "inverted": ImageOps.invert,
}


def small(image: Image.Image) -> UInt8Array:
    """Resize an image to the size at which images are compared."""
    return resize(np.asarray(image), SEARCH_SIZE, "stretch")


def main() -> None:
    """Print a row for each kind."""
    if not sys.argv[1:] or {"--help", "-h"} & set(sys.argv):
        print(__doc__)
        return
    config = plain_config(compose_config(Train, sys.argv[1:]))
    manifest: pd.DataFrame = instantiate(config["data"]["manifest"])()
    files = [Path(path) for path in manifest["path"]]
    images = [Image.fromarray(read_image(file.read_bytes(), str(file))) for file in files]
    originals = np.stack([small(image) for image in images])
    rows = pd.concat([manifest, manifest.assign(image_id="changed " + manifest["image_id"])], ignore_index=True)
    print(f"| {len(images)} images | found |")
    print("|---|---|")
    for kind, change in CHANGES.items():
        changed = np.stack([small(change(image)) for image in images])
        pairs = find_duplicates(np.concatenate([originals, changed]), rows.assign(sha256=pd.NA))
        ends = zip(pairs["image_id_a"], pairs["image_id_b"], strict=True)
        found = {min(a, b, key=len) for a, b in ends if f"changed {min(a, b, key=len)}" == max(a, b, key=len)}
        print(f"| {kind} | {len(found) / len(images):.0%} |", flush=True)


if __name__ == "__main__":
    main()
