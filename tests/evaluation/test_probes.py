"""Probes: what a linear model tells the classes from, never with a patient on both sides."""

import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.probes import ProbeError, probe


def rows(labels: list[str], patients: list[str | None]) -> pd.DataFrame:
    names = [f"{place}.png" for place in range(len(labels))]
    columns = {"image_id": names, "path": names, "label": labels, "split": "test", "source": "s"}
    return pd.DataFrame({**columns, "patient_id": patients, "group_id": None}).astype("string")


def auc(table: pd.DataFrame) -> float:
    return evaluate(table)["roc_auc_macro"]["value"]


def test_a_sign_of_the_class_is_found_and_noise_is_not() -> None:
    random = np.random.default_rng(0)
    labels = ["a", "b"] * 100
    table = rows(labels, [f"p{place // 4}" for place in range(200)])
    sign = np.where(np.array(labels) == "b", 2.0, 0.0)[:, None] + random.normal(size=(200, 1))
    assert auc(probe(sign, table, ["a", "b"])) > 0.88
    assert 0.35 < auc(probe(random.normal(size=(200, 3)), table, ["a", "b"])) < 0.65


def test_what_is_known_of_a_patient_does_not_help() -> None:
    """A feature that names the patient tells the class of the patient's other images, if they are in training."""
    labels = ["a"] * 20 + ["b"] * 20
    patients = [f"p{place // 2}" for place in range(40)]
    one_hot = np.eye(20)[np.arange(40) // 2]
    assert auc(probe(one_hot, rows(labels, [f"q{place}" for place in range(40)]), ["a", "b"], strength=100.0)) > 0.7
    assert auc(probe(one_hot, rows(labels, patients), ["a", "b"], strength=100.0)) <= 0.6


def test_too_few_images_are_refused_in_a_line() -> None:
    with pytest.raises(ProbeError, match="only 'a' has images"):
        probe(np.zeros((4, 1)), rows(["a"] * 4, [None] * 4), ["a", "b"])
    with pytest.raises(ProbeError, match="all images of 'b' are of one patient"):
        probe(np.zeros((4, 1)), rows(["a", "a", "b", "b"], ["1", "2", "3", "3"]), ["a", "b"])


def test_a_class_of_two_patients_is_probed_in_two_folds() -> None:
    table = rows(["a"] * 10 + ["b", "b"], [f"p{place}" for place in range(12)])
    values = np.r_[np.zeros(10), 5.0, 5.0][:, None]
    assert auc(probe(values, table, ["a", "b"])) == 1.0
