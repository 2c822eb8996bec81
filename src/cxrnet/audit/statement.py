"""What every run states about its data before it states a result."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrnet.data.leaks import leaks
from cxrnet.linking import known_cells

SUSPICIOUS = 10  # images of the only patient of a source
NAMED = 5  # sources that a sentence names


def leak_statement(manifest: pd.DataFrame) -> list[str]:
    """How much of test and val was seen before, and what isn't known about it, in sentences.

    Args:
        manifest: split, with ``group_id`` filled from :func:`cxrnet.data.copies.copy_groups`.

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
