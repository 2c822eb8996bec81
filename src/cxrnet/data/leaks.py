"""Leaks: test and validation images that a model knows from training, and duplicates that carry different labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.atomic import write_table
from cxrnet.core.grouping import components, known_cells

# What each split must share nothing with. Val chooses the weights that are tested, so test must share nothing with it.
LEAKS_FROM = {"val": ("train",), "test": ("train", "val")}
CONFLICTS = "label_conflicts.csv"

_SUSPICIOUS = 10  # images of the only patient of a source
_SOURCES = 5  # that a sentence names
_GROUPS = 3  # of duplicates that a sentence names

_IntArray = npt.NDArray[np.int64]
_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Leak:
    """Images of a split that leaked: from train, or, for test, from train or val.

    Attributes:
        images: images in the split.
        patients_known: images whose patient is known.
        same_patient: images whose patient is there too.
        duplicates: images of which a duplicate is there (the same ``sha256``, or the same ``group_id``).
        any: images to which either applies.
    """

    images: int
    patients_known: int
    same_patient: int
    duplicates: int
    any: int


def leaks(manifest: pd.DataFrame) -> dict[str, Leak]:
    """Count the leaked images of ``val`` and ``test``; one entry for each of the two that has images."""
    patient, file, group = (_codes(manifest[column]) for column in ("patient_id", "sha256", "group_id"))
    found = {}
    for name in LEAKS_FROM:
        part, before = _part_and_before(manifest, name)
        if not part.any():
            continue
        same_patient = _shared(patient, part, before)
        duplicates = _shared(file, part, before) | _shared(group, part, before)
        found[name] = Leak(
            images=int(part.sum()),
            patients_known=int((patient[part] >= 0).sum()),
            same_patient=int(same_patient.sum()),
            duplicates=int(duplicates.sum()),
            any=int((same_patient | duplicates).sum()),
        )
    return found


def leaked_images(manifest: pd.DataFrame, split: str) -> list[str]:
    """List the ``image_id`` of the leaked images of ``val`` or ``test``: those whose patient or duplicate leaked."""
    part, before = _part_and_before(manifest, split)
    shared = [_shared(_codes(manifest[name]), part, before) for name in ("patient_id", "sha256", "group_id")]
    return [str(name) for name in manifest["image_id"][part][np.any(shared, axis=0)]]


def _part_and_before(manifest: pd.DataFrame, split: str) -> tuple[_BoolArray, _BoolArray]:
    """Mark the rows (N,) of a split, and those of the splits that it must share nothing with."""
    part, before = (manifest["split"].isin(names).to_numpy(bool) for names in ([split], LEAKS_FROM[split]))
    return part, before


def _codes(column: pd.Series) -> _IntArray:
    """Number equal cells alike, (N,); -1 where a cell is empty."""
    return np.where(known_cells(column), pd.factorize(column)[0], -1)


def _shared(codes: _IntArray, part: _BoolArray, before: _BoolArray) -> _BoolArray:
    """Mark the rows of ``part`` whose code a row of ``before`` has too."""
    return np.isin(codes[part], codes[before & (codes >= 0)])


def leak_statement(manifest: pd.DataFrame) -> list[str]:
    """Say how many images of test and val leaked, and what isn't known about it.

    Args:
        manifest: split, with ``group_id`` filled by :func:`cxrnet.data.duplicates.search.group_duplicates`.

    Returns:
        Nothing where all patients are known, nothing leaks, and the images are real.
    """
    sentences = []
    for split, leak in reversed(leaks(manifest).items()):
        before = " or ".join(LEAKS_FROM[split])
        if leak.duplicates:
            sentences.append(
                f"{leak.duplicates} of {leak.images} {split} images have a duplicate in {before}; {split} results are "
                "too good"
            )
        if leak.same_patient:
            sentences.append(f"{leak.same_patient} of {leak.images} {split} images are of patients who are in {before}")
    sentences += patient_statement(manifest)
    if (manifest["source"] == "phantom").any():
        sentences.append("the images are synthetic; the result says nothing about patients")
    return sentences


def patient_statement(manifest: pd.DataFrame) -> list[str]:
    """Say for how many images of which sources the patient isn't known, and which sources have one patient only."""
    known, source = known_cells(manifest["patient_id"]), manifest["source"]
    sentences = []
    if not known.all():
        of = "" if not known.any() else f" for {(~known).sum()} of {len(known)} images{_by_source(source, ~known)}"
        sentences.append(f"patients are not known{of}; images of one patient may stand on both sides of the split")
    patients = manifest[known].groupby("source")["patient_id"].agg(["nunique", "count", "first"])
    for name, row in patients[(patients["nunique"] == 1) & (patients["count"] >= _SUSPICIOUS)].iterrows():
        sentences.append(
            f"all {row['count']} images of {name} with a patient have the same one, '{row['first']}'; if that means "
            "not known, leave these cells empty"
        )
    return sentences


def patients_text(manifest: pd.DataFrame) -> str:
    """Give the number of patients, and for how many images they are known where that isn't all."""
    known = known_cells(manifest["patient_id"])
    if not known.any():
        return "not known"
    of = "" if known.all() else f", known of {known.sum()} of {len(known)} images"
    return f"{manifest['patient_id'][known].nunique()}{of}"


def _by_source(source: pd.Series, rows: _BoolArray) -> str:
    counts = source[rows].value_counts()
    if source.nunique() == 1:
        return ""
    more = f", and {counts.iloc[_SOURCES:].sum()} of {len(counts) - _SOURCES} more" if len(counts) > _SOURCES else ""
    return f" ({', '.join(f'{name} {count}' for name, count in counts.head(_SOURCES).items())}{more})"


def label_conflicts(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Find the images of which a duplicate carries another label.

    Args:
        pairs: ``image_id_a``, ``image_id_b`` from :func:`cxrnet.data.duplicates.search.find_duplicates`; a pair of
            which the manifest lacks an image is left out.
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
        for rows in groups[:_GROUPS]
    ]
    more = f"; and {len(groups) - _GROUPS} more" if len(groups) > _GROUPS else ""
    return [
        f"{len(conflicts)} images are duplicates that carry different labels "
        f"({'; '.join(named)}{more}); all are listed in {CONFLICTS}"
    ]


def write_conflicts(pairs: pd.DataFrame, manifest: pd.DataFrame, folder: Path) -> None:
    """List them in ``label_conflicts.csv`` of a folder, if there are any."""
    if len(conflicts := label_conflicts(pairs, manifest)):
        write_table(conflicts, folder / CONFLICTS)
