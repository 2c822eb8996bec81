"""Leaks: test and validation images that a model knows from training, and duplicates with different labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.core.atomic import write_table
from cxrnet.core.grouping import components, known_cells

# What each split must share nothing with. Val chooses the weights that are tested, so test must share nothing with it.
LEAKS_FROM = {"val": ("train",), "test": ("train", "val")}
_CONFLICTS = "label_conflicts.csv"
_IDS = ("patient_id", "sha256", "group_id")

_SUSPICIOUS = 10  # images of the only patient of a source
_SOURCES = 5  # that a sentence names
_GROUPS = 3  # of duplicates that a sentence names

_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Leak:
    """Images of a split that leaked: from train, or, for test, from train or val."""

    images: int  # in the split
    patients_known: int
    same_patient: int  # whose patient is there too
    duplicates: int  # of which a duplicate is there (the same sha256, or the same group_id)
    any: int  # to which either applies


def leaks(manifest: pd.DataFrame) -> dict[str, Leak]:
    """Count the leaked images of ``val`` and ``test``; one entry for each of the two that has images."""
    found = {}
    for split in LEAKS_FROM:
        part, (patient, file, group) = _shared(manifest, split)
        if part.any():
            found[split] = Leak(
                images=int(part.sum()),
                patients_known=int(known_cells(manifest["patient_id"][part]).sum()),
                same_patient=int(patient.sum()),
                duplicates=int((file | group).sum()),
                any=int((patient | file | group).sum()),
            )
    return found


def leaked_images(manifest: pd.DataFrame, split: str) -> list[str]:
    """List the ``image_id`` of the leaked images of ``val`` or ``test``: those whose patient or duplicate leaked."""
    part, shared = _shared(manifest, split)
    return [str(name) for name in manifest["image_id"][part][np.any(shared, axis=0)]]


def _shared(manifest: pd.DataFrame, split: str) -> tuple[_BoolArray, list[_BoolArray]]:
    """Mark the n rows of a split ``(N,)``, and for each of ``_IDS`` those whose value leaked ``(n,)``."""
    part, before = (manifest["split"].isin(names).to_numpy(bool) for names in ([split], LEAKS_FROM[split]))
    shared = []
    for name in _IDS:
        codes = np.where(known_cells(manifest[name]), pd.factorize(manifest[name])[0], -1)
        shared.append(np.isin(codes[part], codes[before & (codes >= 0)]))
    return part, shared


def leak_statement(manifest: pd.DataFrame) -> list[str]:
    """Say how many images of test and val leaked, and what isn't known about it.

    Nothing where all patients are known, nothing leaks, and the images are real. The manifest is split, with
    ``group_id`` filled by :func:`cxrnet.data.duplicates.group_duplicates`.
    """
    return [*leak_findings(manifest), *leak_gaps(manifest)]


def leak_findings(manifest: pd.DataFrame) -> list[str]:
    """Say how many images of test and val leaked; nothing where none is known to have."""
    sentences = []
    for split, leak in reversed(leaks(manifest).items()):
        before = " or ".join(LEAKS_FROM[split])
        if leak.duplicates:
            sentences.append(
                f"{leak.duplicates} of {leak.images} {split} images have a duplicate in {before}; the {split} results "
                "are too optimistic"
            )
        if leak.same_patient:
            sentences.append(
                f"{leak.same_patient} of {leak.images} {split} images show patients who also have images in {before}; "
                f"the {split} results may be too optimistic"
            )
    return sentences


def leak_gaps(manifest: pd.DataFrame) -> list[str]:
    """Say what isn't known of patients, and that synthetic images have none; ``split`` isn't read."""
    sentences = []
    known, source = known_cells(manifest["patient_id"]), manifest["source"]
    if not known.all():
        of = f" for {(~known).sum()} of {len(known)} images{_by_source(source, ~known)}" if known.any() else ""
        sentences.append(f"patients are not known{of}; images of one patient may be in training and in test")
    patients = manifest[known].groupby("source")["patient_id"].agg(["nunique", "count", "first"])
    for name, row in patients[(patients["nunique"] == 1) & (patients["count"] >= _SUSPICIOUS)].iterrows():
        sentences.append(
            f"{name}: all {row['count']} images with a patient_id have the same one, '{row['first']}'; if it stands "
            "for unknown patients, leave these cells empty"
        )
    if (source == "phantom").any():
        sentences.append("the images are synthetic; the result says nothing about patients")
    return sentences


def patients_text(manifest: pd.DataFrame) -> str:
    """Give the number of patients, and for how many images they are known where that isn't all."""
    known = known_cells(manifest["patient_id"])
    if not known.any():
        return "not known"
    of = "" if known.all() else f", known for {known.sum()} of {len(known)} images"
    return f"{manifest['patient_id'][known].nunique()}{of}"


def _by_source(source: pd.Series, rows: _BoolArray) -> str:
    counts = source[rows].value_counts()
    if source.nunique() == 1:
        return ""
    named = [f"{count} in {name}" for name, count in counts.head(_SOURCES).items()]
    if len(counts) > _SOURCES:
        named.append(f"{counts.iloc[_SOURCES:].sum()} in {len(counts) - _SOURCES} other sources")
    return f" ({', '.join(named)})"


def label_conflicts(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Find the images of which a duplicate has another label; pairs of which the manifest lacks an image don't count.

    Returns:
        ``group, image_id, label, split, kind, path``, one row an image, group by group: all duplicates of one another
        among which two labels differ. ``group`` is the first ``image_id``, ``kind`` names those of the image's pairs.
    """
    place = pd.Series(np.arange(len(manifest)), index=manifest["image_id"])
    pairs = pairs[pairs["image_id_a"].isin(place.index) & pairs["image_id_b"].isin(place.index)]
    a, b = (place[pairs[f"image_id_{side}"]].to_numpy() for side in "ab")
    groups = components(len(manifest), a, b)
    labels = pd.factorize(manifest["label"])[0]
    rows = manifest[np.isin(groups, groups[a[labels[a] != labels[b]]])]
    group = rows["image_id"].groupby(groups[place[rows["image_id"]]]).transform("min")
    ends = pd.concat([pairs[[f"image_id_{side}", "kind"]].set_axis(["image_id", "kind"], axis=1) for side in "ab"])
    kinds = ends.drop_duplicates().sort_values("kind").groupby("image_id")["kind"].agg(", ".join)
    table = rows.assign(group=group, kind=rows["image_id"].map(kinds))
    table = table[["group", "image_id", "label", "split", "kind", "path"]]
    return table.sort_values(["group", "image_id"], ignore_index=True)


def conflict_statement(pairs: pd.DataFrame, manifest: pd.DataFrame) -> list[str]:
    """Say that duplicates have different labels and name a few of them; nothing where none do."""
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
        f"{len(conflicts)} images are duplicates with different labels ({'; '.join(named)}{more}); {_CONFLICTS} lists "
        "them all"
    ]


def write_conflicts(pairs: pd.DataFrame, manifest: pd.DataFrame, folder: Path) -> None:
    """List them in ``label_conflicts.csv`` of a folder, if there are any."""
    if len(conflicts := label_conflicts(pairs, manifest)):
        write_table(conflicts, folder / _CONFLICTS)


def marked_duplicates(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Mark where the two images of each pair of duplicates stand, and whether they contradict each other.

    Args:
        pairs: from :func:`cxrnet.data.duplicates.find_duplicates`.
        manifest: split; pairs of which it lacks an image are left out.

    Returns:
        The pairs with ``split_a``, ``split_b`` of the manifest, ``patient_id_a``, ``patient_id_b``, and whether both
        are known and differ: ``label_differs``, ``split_differs``, ``patient_id_differs``. Such pairs come first.
    """
    rows = manifest.set_index("image_id")
    pairs = pairs[pairs["image_id_a"].isin(rows.index) & pairs["image_id_b"].isin(rows.index)].copy()
    for side in "ab":
        for column in ("split", "patient_id"):
            pairs[f"{column}_{side}"] = rows.loc[pairs[f"image_id_{side}"], column].array
    differ = [f"{column}_differs" for column in ("label", "split", "patient_id")]
    for column in differ:
        first, second = (pairs[column.replace("differs", side)] for side in "ab")
        pairs[column] = (first != second).fillna(False).astype(bool)
    return pairs.sort_values(differ, ascending=False, kind="stable", ignore_index=True)
