import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.settings import Evaluation
from cxrnet.reporting.results import figures_of, flat_metrics, write_results

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


def predictions_of(split: str, labels: str, seed: int = 0) -> pd.DataFrame:
    names = [{"v": "Viral Pneumonia", "c": "Covid", "n": "Normal"}[letter] for letter in labels]
    ids = [f"{split}/{i}.png" for i in range(len(names))]
    rows = pd.DataFrame(
        {"image_id": ids, "path": ids, "label": names, "split": split, "source": "s", "patient_id": None}
    )
    logits = np.random.default_rng(seed).normal(size=(len(names), 3)).astype(np.float32)
    logits[np.arange(len(names)), [CLASSES.index(name) for name in names]] += 2
    return make_predictions(rows, CLASSES, logits)


def settings(**changes):
    return OmegaConf.to_container(OmegaConf.merge(asdict(Evaluation(resamples=100)), changes))


HISTORY = pd.DataFrame(
    {
        "phase": ["head", "head"],
        "epoch": [1, 2],
        **{f"{split}_{name}": [0.5, 0.6] for split in ("train", "val") for name in ("loss", "accuracy", "auc")},
    }
)


@pytest.fixture
def written(tmp_path):
    def write(*splits: pd.DataFrame, **others):
        predictions = pd.concat(splits, ignore_index=True)
        baselines = {"majority": splits[-1]}
        return write_results(tmp_path, predictions, baselines, CLASSES, settings(), HISTORY, 2, **others), tmp_path

    return write


def test_the_headline_is_test_where_there_is_one(written):
    val, test = predictions_of("val", "vcnvcn"), predictions_of("test", "vcnvcncn", seed=1)
    results, folder = written(val, test)
    assert results.headline == "test"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["accuracy"]["n"] == 8
    assert metrics["val"]["accuracy"]["n"] == 6
    assert list(metrics["test"]["per_class"]) == list(CLASSES)
    assert metrics["baselines"]["test"]["majority"] == metrics["test"]
    assert json.loads((folder / "class_indices.json").read_text()) == {name: i for i, name in enumerate(CLASSES)}
    assert pd.read_parquet(folder / "predictions.parquet")["image_id"].tolist()[-1] == "test/7.png"


def test_without_a_test_split_val_is_the_headline(written):
    results, folder = written(predictions_of("val", "vcnvcn"))
    assert results.headline == "val"
    assert "test" not in json.loads((folder / "metrics.json").read_text())
    assert (folder / "confusion_matrix.png").is_file()


def test_flat_names_tell_the_final_figures_of_val_from_those_of_each_epoch(written):
    results, _ = written(predictions_of("val", "vcnvcn"), predictions_of("test", "vcnvcn", seed=1))
    flat = flat_metrics(results)
    assert flat["test_accuracy"] == results.metrics["test"]["accuracy"]["value"]
    sensitivity = results.metrics["val"]["per_class"]["Viral Pneumonia"]["sensitivity"]["value"]
    assert flat["final_val_sensitivity_Viral Pneumonia"] == sensitivity
    assert "baseline_majority_accuracy" in flat
    assert not any(name.startswith("val_") for name in flat)
    assert all(isinstance(value, float | int) for value in flat.values())


def test_what_cannot_be_computed_is_left_out(written):
    results, _ = written(predictions_of("test", "vcvc"))  # no Normal image
    flat = flat_metrics(results)
    assert "test_sensitivity_Normal" not in flat
    assert "test_specificity_Normal" in flat
    assert not any(np.isnan(value) for value in flat.values())


def test_figures_have_intervals_and_mlflow_gets_those_of_the_headline(written):
    results, folder = written(predictions_of("val", "vcnvcnvcn"), predictions_of("test", "vcnvcnvcn", seed=1))
    metrics = json.loads((folder / "metrics.json").read_text())
    for part in (metrics["val"], metrics["test"], metrics["baselines"]["test"]["majority"]):
        assert all("interval" in part[name] or "interval_reason" in part[name] for name in ("accuracy", "macro_f1"))
    low, high = metrics["test"]["accuracy"]["interval"]
    flat = flat_metrics(results)
    assert (flat["test_accuracy_low"], flat["test_accuracy_high"]) == (low, high)
    assert "test_sensitivity_Covid_low" not in flat
    assert "final_val_accuracy_low" not in flat


def test_what_was_seen_before_is_left_out_in_a_second_result(written):
    test = predictions_of("test", "vcnvcnvcn", seed=1)
    results, folder = written(test, seen=["test/0.png", "test/4.png", "val/0.png"])
    assert results.unseen["accuracy"]["n"] == 7
    assert results.metrics["test"]["accuracy"]["n"] == 9
    assert json.loads((folder / "metrics.json").read_text())["without_seen"]["test"] == results.unseen
    assert flat_metrics(results)["test_without_seen_accuracy"] == results.unseen["accuracy"]["value"]


@pytest.mark.parametrize("seen", [(), ["val/0.png"], [f"test/{i}.png" for i in range(9)]])
def test_there_is_no_second_result_where_nothing_or_everything_was_seen(written, seen):
    results, folder = written(predictions_of("test", "vcnvcnvcn", seed=1), seen=seen)
    assert results.unseen is None
    assert "without_seen" not in json.loads((folder / "metrics.json").read_text())


def test_a_class_called_like_a_mean_keeps_its_own_metrics():
    classes = ("macro", "weighted", "Normal")
    rows = predictions_of("test", "vcnvcncn").replace(dict(zip(CLASSES, classes, strict=True)))
    rows.columns = [column.replace("Viral Pneumonia", "macro").replace("Covid", "weighted") for column in rows]
    metrics = evaluate(rows)
    values = figures_of(metrics)
    assert values["roc_auc_macro"] == metrics["roc_auc_macro"]["value"]
    assert values["roc_auc_macro (class)"] == metrics["per_class"]["macro"]["roc_auc"]["value"]
    assert len(values) == 11 + 3 * len(metrics["per_class"]["macro"])
