"""Leaks: how much of what a model is tested on was seen while it was made."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.linking import known_cells

# What each split must share nothing with. Val chooses the weights that are tested, so test must share nothing with it.
SEEN_BEFORE = {"val": ("train",), "test": ("train", "val")}


@dataclass(frozen=True)
class Leak:
    """How much of a split was seen before: in train, or, for test, in train or val. In images.

    Attributes:
        images: images in the split.
        patients_known: images of the split whose patient is known.
        same_patient: images whose patient was seen.
        copies: images of which a copy was seen (the same ``sha256``, or the same ``group_id``).
        any: images to which either applies.
    """

    images: int
    patients_known: int
    same_patient: int
    copies: int
    any: int


def leaks(manifest: pd.DataFrame) -> dict[str, Leak]:
    """Count what of ``val`` and ``test`` was seen before; one entry for each of the two that has images."""
    found = {}
    for name, before in SEEN_BEFORE.items():
        part = manifest[manifest["split"] == name]
        if len(part) == 0:
            continue
        seen = manifest[manifest["split"].isin(before)]
        patient = _shared(part, seen, "patient_id")
        copy = _shared(part, seen, "sha256") | _shared(part, seen, "group_id")
        found[name] = Leak(
            images=len(part),
            patients_known=int(known_cells(part["patient_id"]).sum()),
            same_patient=int(patient.sum()),
            copies=int(copy.sum()),
            any=int(np.sum(patient | copy)),
        )
    return found


def seen_before(manifest: pd.DataFrame, split: str) -> list[str]:
    """``image_id`` of the images of ``val`` or ``test`` whose patient, or a copy of which, was seen before."""
    part = manifest[manifest["split"] == split]
    seen = manifest[manifest["split"].isin(SEEN_BEFORE[split])]
    shared = [_shared(part, seen, column) for column in ("patient_id", "sha256", "group_id")]
    return [str(name) for name in part["image_id"][np.any(shared, axis=0)]]


def _shared(part: pd.DataFrame, seen: pd.DataFrame, column: str) -> npt.NDArray[np.bool_]:
    known: npt.NDArray[np.bool_] = known_cells(part[column]) & part[column].isin(seen[column]).to_numpy(bool)
    return known
