"""The pictures of a data set: sheets of each class, pairs of duplicates, images whose label is doubted."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from cxrnet.data.datamodule import XrayDataModule
from cxrnet.data.images.decode import ImageError, UInt8Array
from cxrnet.data.images.reader import Images
from cxrnet.data.shards.reading import root_of
from cxrnet.reporting.pictures import SIDE, Figure, PictureGroup, picture
from cxrnet.reporting.plots.dataset import spread, thumbnail

PAIRS = 10
"""Pairs of duplicates on a page for each image of a group."""
_NOT_EVIDENCE = ("kind", *(f"{name}_{side}" for name in ("image_id", "split", "label", "patient_id") for side in "ab"))


class Looks:
    """Images of data as a person looks at them: in the shape of their files, where there are files.

    Args:
        manifest: rows of the images.
        images: the same images, at the size and in the shape in which the network sees them.
        as_trained: shows them so too.
    """

    def __init__(self, manifest: pd.DataFrame, images: Images, as_trained: bool = False) -> None:
        self._place = pd.Series(np.arange(len(manifest)), index=manifest["image_id"])
        self._paths = manifest["path"].to_numpy(object)
        self._images = images
        self._files = not as_trained and root_of(manifest["path"]) is None

    def __call__(self, image_id: str, side: int = SIDE) -> UInt8Array:
        """Read an image ``(H, W) uint8``; as the network sees it where its file can't be read any more."""
        place = int(self._place[image_id])
        if self._files:
            with suppress(OSError, ImageError):  # moved or replaced since it was read
                return thumbnail(self._paths[place], side)
        image: UInt8Array = self._images[[place]][0]
        return image


def sheets(data: XrayDataModule, looks: Looks, number: int) -> list[PictureGroup]:
    """Show images of each class, taken at even distances from it."""
    groups = []
    for name in data.classes:
        rows = spread(data.manifest, name, number)
        figures = [
            Figure([picture(looks(image), f"{name}: {image}")], [image, *_known(split)])
            for image, split in zip(rows["image_id"], rows["split"], strict=True)
        ]
        of_class = int((data.manifest["label"] == name).sum())
        groups.append(PictureGroup(f"{name}: {len(figures)} of {of_class} images", figures))
    return groups


def pair_groups(pairs: pd.DataFrame, looks: Looks, most: int, rest: str) -> list[PictureGroup]:
    """Show pairs of duplicates side by side, conflicts first.

    Args:
        pairs: from :func:`cxrnet.data.leaks.marked_duplicates`.
        looks: shows an image.
        most: pairs that are shown.
        rest: where the others are, as in "12 more pairs are in duplicates.csv".
    """
    titles = {
        "label_differs": "Duplicates with different labels",
        "split_differs": "Duplicates on both sides of a split",
        "patient_id_differs": "Duplicates under two patients",
        "": "Other duplicates",
    }
    left, groups = pairs, []
    for column, title in titles.items():
        chosen = left[left[column]] if column else left
        left = left.drop(chosen.index)
        if chosen.empty:
            continue
        shown = chosen.head(most)
        most -= len(shown)
        figures = [_pair(row, looks) for row in shown.to_dict("records")]
        left_over, more = len(chosen) - len(shown), "more " * bool(figures)
        note = f"{left_over} {more}{'pair is' if left_over == 1 else 'pairs are'} in {rest}." if left_over else ""
        groups.append(PictureGroup(f"{title}: {len(chosen)} pair{'s' * (len(chosen) != 1)}", figures, note, "pair"))
    return groups


def _pair(row: Mapping[Any, Any], looks: Looks) -> Figure:
    pictures = []
    for side in "ab":
        image = str(row[f"image_id_{side}"])
        patient = [f"patient {name}" for name in _known(row[f"patient_id_{side}"])]
        words = " · ".join([str(row[f"label_{side}"]), *_known(row[f"split_{side}"]), *patient])
        pictures.append(picture(looks(image), f"{image}: {words}", f"{image} · {words}"))
    return Figure(pictures, [str(row["kind"]), *_evidence(row)])


def _evidence(row: Mapping[Any, Any]) -> list[str]:
    """Write whatever else stands in the row of a pair, but for what is not known."""
    texts = []
    for name, value in row.items():
        if name in _NOT_EVIDENCE or str(name).endswith("_differs") or not np.isscalar(value) or pd.isna(value):
            continue
        words = str(name).replace("_", " ")
        if isinstance(value, bool | np.bool_):
            texts += [words] if value else []
        else:
            texts.append(f"{words} {value:.3g}" if isinstance(value, float | np.floating) else f"{words} {value!s}")
    return texts


def doubted_group(found: pd.DataFrame, looks: Looks, number: int, rest: str) -> PictureGroup:
    """Show images whose label is doubted, the surest first.

    Args:
        found: from :func:`cxrnet.evaluation.label_errors.suspected_errors`.
        looks: shows an image.
        number: images that are shown.
        rest: where the others are.
    """
    figures = []
    for row in found.head(number).to_dict("records"):
        lines = [
            f"{row['label']}, or {row['suggested']}?",
            str(row["image_id"]),
            f"{row['suggested']} {row['probability']:.2f}, {row['label']} {row['own']:.2f}",
        ]
        image = str(row["image_id"])
        figures.append(Figure([picture(looks(image), f"{image}: labelled {row['label']}")], lines))
    more = len(found) - len(figures)
    note = f"{more} more {'is' if more == 1 else 'are'} in {rest}." if more else ""
    return PictureGroup(f"Doubted labels: {len(found)} images", figures, note)


def _known(value: object) -> Sequence[str]:
    return [] if pd.isna(value) else [str(value)]
