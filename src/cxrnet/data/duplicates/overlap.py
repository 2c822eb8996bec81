"""Search for duplicates across data sets.

Public collections took images from each other, so "external" data hold images that a model was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.data.duplicates.search import SEARCH_SIZE, find_duplicates
from cxrnet.data.images.decode import UInt8Array
from cxrnet.data.images.resize import Images
from cxrnet.data.images.store import load_images


@dataclass(frozen=True)
class KnownImages:
    """Images whose duplicates are to be found in other data sets.

    Attributes:
        manifest: all of them.
        readable: its rows whose file is there.
        images: those of ``readable``, at ``SEARCH_SIZE``; of the other rows only exact duplicates are found.
    """

    manifest: pd.DataFrame
    readable: pd.DataFrame
    images: Images

    @property
    def lost(self) -> int:
        """Number of images whose file isn't there any more."""
        return len(self.manifest) - len(self.readable)


def load_known(manifest: pd.DataFrame) -> KnownImages:
    """Read the images of a manifest as far as their files are there.

    Raises:
        CxrnetError: files are there, and none of them is an image.
    """
    there = manifest["path"].map(lambda path: Path(path).is_file()).to_numpy(bool)
    readable = manifest[there].reset_index(drop=True)
    if readable.empty:
        return KnownImages(manifest, readable, Images.all_of(np.empty((0, *SEARCH_SIZE), np.uint8)))
    return KnownImages(manifest, *load_images(readable, SEARCH_SIZE, "stretch", "skip"))


def find_overlap(known: KnownImages, sets: Sequence[tuple[pd.DataFrame, Images]]) -> pd.DataFrame:
    """Find the duplicates that data sets share with known images, with each other, and within themselves.

    Args:
        known: set 0.
        sets: manifest and images at ``SEARCH_SIZE`` of each further one, set 1, 2, ...

    Returns:
        One row a pair: ``set_a, image_id_a, set_b, image_id_b, kind`` (``exact`` or ``near``), ``set_a <= set_b``.
        Pairs within the known images are left out.
    """
    parts = [(known.readable, known.images), *sets]
    rows = pd.concat([manifest for manifest, _ in parts], ignore_index=True)
    place = np.repeat(np.arange(len(parts)), [len(manifest) for manifest, _ in parts])
    # Ids are unique in a set only; numbers are in all of them, and as text of one length they keep their order.
    numbered = rows.assign(image_id=[f"{row:09}" for row in range(len(rows))])
    pairs = find_duplicates(_Chain([images for _, images in parts]), numbered)
    a, b = (pairs[f"image_id_{side}"].astype(int).to_numpy() for side in "ab")
    found = _pairs(place[a], rows["image_id"].to_numpy(object)[a], place[b], rows["image_id"].to_numpy(object)[b])
    found["kind"] = pairs["kind"].to_numpy(object)
    gone = [_same_files(known, manifest, number) for number, (manifest, _) in enumerate(sets, start=1)]
    return pd.concat([found[found["set_b"] > 0], *gone], ignore_index=True)


@dataclass(frozen=True)
class _Chain:
    """Images of several sets, one set after the other; they stay where they are."""

    parts: Sequence[Images]

    def __len__(self) -> int:
        return sum(len(images) for images in self.parts)

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> UInt8Array:
        chosen, start = np.empty((len(rows), *SEARCH_SIZE), np.uint8), 0
        for images in self.parts:
            here = (rows >= start) & (rows < start + len(images))
            chosen[here] = images[rows[here] - start]
            start += len(images)
        return chosen


def _same_files(known: KnownImages, manifest: pd.DataFrame, number: int) -> pd.DataFrame:
    """Pair known images whose file isn't there any more with the images of a set that have the same bytes."""
    gone = known.manifest[~known.manifest["image_id"].isin(known.readable["image_id"])].dropna(subset="sha256")
    pairs = gone.merge(manifest, on="sha256", suffixes=("_a", "_b"))
    return _pairs(0, pairs["image_id_a"], number, pairs["image_id_b"]).assign(kind="exact")


def _pairs(set_a: object, image_id_a: object, set_b: object, image_id_b: object) -> pd.DataFrame:
    return pd.DataFrame({"set_a": set_a, "image_id_a": image_id_a, "set_b": set_b, "image_id_b": image_id_b})
