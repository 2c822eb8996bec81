"""What needs no images; the rest is in ``tests/integration/test_evaluate.py``."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.workflows.evaluate import thumbnail_warnings


def figures(right: int):
    """Of 20 images of two classes, of which so many of each are called right."""
    labels = ["a"] * 10 + ["b"] * 10
    rows = pd.DataFrame({name: [f"{name} {i}" for i in range(20)] for name in ("image_id", "path", "patient_id")})
    logits = np.zeros((20, 2), np.float32)
    for row, label in enumerate(labels):
        logits[row, int((label == "b") == (row % 10 < right))] = 1 + row / 100
    return evaluate(make_predictions(rows.assign(label=labels, split="test", source="s"), ("a", "b"), logits))


def test_a_network_that_is_no_better_than_thumbnails_is_told_with_the_name_of_the_data():
    better, worse = figures(9), figures(6)
    said = thumbnail_warnings(
        {
            "north": SimpleNamespace(external=worse, baselines={"thumbnail": better}),
            "south": SimpleNamespace(external=better, baselines={"thumbnail": worse}),
            "east": SimpleNamespace(external=worse, baselines={}),
        }
    )
    assert len(said) == 1
    assert said[0].startswith("north: The network does not beat a linear model on 8 × 8 thumbnails (balanced accuracy")
    assert not said[0].endswith(".")
