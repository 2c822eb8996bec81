"""Confident learning on labels of which some were changed."""

import numpy as np
import pandas as pd

from cxrnet.evaluation.label_errors import suspected_errors
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.probes import probe

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


def table(labels, features) -> pd.DataFrame:
    names = [f"{place:03d}.png" for place in range(len(labels))]
    columns = {"image_id": names, "path": names, "label": labels, "split": "train", "source": "s"}
    rows = pd.DataFrame({**columns, "patient_id": None, "group_id": None}).astype("string")
    return probe(features, rows, CLASSES)


def test_changed_labels_are_doubted_and_right_ones_are_not() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 300)
    features = np.eye(3)[truth] * 4 + random.normal(size=(300, 3))
    wrong = random.choice(300, 15, replace=False)
    given = truth.copy()
    given[wrong] = (given[wrong] + 1) % 3
    found = suspected_errors(table([CLASSES[place] for place in given], features))
    named = found["image_id"].str[:3].astype(int).to_numpy()
    assert len(set(wrong) & set(named)) >= 10
    assert len(set(named) - set(wrong)) <= 1
    first = found.iloc[0]
    assert first["suggested"] == CLASSES[truth[int(first["image_id"][:3])]]
    assert first["probability"] > 0.9 > 0.1 > first["own"]
    assert (found["suggested"] != found["label"]).all()


def test_a_difficult_image_whose_label_is_the_most_probable_class_is_not_doubted() -> None:
    """Its probability of another class reaches that class's low threshold, but its own label is more probable."""
    names = [f"{place}.png" for place in range(4)]
    rows = pd.DataFrame(
        {"image_id": names, "path": names, "label": ["a", "a", "b", "b"], "split": None, "source": "s"}
    ).assign(patient_id=None)
    probabilities = np.array([[0.55, 0.45], [0.95, 0.05], [0.7, 0.3], [0.6, 0.4]])
    found = suspected_errors(make_predictions(rows.astype("string"), ["a", "b"], np.log(probabilities).astype("f4")))
    assert "0.png" not in found["image_id"].tolist()
    assert found.empty  # the images of b don't reach the threshold of a, 0.75
