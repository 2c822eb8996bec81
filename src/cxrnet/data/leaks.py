"""Leaks: how much of what a model is tested on stands in its training data too."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrnet.data.splits import known_cells


@dataclass(frozen=True)
class Leak:
    """How much of one split stands in train too, in images.

    Attributes:
        images: images in the split.
        patients_known: images of the split whose patient is known.
        patient_in_train: of those, images whose patient has images in train.
        files_known: images of the split whose ``sha256`` is known.
        file_in_train: of those, images of which train holds a byte-for-byte copy.
        group_in_train: images whose ``group_id`` (copies) has images in train.
        any_in_train: images to which at least one of the three applies.
    """

    images: int
    patients_known: int
    patient_in_train: int
    files_known: int
    file_in_train: int
    group_in_train: int
    any_in_train: int


def leaks(manifest: pd.DataFrame) -> dict[str, Leak]:
    """Count what of ``val`` and ``test`` stands in train too: patients, files, groups of copies.

    Returns:
        One entry for each of the two splits that has images.
    """
    train = manifest[manifest["split"] == "train"]
    found = {}
    for name in ("val", "test"):
        part = manifest[manifest["split"] == name]
        if len(part) == 0:
            continue
        known = {column: known_cells(part[column]) for column in ("patient_id", "sha256", "group_id")}
        shared = {column: known[column] & part[column].isin(train[column]).to_numpy(bool) for column in known}
        found[name] = Leak(
            images=len(part),
            patients_known=int(known["patient_id"].sum()),
            patient_in_train=int(shared["patient_id"].sum()),
            files_known=int(known["sha256"].sum()),
            file_in_train=int(shared["sha256"].sum()),
            group_in_train=int(shared["group_id"].sum()),
            any_in_train=int(np.any(list(shared.values()), axis=0).sum()),
        )
    return found
