import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from cxrnet.evaluation.catalogue import OVERALL
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.settings import Evaluation
from cxrnet.reporting.results import values_of, write_results

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
        **{f"{split}/{name}": [0.5, 0.6] for split in ("train", "val") for name in ("loss", "accuracy", "auc")},
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


def test_leaked_images_are_left_out_in_a_second_result(written):
    test = predictions_of("test", "vcnvcnvcn", seed=1)
    results, folder = written(test, leaked=["test/0.png", "test/4.png", "val/0.png"])
    assert results.without_leaked["accuracy"]["n"] == 7
    assert results.metrics["test"]["accuracy"]["n"] == 9
    assert json.loads((folder / "metrics.json").read_text())["without_leaked"]["test"] == results.without_leaked


@pytest.mark.parametrize("leaked", [(), ["val/0.png"], [f"test/{i}.png" for i in range(9)]])
def test_there_is_no_second_result_where_nothing_or_everything_leaked(written, leaked):
    results, folder = written(predictions_of("test", "vcnvcnvcn", seed=1), leaked=leaked)
    assert results.without_leaked is None
    assert "without_leaked" not in json.loads((folder / "metrics.json").read_text())


def test_a_class_called_like_a_mean_keeps_its_own_metrics():
    classes = ("macro", "weighted", "Normal")
    rows = predictions_of("test", "vcnvcncn").replace(dict(zip(CLASSES, classes, strict=True)))
    rows.columns = [column.replace("Viral Pneumonia", "macro").replace("Covid", "weighted") for column in rows]
    metrics = evaluate(rows)
    values = values_of(metrics)
    assert values["roc_auc_macro"] == metrics["roc_auc_macro"]["value"]
    assert values["roc_auc_macro (class)"] == metrics["per_class"]["macro"]["roc_auc"]["value"]
    assert len(values) == len(OVERALL) + 3 * len(metrics["per_class"]["macro"])
