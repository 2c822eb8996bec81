"""Cramér's V: of patients, corrected for bias, and silent where nothing is there."""

import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.association import associate


def rows(labels, sources, patients=None) -> pd.DataFrame:
    columns = {"label": list(labels), "source": list(sources), "patient_id": patients}
    return pd.DataFrame(columns).astype("string")


def test_one_source_a_class_is_told() -> None:
    found = associate(rows("ab" * 50, "xy" * 50), "label", "source")
    assert found.value == pytest.approx(1, abs=0.02)
    assert found.found
    assert found.interval[0] > 0.7
    assert found.n == 100


def test_chance_is_not_told() -> None:
    """Of 200 tables without an association, about one in forty has an interval above 0."""
    random = np.random.default_rng(0)
    tables = [rows(random.choice(["a", "b"], 120), random.choice(["x", "y", "z"], 120)) for _ in range(200)]
    found = [associate(table, "label", "source") for table in tables]
    assert sum(each.found for each in found) <= 12
    assert np.mean([each.value for each in found]) < 0.06  # uncorrected: 0.11


def test_images_of_a_patient_are_one_case() -> None:
    found = associate(rows("ab" * 50, "xy" * 50, [f"p{place % 2}" for place in range(100)]), "label", "source")
    assert found.n == 2
    assert found.interval is None
    assert "2 cases in 2 × 2 cells are too few" in found.reason


@pytest.mark.parametrize(
    ("labels", "sources", "reason"),
    [
        ("aaaa", "xyxy", "all are of label 'a'"),
        ("abab", "xxxx", "all are of source 'x'"),
        ("abab", [None] * 4, "source is not known of any image"),
    ],
)
def test_what_has_no_association_says_why(labels, sources, reason) -> None:
    found = associate(rows(labels, sources), "label", "source")
    assert (found.value, found.interval, found.reason) == (None, None, reason)
