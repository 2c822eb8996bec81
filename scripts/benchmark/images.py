"""Images that the contenders work on, as every program reads them: ``<folder>/<train or val>/<class>/*``."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cxrnet.core.cache import kept
from cxrnet.core.console import bar
from cxrnet.data.sources.folder import folder as class_folders
from cxrnet.data.sources.phantom import phantom
from cxrnet.data.splits import complete_split
from cxrnet.errors import CxrnetError

PHANTOMS = (80, 400)  # fewest and most that images are mixed of
FRACTIONS = {"train": 0.8, "val": 0.2}


def own_images(root: str, to: Path, seed: int) -> Path:
    """Link a user's class folders into ``to``; published test images serve as validation images where there are none.

    Raises:
        CxrnetError: the folder holds fewer than two classes.
    """
    manifest = class_folders(root)
    if manifest["label"].nunique() < 2:
        only = manifest["label"][0]
        raise CxrnetError(f"data.root: '{root}' holds one class ('{only}'); give a folder of class folders")
    if not manifest["split"].eq("val").any():
        manifest["split"] = manifest["split"].replace({"test": "val"})
    manifest = complete_split(manifest, FRACTIONS, seed)
    shutil.rmtree(to, ignore_errors=True)  # the user's folder may have changed
    for number, (path, label, split) in enumerate(manifest[["path", "label", "split"]].itertuples(index=False)):
        target = to / split / label / f"{number:06d}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(Path(path).resolve())
    return to


def drawn_images(drawn: Path, images: int, side: int, seed: int) -> Path:
    """Draw so many different training images, and a quarter as many for validation; they are kept in ``drawn``.

    A mere copy would be found as a duplicate. So each JPEG file is a mixture of two phantoms, each of them cropped at
    random; training and validation images are mixed of different phantoms.
    """
    return kept(drawn / f"mixed-{images}x{side}-seed{seed}", lambda to: _mix_all(drawn, to, images, side, seed))


def _mix_all(drawn: Path, to: Path, images: int, side: int, seed: int) -> None:
    fewest, most = PHANTOMS
    manifest = phantom(drawn, min(most, max(fewest, images)), max(64, side), seed)
    manifest = complete_split(manifest, FRACTIONS, seed)
    classes = sorted(set(manifest["label"]))
    counts = {"train": images, "val": max(8, images // 4)}
    with ThreadPoolExecutor() as pool, bar("drawing images", sum(counts.values())) as advance:
        for split, count in counts.items():
            rows = manifest[manifest["split"] == split]
            sources = [np.asarray(Image.open(path).convert("L")) for path in rows["path"]]
            for label in classes:
                (to / split / label).mkdir(parents=True, exist_ok=True)
            write = _writer(to / split, sources, rows["label"].to_numpy(object), classes, side, (seed, split == "val"))
            for _ in pool.map(write, range(count)):
                advance(1)


def _writer(
    to: Path, sources: list[np.ndarray], labels: np.ndarray, classes: list[str], side: int, seed: tuple[int, bool]
) -> Callable[[int], None]:
    def write(number: int) -> None:
        rng = np.random.default_rng((*seed, number))
        label = classes[number % len(classes)]
        first, second = rng.choice(np.flatnonzero(labels == label)), rng.integers(len(sources))
        mixture = Image.blend(
            _crop(sources[first], side, rng), _crop(sources[second], side, rng), rng.uniform(0.2, 0.5)
        )
        mixture.save(to / label / f"{number:06d}.jpg", quality=90)

    return write


def _crop(image: np.ndarray, side: int, rng: np.random.Generator) -> Image.Image:
    """Cut a random part of an image out, mirror it perhaps, and resize it."""
    height, width = image.shape
    share = rng.uniform(0.6, 1.0)
    top, left = rng.uniform(0, 1 - share, 2) * (height, width)
    box = (left, top, left + share * width, top + share * height)
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture
