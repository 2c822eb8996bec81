"""Runs that can be compared: the same images with the same labels, and the same classes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.predictions import classes_of


def align(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Put the images and the classes of every run into the order of the first one.

    Args:
        tables: predictions by name of the run.

    Raises:
        CxrnetError: there are fewer than two runs, or one differs from the first in its classes, images or labels.
    """
    if len(tables) < 2:
        raise CxrnetError(f"runs: {len(tables)} given; a comparison needs at least two, tested on the same images")
    (first, reference), *others = tables.items()
    aligned = {first: reference.reset_index(drop=True)}
    for name, table in others:
        _check_classes(first, reference, name, table)
        _check_images(first, reference, name, table)
        rows = table.set_index("image_id").loc[reference["image_id"]].reset_index()
        _check_labels(first, reference, name, rows)
        aligned[name] = _in_order(rows, classes_of(reference))
    return aligned


def _check_classes(first: str, reference: pd.DataFrame, name: str, table: pd.DataFrame) -> None:
    ours, theirs = classes_of(table), classes_of(reference)
    if set(ours) != set(theirs):
        raise CxrnetError(
            f"runs: '{name}' has the classes {', '.join(ours)}, '{first}' has {', '.join(theirs)}; "
            "compare runs of the same classes"
        )


def _check_images(first: str, reference: pd.DataFrame, name: str, table: pd.DataFrame) -> None:
    ours, theirs = set(table["image_id"]), set(reference["image_id"])
    found = [
        f"{len(ids)} of the {len(whole)} images of '{run}' are not in '{other}' (as '{min(ids)}')"
        for run, other, whole, ids in ((first, name, theirs, theirs - ours), (name, first, ours, ours - theirs))
        if ids
    ]
    if found:
        raise CxrnetError(
            f"runs: '{name}' and '{first}' are tested on different images: {', '.join(found)}; "
            "compare runs with the same data and the same split"
        )


def _check_labels(first: str, reference: pd.DataFrame, name: str, rows: pd.DataFrame) -> None:
    """Compare the labels of the same images; missing ones are refused later, by the figures."""
    ours, theirs = rows["label"].fillna(""), reference["label"].reset_index(drop=True).fillna("")
    different = np.flatnonzero((ours != theirs).to_numpy(bool))
    if len(different):
        row = different[0]
        raise CxrnetError(
            f"runs: '{name}' and '{first}' give {len(different)} of {len(rows)} images different labels "
            f"('{rows['image_id'][row]}': {ours[row] or 'none'}, {theirs[row] or 'none'}); "
            "compare runs with the same labels"
        )


def _in_order(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Put the columns of the classes into order, behind all others."""
    columns = [f"{kind}_{name}" for kind in ("logit", "prob") for name in classes]
    return rows[[name for name in rows.columns if name not in columns] + columns]
