"""Plant copies as people make them and count those that the search finds: "Duplicates" in docs/evaluation.md.

    python scripts/planted_copies.py data=covid19_image data.root=<folder> [...] [before=<file>] [number=120]

The words are those of ``python -m cxrnet.train``. Copies of ``number`` images, drawn at random, are put beside all
images of the set, of each kind; several kinds at a time, of other images, where there are enough. Recall is the share
of the copies that are paired with their image. Precision is the share of the pairs with a copy that are of one picture:
a copy and its image, or an image that the search pairs with that image where no copies are (those pairs are of the set
itself, and looked at by eye).

``before`` is a file with another search, beside which the search of today is put::

    git show 3804720:src/cxrnet/data/duplicates.py > before.py
"""

import importlib.util
import sys
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pandas as pd
from hydra.utils import instantiate
from PIL import Image, ImageDraw, ImageOps

from cxrnet.cli.app import compose_config
from cxrnet.core.config import plain_config
from cxrnet.core.grouping import components
from cxrnet.data import duplicates
from cxrnet.data.images.decode import UInt8Array, read_image
from cxrnet.data.images.reader import resize
from cxrnet.errors import CxrnetError
from cxrnet.workflows.settings import Train

_TOGETHER = 8  # kinds at most that are planted at a time

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
_SHADES = (0, 0, 255, 128)  # of borders and padding: black more often than white or grey


def up_to(rng: np.random.Generator, most: float) -> float:
    """Draw from 0 to the most, and in one of two cases the most itself."""
    return most if rng.random() < 0.5 else most * rng.random()


def compressed(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Compress as JPEG at quality 10."""
    file = BytesIO()
    image.save(file, "JPEG", quality=10)
    return Image.open(file).convert("L")


def halved(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Resize to half of the width and height."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def stretched(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change the aspect by up to 30 %."""
    return image.resize((max(1, round(image.width * rng.uniform(0.7, 1.3))), image.height))


def gamma(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change the contrast by a power of 0.5 to 2."""
    power = rng.choice([0.5, 0.67, 1.5, 2.0])
    return image.point([round(255 * (level / 255) ** power) for level in range(256)])


def windowed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut off the darkest 2 to 15 % and the brightest 3 to 20 %."""
    grey = np.asarray(image, np.float64)
    low, high = np.percentile(grey, [rng.uniform(2, 15), rng.uniform(80, 97)])
    return Image.fromarray(np.clip((grey - low) / max(high - low, 10) * 255, 0, 255).astype(np.uint8))


def equalised(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Equalise the histogram."""
    return ImageOps.equalize(image)


def cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop up to 5 % of each side, each by itself."""
    left, top, right, bottom = (up_to(rng, 0.05) for _ in range(4))
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


def framed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Add a border of up to 10 % of the longer side."""
    width = max(1, round(up_to(rng, 0.1) * max(image.size)))
    return ImageOps.expand(image, width, fill=int(rng.choice(_SHADES)))


def padded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Pad one side or two that are opposite by up to 10 % of the longer side."""
    widths, side = [0, 0, 0, 0], int(rng.integers(4))
    for place in (side, (side + 2) % 4)[: rng.integers(1, 3)]:
        widths[place] = max(1, round(up_to(rng, 0.1) * max(image.size)))
    return ImageOps.expand(image, (widths[0], widths[1], widths[2], widths[3]), fill=int(rng.choice(_SHADES)))


def turned(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Rotate by up to 5 degrees, black outside; in one of three cases the canvas grows with it."""
    angle = float(rng.choice([-1, 1])) * up_to(rng, 5)
    return image.rotate(angle, Image.Resampling.BILINEAR, expand=bool(rng.random() < 0.3))


def mirrored(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Mirror left and right."""
    return ImageOps.mirror(image)


def inverted(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """Turn black into white."""
    return ImageOps.invert(image)


def labelled(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cover 5 % of the picture with a white or black box, at an edge or anywhere."""
    drawn, wide = image.copy(), rng.uniform(0.15, 0.35)
    high = 0.05 / wide
    left, top = (rng.choice([0, rng.uniform(0, 1 - side), 1 - side]) for side in (wide, high))
    box = np.array([left, top, left + wide, top + high]) * np.tile(image.size, 2)
    ImageDraw.Draw(drawn).rectangle(box.tolist(), fill=int(rng.choice([255, 255, 0])))
    return drawn


def marked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draw two arrows and a line of text in white."""
    drawn, (width, height) = image.copy(), image.size
    draw = ImageDraw.Draw(drawn)
    for _ in range(2):
        (x, y), (dx, dy) = rng.uniform(0.2, 0.8, 2), rng.uniform(-0.2, 0.2, 2)
        ends = [x * width, y * height, (x + dx) * width, (y + dy) * height]
        draw.line(ends, fill=255, width=max(2, round(0.02 * width)))
        head = [(x + 0.04, y), (x - 0.04, y + 0.03), (x - 0.03, y - 0.04)]
        draw.polygon([(across * width, down * height) for across, down in head], fill=255)
    draw.text((width * 0.05, height * 0.9), "L 12:30 AP", fill=255, font_size=max(10, round(0.07 * height)))
    return drawn


CHANGES: dict[str, Sequence[Change]] = {
    "JPEG, quality 10": (compressed,),
    "half the size": (halved,),
    "another aspect": (stretched,),
    "gamma 0.5 to 2": (gamma,),
    "windowed": (windowed,),
    "histogram equalised": (equalised,),
    "cropped": (cropped,),
    "framed": (framed,),
    "padded": (padded,),
    "turned": (turned,),
    "mirrored": (mirrored,),
    "inverted": (inverted,),
    "label over 5 %": (labelled,),
    "arrows and text": (marked,),
    "cropped, turned": (cropped, turned),
    "cropped, framed": (cropped, framed),
    "cropped, windowed": (cropped, windowed),
    "cropped, label": (cropped, labelled),
    "framed, turned": (framed, turned),
    "turned, framed": (turned, framed),
    "framed, label": (framed, labelled),
    "label, framed": (labelled, framed),
    "framed, JPEG": (framed, compressed),
    "turned, label": (turned, labelled),
    "turned, equalised": (turned, equalised),
    "turned, JPEG": (turned, compressed),
    "mirrored, turned": (mirrored, turned),
    "mirrored, cropped": (mirrored, cropped),
    "mirrored, framed": (mirrored, framed),
    "mirrored, gamma": (mirrored, gamma),
    "mirrored, inverted": (mirrored, inverted),
    "inverted, cropped": (inverted, cropped),
    "inverted, framed": (inverted, framed),
    "framed, inverted": (framed, inverted),
    "inverted, turned": (inverted, turned),
    "inverted, label": (inverted, labelled),
    "inverted, equalised": (inverted, equalised),
    "inverted, JPEG": (inverted, compressed),
    "windowed, label": (windowed, labelled),
    "half the size, JPEG": (halved, compressed),
}


def changed(image: Image.Image, kind: str, name: str) -> Image.Image:
    """Change an image; the same kind and name draw the same change."""
    rng = np.random.default_rng(zlib.crc32(f"{kind} {name}".encode()))
    for change in CHANGES[kind]:
        image = change(image, rng)
    return image


def pairs_in(search: ModuleType, images: UInt8Array) -> npt.NDArray[np.int64]:
    """Search images without looking at their files: the places of each pair, ``(P, 2)``."""
    ids = pd.array([f"{row:06}" for row in range(len(images))], "string")
    rows = pd.DataFrame({"image_id": ids, "sha256": pd.NA, "split": pd.NA, "label": "a"})
    pairs = search.find_duplicates(images, rows)
    places: npt.NDArray[np.int64] = pairs[["image_id_a", "image_id_b"]].astype(int).to_numpy().reshape(-1, 2)
    return places


def score(
    found: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], of: npt.NDArray[np.int64], here: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """Count what was found of some copies: recall and precision (NaN where nothing is found).

    Args:
        found: the pairs, ``(P, 2)``; copies come after all images.
        groups: the number of each image's group among the images alone, ``(N,)``.
        of: the image that each copy was made of, ``(C,)``.
        here: the copies that count, ``(C,)``.
    """
    counts = np.concatenate([np.zeros(len(groups), bool), here])
    found = found[counts[found].any(axis=1)]
    shows = np.concatenate([np.arange(len(groups)), of])
    first, second = shows[found[:, 0]], shows[found[:, 1]]
    own = found[(first == second) & (found[:, 0] < len(groups))]
    precision = float((groups[first] == groups[second]).mean()) if len(found) else np.nan
    return len(np.unique(own[:, 1])) / here.sum(), precision


def main() -> None:
    """Print a row for each kind."""
    if not sys.argv[1:] or {"--help", "-h"} & set(sys.argv):
        print(__doc__)
        return
    own = {"before": "", "number": "200"}
    own |= {key: value for key, _, value in (word.partition("=") for word in sys.argv[1:]) if key in own}
    config = plain_config(compose_config(Train, [word for word in sys.argv[1:] if word.partition("=")[0] not in own]))
    manifest: pd.DataFrame = instantiate(config["data"]["manifest"])()
    searches = {"now": duplicates} if not own["before"] else {"before": _module(own["before"]), "now": duplicates}
    number = min(int(own["number"]), len(manifest))
    order = np.random.default_rng(0).permutation(len(manifest))
    images = [Image.fromarray(read_image(Path(path).read_bytes(), path)) for path in manifest["path"]]
    originals, groups = {}, {}
    for name, search in searches.items():
        originals[name] = np.stack([_small(image, search) for image in images])
        found = pairs_in(search, originals[name])
        groups[name] = components(len(images), found[:, 0], found[:, 1])
    print(f"{len(images)} images, copies of {number} for each kind\n")
    columns = [f"{metric} {name}" for name in searches for metric in ("recall", "precision")]
    _row("kind of copy", columns)
    _row("---", ["---"] * len(columns))
    together = max(1, min(_TOGETHER, len(images) // number))  # kinds, each of other images
    kinds = list(CHANGES)
    for start in range(0, len(kinds), together):
        part = kinds[start : start + together]
        of = order[: number * len(part)]
        versions = [changed(images[row], part[k // number], manifest["image_id"].iloc[row]) for k, row in enumerate(of)]
        pairs = {
            name: pairs_in(search, np.concatenate([originals[name], [_small(each, search) for each in versions]]))
            for name, search in searches.items()
        }
        for k, kind in enumerate(part):
            here = np.arange(len(of)) // number == k
            values = [value for name in searches for value in score(pairs[name], groups[name], of, here)]
            _row(kind, [f"{value:.3f}" for value in values])


def _row(first: str, cells: Sequence[str]) -> None:
    print(f"| {' | '.join([first, *cells])} |", flush=True)


def _small(image: Image.Image, search: ModuleType) -> UInt8Array:
    """Resize an image to the size at which a search compares images."""
    return resize(np.asarray(image), search.SEARCH_SIZE, "stretch")


def _module(file: str) -> ModuleType:
    """Read a module from a file."""
    spec = importlib.util.spec_from_file_location("before", file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise CxrnetError(f"before: '{file}' is no Python file; see --help for how to get one")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
