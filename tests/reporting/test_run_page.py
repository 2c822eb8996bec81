"""The page of a result in MLflow."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.settings import Evaluation
from cxrnet.models.lightning_module import metric_names
from cxrnet.reporting.results import write_results
from cxrnet.reporting.run_page import run_page
from cxrnet.reporting.wording import HEADLINE

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


def predictions_of(split, labels, seed=0):
    names = [{"v": "Viral Pneumonia", "c": "Covid", "n": "Normal"}[letter] for letter in labels]
    ids = [f"{split}/{i}.png" for i in range(len(names))]
    rows = pd.DataFrame({"image_id": ids, "path": ids, "label": names, "split": split, "source": "s"})
    logits = np.random.default_rng(seed).normal(size=(len(names), 3)).astype(np.float32)
    logits[np.arange(len(names)), [CLASSES.index(name) for name in names]] += 2
    return make_predictions(rows.assign(patient_id=None), CLASSES, logits)


@pytest.fixture
def page(tmp_path):
    settings = asdict(Evaluation(resamples=100))

    def make(*splits, **others):
        tables = {"majority": splits[-1], "thumbnail": splits[-1]}
        results = write_results(tmp_path, pd.concat(splits, ignore_index=True), tables, CLASSES, settings, **others)
        return run_page(results, ["few_images <b>", "| synthetic"], "python -m cxrnet.train seed=1")

    return make


def test_the_metrics_are_the_headline_with_its_ends_and_those_of_each_class(page, tmp_path):
    shown = page(predictions_of("val", "vcnvcnvcn"), predictions_of("test", "vcnvcnvcn", seed=1))["metrics"]
    test = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert shown["test/accuracy"] == test["accuracy"]["value"]
    assert [shown["test/accuracy/ci_low"], shown["test/accuracy/ci_high"]] == test["accuracy"]["interval"]
    assert shown["test/sensitivity/Covid"] == test["per_class"]["Covid"]["sensitivity"]["value"]
    for name in ("majority", "thumbnail"):
        assert shown[f"test/balanced_accuracy/{name}"] == test["balanced_accuracy"]["value"]
    assert len({*shown, *metric_names(CLASSES), "train/lr"}) <= 60
    assert not set(shown) & set(metric_names(CLASSES))


def test_what_is_not_defined_is_left_out(page):
    shown = page(predictions_of("test", "vcvc"))["metrics"]  # no image is labelled Normal
    assert "test/sensitivity/Normal" not in shown
    assert "test/specificity/Normal" in shown
    assert not any(np.isnan(value) for value in shown.values())


def test_without_a_test_split_val_is_shown_apart_from_its_curves(page):
    shown = page(predictions_of("val", "vcnvcn"))["metrics"]
    assert "final_val/accuracy" in shown
    assert not [name for name in shown if name.startswith(("val/", "test/"))]


def test_the_table_has_every_metric_once(page, tmp_path):
    table = page(predictions_of("val", "vcnvcn"), predictions_of("test", "vcnvcnvcn", seed=1), leaked=["test/0.png"])[
        "table"
    ]
    assert table["metric"].is_unique
    rows = table.set_index("metric")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert rows.loc["test/f1/Covid", "value"] == metrics["test"]["per_class"]["Covid"]["f1"]["value"]
    assert rows.loc["val/accuracy", ["ci_low", "ci_high"]].tolist() == metrics["val"]["accuracy"]["interval"]
    assert rows.loc["test_without_leaked/accuracy", "n"] == 8
    assert rows.loc["baseline/majority/log_loss", "value"] == metrics["test"]["log_loss"]["value"]


def test_the_description_is_markdown_that_names_cannot_break(page):
    text = page(predictions_of("test", "vcnvcn"))["description"]
    lines = text.splitlines()
    assert lines[0] == "| Metric | Test (n = 6) | Confidence interval | 8 × 8 thumbnails |"
    assert len([line for line in lines if line.startswith("| ") and line.count("|") == 5]) == 2 + len(HEADLINE)
    assert "- few_images &lt;b>" in lines
    assert "- \\| synthetic" in lines
    assert lines[-1] == "`python -m cxrnet.train seed=1`"
