"""The images that the contenders work on: phantoms, or the user's own, in the layout that every program reads.

<folder>/train/<class>/*    <folder>/val/<class>/*
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrnet.core.atomic import whole_file
from cxrnet.core.cache import kept
from cxrnet.data.sources.folder import folder as class_folders
from cxrnet.data.sources.phantom import phantom
from cxrnet.data.splits import complete_split
from cxrnet.errors import CxrnetError

PHANTOMS = 400  # at most; more images are made of them
_VALIDATION = 0.2


def labelled_images(drawn: Path, root: str | None, images: int, side: int, seed: int) -> Path:
    """A folder with training and validation images.

    Args:
        drawn: where sets are kept.
        root: the user's own class folders; their published test images serve as validation images where no others are
            published. ``None`` draws phantoms.
        images: of the drawn set, for training; a quarter as many are for validation.
        side: of the drawn images, in pixels.
        seed: of what is drawn.

    Raises:
        CxrnetError: the user's own folder holds fewer than two classes.
    """
    if root is None:
        total = max(8, round(images / (1 - _VALIDATION)))  # the least that phantoms are drawn of
        return kept(
            drawn / f"phantoms-{total}x{side}-seed{seed}",
            lambda to: _lay(_phantoms(drawn, total, side, seed), to, seed),
        )
    manifest = class_folders(root)
    if manifest["label"].nunique() < 2:
        raise CxrnetError(
            f"data.root: '{root}' holds one class ('{manifest['label'][0]}'); give a folder of class folders"
        )
    if not manifest["split"].eq("val").any():
        manifest["split"] = manifest["split"].replace({"test": "val"})
    # Laid anew every time: the folder may hold other images than it did.
    to = drawn / "own images"
    shutil.rmtree(to, ignore_errors=True)
    _lay(manifest, to, seed)
    return to


def many_images(drawn: Path, images: int, side: int, seed: int) -> Path:
    """A folder with so many different training images, and a quarter as many for validation, in the same layout.

    Copies of files would be told as copies, and a store would keep one of them. So each image is a mixture of two
    phantoms, each of them cut, at random; JPEG files.
    """
    return kept(drawn / f"mixtures-{images}x{side}-seed{seed}", lambda to: _mix_all(drawn, to, images, side, seed))


def _phantoms(drawn: Path, images: int, side: int, seed: int) -> pd.DataFrame:
    return phantom(drawn, images, max(64, side), seed)


def _lay(manifest: pd.DataFrame, to: Path, seed: int) -> None:
    """Link a manifest's training and validation images into folders; copy where links can't be."""
    manifest = complete_split(manifest, {"train": 1 - _VALIDATION, "val": _VALIDATION}, seed)
    for place, (path, label, split) in enumerate(manifest[["path", "label", "split"]].itertuples(index=False)):
        if split == "test":
            continue
        target = to / split / label / f"{place:06d}{Path(path).suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # of a process that died; it is whole
            continue
        try:
            target.symlink_to(Path(path).resolve())  # a hard link would change the user's file for who keeps its images
        except OSError:
            with whole_file(target) as partial:
                shutil.copyfile(path, partial)


def _mix_all(drawn: Path, to: Path, images: int, side: int, seed: int) -> None:
    manifest = _phantoms(drawn, min(PHANTOMS, max(8, images)), side, seed)
    sources = [np.asarray(Image.open(path).convert("L")) for path in manifest["path"]]
    labels = manifest["label"].to_numpy(object)
    classes = sorted(set(labels))
    splits = {"train": images, "val": max(8, images // 4)}
    for split in splits:
        for label in classes:
            (to / split / label).mkdir(parents=True, exist_ok=True)

    def write(split: str, number: int) -> None:
        rng = np.random.default_rng((seed, split == "val", number))
        label = classes[number % len(classes)]
        first, second = rng.choice(np.flatnonzero(labels == label)), rng.integers(len(sources))
        mixture = Image.blend(_cut(sources[first], side, rng), _cut(sources[second], side, rng), rng.uniform(0.2, 0.5))
        mixture.save(to / split / label / f"{number:06d}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        for split, count in splits.items():
            list(pool.map(lambda number, split=split: write(split, number), range(count)))


def _cut(image: np.ndarray, side: int, rng: np.random.Generator) -> Image.Image:
    """A random part of an image, perhaps mirrored, at a size."""
    height, width = image.shape
    share = rng.uniform(0.6, 1.0)
    top, left = rng.uniform(0, 1 - share, 2) * (height, width)
    box = (left, top, left + share * width, top + share * height)
    picture = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture
