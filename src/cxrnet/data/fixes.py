"""Fixes of a manifest: which images are left out or come to another split, and why; no file is touched.

What is asked for is done in this order, each step on what the one before it left:

================  ======================================================================================
fix               what it does
================  ======================================================================================
drop_decoys       leaves out what is no radiograph: pictures of two grey levels or one, as masks and blank pages
drop_conflicts    leaves out all duplicates of one another among which two labels differ
drop_leaked_test  leaves out test images whose patient, or a duplicate, is in train or val
regroup           brings all images of a patient, and all duplicates of one another, to train where they lie in
                  several splits
================  ======================================================================================
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.grouping import known_cells, link
from cxrnet.data.leaks import LEAKS_FROM, label_conflicts, leaked_images
from cxrnet.data.settings import Fix
from cxrnet.errors import CxrnetError

REASON = "fix_reason"
"""Column of a fixed manifest that says why a row is as it is."""
KEPT = "kept: none of the fixes applies to it"

_DECOY = "dropped as a decoy: two grey levels or one, as masks and blank pictures have"
_TIES = {"sha256": "the same file", "group_id": "a duplicate", "patient_id": "its patient"}


def fix_manifest(manifest: pd.DataFrame, pairs: pd.DataFrame, decoys: Collection[str], fix: Fix) -> pd.DataFrame:
    """Fix a manifest.

    Args:
        manifest: split, with ``group_id`` of its duplicates.
        pairs: from :func:`cxrnet.data.duplicates.find_duplicates`.
        decoys: ``image_id`` of pictures that are no radiographs.
        fix: fixes that are asked for.

    Returns:
        One row an image, in the order of the manifest: ``image_id``, ``label``, ``split`` (as it was), ``action``
        (``kept``, ``regrouped`` or ``dropped``), ``split_fixed`` (missing where dropped), ``reason``.
    """
    ids, fixed = manifest["image_id"], manifest.copy()
    reason = pd.Series(KEPT, index=manifest.index, dtype="string")

    def drop(reasons: dict[str, str]) -> None:
        nonlocal fixed
        gone = fixed["image_id"].isin(list(reasons))
        reason[fixed.index[gone]] = fixed["image_id"][gone].map(reasons).astype("string")
        fixed = fixed[~gone]

    if fix.drop_decoys:
        drop(dict.fromkeys(decoys, _DECOY))
    if fix.drop_conflicts:
        drop(_conflicting(pairs, fixed))
    if fix.drop_leaked_test:
        drop(_leaked(fixed))
    split = fixed["split"].copy()
    if fix.regroup:
        moved = _scattered(fixed)
        reason[fixed.index[moved]] = _regrouped(fixed, moved)
        split[fixed.index[moved]] = "train"
    return pd.DataFrame(
        {
            "image_id": ids,
            "label": manifest["label"],
            "split": manifest["split"],
            "action": reason.str.extract(r"^(\w+)")[0],
            "split_fixed": split.reindex(manifest.index),
            "reason": reason,
        }
    )


def fixed_manifest(manifest: pd.DataFrame, fixes: pd.DataFrame) -> pd.DataFrame:
    """Make the manifest that :func:`fix_manifest` has come to: the rows that are left, with their reason.

    Raises:
        CxrnetError: a class has no training image left, or a split that had images has none.
    """
    left = fixes["split_fixed"].notna()
    fixed = manifest[left].assign(split=fixes["split_fixed"][left], **{REASON: fixes["reason"][left]})
    for split in ("train", "val", "test"):
        if (manifest["split"] == split).any() and not (fixed["split"] == split).any():
            raise CxrnetError(
                f"fix: no {split} image is left ({_actions(fixes[fixes['split'] == split])}); leave a fix out, or "
                "split the data anew with data.split"
            )
    lost = sorted(set(manifest["label"]) - set(fixed["label"][fixed["split"] == "train"]))
    if lost:
        of_lost = _actions(fixes[fixes["label"] == lost[0]])
        raise CxrnetError(f"fix: class '{lost[0]}' has no training image left ({of_lost}); leave a fix out")
    return fixed.reset_index(drop=True)


def _actions(fixes: pd.DataFrame) -> str:
    return ", ".join(f"{n} {action}" for action, n in fixes["action"].value_counts().items())


def _conflicting(pairs: pd.DataFrame, manifest: pd.DataFrame) -> dict[str, str]:
    """Say of each image of which a duplicate has another label, by ``image_id``, which that is."""
    found = {}
    for _, rows in label_conflicts(pairs, manifest).groupby("group", sort=False):
        for image, label in zip(rows["image_id"], rows["label"], strict=True):
            other = rows[rows["label"] != label].iloc[0]
            found[image] = (
                f"dropped for a conflict: its label is {label}, that of its duplicate {other['image_id']} is "
                f"{other['label']}"
            )
    return found


def _leaked(manifest: pd.DataFrame) -> dict[str, str]:
    """Say of each leaked test image, by ``image_id``, what of it is in train or val."""
    leaked = manifest["image_id"].isin(leaked_images(manifest, "test")).to_numpy(bool)
    before = manifest["split"].isin(LEAKS_FROM["test"]).to_numpy(bool)
    texts = _ties(manifest, leaked, before)
    return {
        image: f"dropped as a leak: {text}"
        for image, text in zip(manifest["image_id"][leaked], texts[leaked], strict=True)
    }


def _scattered(manifest: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Mark the images that are not in train, of clusters that lie in several splits, ``(N,)``."""
    clusters = link(manifest, tuple(_TIES))
    splits = manifest["split"].groupby(clusters).transform("nunique")
    scattered: npt.NDArray[np.bool_] = ((splits > 1) & (manifest["split"] != "train")).to_numpy(bool)
    return scattered


def _regrouped(manifest: pd.DataFrame, moved: npt.NDArray[np.bool_]) -> list[str]:
    """Say of each image that comes to train why."""
    split = manifest["split"].to_numpy(object)
    texts = np.full(len(manifest), "", object)
    for name in ("val", "test"):
        here, others = moved & (split == name), split != name
        texts[here] = _ties(manifest, here, others)[here]
    return [f"regrouped from {old} to train: {text}" for old, text in zip(split[moved], texts[moved], strict=True)]


def _ties(
    manifest: pd.DataFrame, rows: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_]
) -> npt.NDArray[np.object_]:
    """Say for each of some rows which of the others has the same file, duplicate group or patient, ``(N,)``."""
    texts = np.full(len(manifest), "what it is tied to is tied to another split", object)
    for column, words in reversed(_TIES.items()):  # the strongest last, so that it stays
        known = known_cells(manifest[column])
        there = manifest[others & known].drop_duplicates(column).set_index(column)
        found = manifest[column].where(known).map(there["image_id"])
        split = manifest[column].where(known).map(there["split"])
        hit = rows & found.notna().to_numpy(bool)
        texts[hit] = [f"{words} ({image}) is in {name}" for image, name in zip(found[hit], split[hit], strict=True)]
    return texts
