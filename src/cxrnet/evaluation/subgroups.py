"""Subgroups: the same metrics by source, view, sex and age.

A mean over all images hides a group on which a network fails, and a source it has learned to recognise.
"""

from collections.abc import Callable, Iterator

import pandas as pd

from cxrnet.evaluation.metrics import Evaluation
from cxrnet.evaluation.predictions import classes_of

ATTRIBUTES = ("source", "view", "sex", "age")
UNKNOWN = "unknown"
AGE_BANDS = {"0-17": (0, 18), "18-39": (18, 40), "40-64": (40, 65), "65+": (65, 121)}
"""First age, and the first that is too old."""
METRICS = ("sensitivity", "specificity", "roc_auc")


def evaluate_subgroups(
    predictions: pd.DataFrame, evaluate: Callable[[pd.DataFrame], Evaluation], fewest: int
) -> tuple[pd.DataFrame, list[str]]:
    """Evaluate every class in every subgroup.

    Args:
        predictions: the rows of one split, every label known.
        evaluate: computes the metrics of a part of them, such as :func:`cxrnet.evaluation.metrics.evaluate`.
        fewest: positives, or negatives, below which the metrics of a class in a group are warned of.

    Returns:
        A table with one row a group and class, ``attribute``, ``group``, ``class``, ``n``, ``positives``,
        ``sensitivity``, ``specificity``, ``roc_auc`` (each of these three a ``Metric``), and the warnings, a sentence a
        group. An attribute that the table lacks, or that is the same for all images, has no groups. A cell that is
        empty, or no age, is in the group ``unknown``.
    """
    rows, warnings = [], []
    for attribute, group, part in _groups(predictions):
        per_class, n = evaluate(part)["per_class"], len(part)
        support = {name: int((part["label"] == name).sum()) for name in classes_of(part)}
        for name, metrics in per_class.items():
            place = {"attribute": attribute, "group": group, "class": name, "n": n, "positives": support[name]}
            rows.append(place | {metric: metrics[metric] for metric in METRICS})
        few = [f"{count} images with {name}" for name, count in support.items() if count < fewest]
        few += [f"{n - count} without {name}" for name, count in support.items() if n - count < fewest <= count]
        if few:
            warnings.append(f"{attribute} {group}: only {', '.join(few)} (fewer than {fewest}): uncertain metrics.")
    return pd.DataFrame(rows, columns=["attribute", "group", "class", "n", "positives", *METRICS]), warnings


def _groups(predictions: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield attribute, group and rows: age by age, the others by size, what is unknown last."""
    for attribute in ATTRIBUTES:
        if attribute not in predictions:
            continue
        if attribute == "age":
            groups, names = age_bands(predictions["age"]), list(AGE_BANDS)
        else:
            text = predictions[attribute].astype("string").str.strip()
            groups = text.mask(text.isna() | (text.str.lower() == UNKNOWN) | (text == ""), UNKNOWN)
            names = [name for name in groups.value_counts().index if name != UNKNOWN]
        present = [name for name in (*names, UNKNOWN) if (groups == name).any()]
        if len(present) > 1:
            for name in present:
                yield attribute, name, predictions[(groups == name).to_numpy()]


def age_bands(ages: pd.Series) -> pd.Series:
    """Put ages into bands.

    Args:
        ages: in years, as text (``65``, ``65.0``, or ``065Y`` as DICOM writes it) or as numbers.

    Returns:
        Names of :data:`AGE_BANDS`; ``unknown`` where a cell is empty or no age up to 120.
    """
    text = ages.astype("string").str.strip().str.replace(r"(?i)y$", "", regex=True)
    years = pd.to_numeric(text, errors="coerce").astype("Float64")
    bands = pd.Series(UNKNOWN, index=ages.index, dtype="string")
    for name, (first, too_old) in AGE_BANDS.items():
        bands = bands.mask((years >= first).fillna(False) & (years < too_old).fillna(False), name)
    return bands
