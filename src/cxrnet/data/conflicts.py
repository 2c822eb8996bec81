"""Duplicates that carry different labels: the same file, or the same picture, in two classes."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrnet.core.atomic import write_table
from cxrnet.core.grouping import components

CONFLICTS = "label_conflicts.csv"
NAMED = 3  # groups of duplicates that a sentence names


def label_conflicts(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Find the images of which a duplicate carries another label.

    Args:
        pairs: ``image_id_a``, ``image_id_b`` as :func:`cxrnet.data.duplicates.search.find_copies` gives them; a pair
            of which the manifest lacks an image is left out.
        manifest: of the images.

    Returns:
        ``group, image_id, label, split, path``, one row an image, group by group: all duplicates of one another among
        which two labels differ. ``group`` is the first ``image_id``.
    """
    place = pd.Series(np.arange(len(manifest)), index=manifest["image_id"])
    pairs = pairs[pairs["image_id_a"].isin(place.index) & pairs["image_id_b"].isin(place.index)]
    a, b = (place[pairs[f"image_id_{side}"]].to_numpy() for side in "ab")
    groups = components(len(manifest), a, b)
    labels = pd.factorize(manifest["label"])[0]
    rows = manifest[np.isin(groups, groups[a[labels[a] != labels[b]]])]
    group = rows["image_id"].groupby(groups[place[rows["image_id"]]]).transform("min")
    table = rows.assign(group=group)[["group", "image_id", "label", "split", "path"]]
    return table.sort_values(["group", "image_id"], ignore_index=True)


def conflict_statement(pairs: pd.DataFrame, manifest: pd.DataFrame) -> list[str]:
    """Say that duplicates carry different labels and name a few of them; nothing where none do."""
    conflicts = label_conflicts(pairs, manifest)
    if conflicts.empty:
        return []
    groups = [rows for _, rows in conflicts.drop_duplicates(["group", "label"]).groupby("group", sort=False)]
    named = [
        " = ".join(f"{image} ({label})" for image, label in zip(rows["image_id"], rows["label"], strict=True))
        for rows in groups[:NAMED]
    ]
    more = f"; and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return [
        f"{len(conflicts)} images are duplicates that carry different labels "
        f"({'; '.join(named)}{more}); all are listed in {CONFLICTS}"
    ]


def write_conflicts(pairs: pd.DataFrame, manifest: pd.DataFrame, folder: Path) -> None:
    """List them in ``label_conflicts.csv`` of a folder, if there are any."""
    if len(conflicts := label_conflicts(pairs, manifest)):
        write_table(conflicts, folder / CONFLICTS)
