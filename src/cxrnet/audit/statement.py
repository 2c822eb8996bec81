"""What every run states about its data before it states a result."""

import pandas as pd

from cxrnet.data.leaks import leaks


def leak_statement(manifest: pd.DataFrame) -> list[str]:
    """How much of test and val was seen before, and what isn't known about it, in sentences.

    Args:
        manifest: split, with ``group_id`` filled from :func:`cxrnet.data.copies.copy_groups`.

    Returns:
        Nothing where patients are known, nothing leaks, and the images are real.
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
    if all(leak.patients_known == 0 for leak in found.values()):
        sentences.append("patients are not known; images of one patient may stand on both sides of the split")
    if (manifest["source"] == "phantom").any():
        sentences.append("the images are synthetic; the result says nothing about patients")
    return sentences
