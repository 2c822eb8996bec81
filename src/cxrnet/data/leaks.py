"""Leaks: how much of what a model is tested on was seen while it was made."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.grouping import known_cells

# What each split must share nothing with. Val chooses the weights that are tested, so test must share nothing with it.
SEEN_BEFORE = {"val": ("train",), "test": ("train", "val")}

_IntArray = npt.NDArray[np.int64]
_BoolArray = npt.NDArray[np.bool_]


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
    patient, file, group = (_codes(manifest[column]) for column in ("patient_id", "sha256", "group_id"))
    found = {}
    for name in SEEN_BEFORE:
        part, before = _part_and_before(manifest, name)
        if not part.any():
            continue
        same_patient = _shared(patient, part, before)
        copies = _shared(file, part, before) | _shared(group, part, before)
        found[name] = Leak(
            images=int(part.sum()),
            patients_known=int((patient[part] >= 0).sum()),
            same_patient=int(same_patient.sum()),
            copies=int(copies.sum()),
            any=int((same_patient | copies).sum()),
        )
    return found


def seen_before(manifest: pd.DataFrame, split: str) -> list[str]:
    """``image_id`` of the images of ``val`` or ``test`` whose patient, or a copy of which, was seen before."""
    part, before = _part_and_before(manifest, split)
    columns = ("patient_id", "sha256", "group_id")
    shared = [_shared(_codes(manifest[column]), part, before) for column in columns]
    return [str(name) for name in manifest["image_id"][part][np.any(shared, axis=0)]]


def _part_and_before(manifest: pd.DataFrame, split: str) -> tuple[_BoolArray, _BoolArray]:
    """Which rows (N,) are in a split, and which in those that it must share nothing with."""
    part, before = (manifest["split"].isin(names).to_numpy(bool) for names in ([split], SEEN_BEFORE[split]))
    return part, before


def _codes(column: pd.Series) -> _IntArray:
    """Equal numbers for equal cells, (N,); -1 where a cell holds nothing."""
    return np.where(known_cells(column), pd.factorize(column)[0], -1)


def _shared(codes: _IntArray, part: _BoolArray, before: _BoolArray) -> _BoolArray:
    """Which rows of ``part`` hold what a row of ``before`` holds too."""
    seen = np.zeros(codes.max(initial=-1) + 2, bool)  # the last place is that of -1
    seen[codes[before]] = True
    seen[-1] = False
    return seen[codes[part]]


SUSPICIOUS = 10  # images of the only patient of a source
NAMED = 5  # sources that a sentence names


def leak_statement(manifest: pd.DataFrame) -> list[str]:
    """How much of test and val was seen before, and what isn't known about it, in sentences.

    Args:
        manifest: split, with ``group_id`` filled from :func:`cxrnet.data.duplicates.search.copy_groups`.

    Returns:
        Nothing where all patients are known, nothing leaks, and the images are real.
    """
    found = leaks(manifest)
    sentences = []
    for split, leak in reversed(found.items()):
        seen, result = ("train or val", "its result") if split == "test" else ("train", "the choice of weights")
        if leak.copies:
            sentences.append(
                f"{leak.copies} of {leak.images} {split} images have a copy in {seen}; {result} is flattered"
            )
        if leak.same_patient:
            sentences.append(f"{leak.same_patient} of {leak.images} {split} images are of patients who are in {seen}")
    sentences += patient_statement(manifest)
    if (manifest["source"] == "phantom").any():
        sentences.append("the images are synthetic; the result says nothing about patients")
    return sentences


def patient_statement(manifest: pd.DataFrame) -> list[str]:
    """Of how many images the patient isn't known, by source, and which sources have one patient only."""
    known, source = known_cells(manifest["patient_id"]), manifest["source"]
    sentences = []
    if not known.all():
        of = "" if not known.any() else f" for {(~known).sum()} of {len(known)} images{_by_source(source, ~known)}"
        sentences.append(f"patients are not known{of}; images of one patient may stand on both sides of the split")
    patients = manifest[known].groupby("source")["patient_id"].agg(["nunique", "count", "first"])
    for name, row in patients[(patients["nunique"] == 1) & (patients["count"] >= SUSPICIOUS)].iterrows():
        sentences.append(
            f"all {row['count']} images of {name} with a patient have the same one, '{row['first']}'; if that stands "
            "for not known, leave these cells empty"
        )
    return sentences


def patients_text(manifest: pd.DataFrame) -> str:
    """How many patients there are, and of how many images they are known where that isn't all."""
    known = known_cells(manifest["patient_id"])
    if not known.any():
        return "not known"
    of = "" if known.all() else f", known of {known.sum()} of {len(known)} images"
    return f"{manifest['patient_id'][known].nunique()}{of}"


def _by_source(source: pd.Series, rows: npt.NDArray[np.bool_]) -> str:
    """How many of the rows are of each source, the most first; nothing where there is one source."""
    counts = source[rows].value_counts()
    if source.nunique() == 1:
        return ""
    more = f", and {counts.iloc[NAMED:].sum()} of {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    return f" ({', '.join(f'{name} {count}' for name, count in counts.head(NAMED).items())}{more})"
