"""The decoder's own rate: Pillow reads and resizes files on all cores, and nothing is done with them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from cxrnet.data.images.files import find_images
from cxrnet.data.images.reader import processors


def decode(root: str, sizes: list[list[int]]) -> dict[str, Any]:
    """Decode every image below a folder once, to one grey channel at each of some sizes, height and width.

    Without a size the images stay as they are in their files, and of colour JPEGs the brightness alone is decoded.
    """
    files = find_images(Path(root)).images
    begin = time.perf_counter()
    with ThreadPoolExecutor(processors()) as pool:
        done = sum(pool.map(lambda file: _decode(file, sizes), files))
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "images_per_second": done / seconds, "images": done}


def _decode(file: Path, sizes: list[list[int]]) -> bool:
    with Image.open(file) as image:
        if not sizes:
            image.draft("L", None)
        grey = image.convert("L")
        for height, width in sizes:
            grey.resize((width, height), Image.Resampling.BILINEAR)
    return True
