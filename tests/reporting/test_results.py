import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from cxrnet.evaluation.calibration import error_of_table
from cxrnet.evaluation.catalogue import OVERALL
from cxrnet.evaluation.decision import Mix, read_mix
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import classes_of, logits_of, make_predictions
from cxrnet.evaluation.settings import Evaluation
from cxrnet.models.lightning_module import metric_names
from cxrnet.reporting.results import analyse, evaluator, save_analysis, values_of, write_results
from cxrnet.reporting.run_page import run_page
from cxrnet.reporting.wording import HEADLINE

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


@pytest.fixture
def analysed(settings):
    def make(table, temperature=1.0, **changes):
        changed = {**settings, **changes}
        return analyse(table, evaluator(changed)(table), changed, temperature)

    return make


def test_the_diagram_shows_the_probabilities_before_and_after_the_temperature(analysed, make_table):
    table = make_table()
    plain, scaled = analysed(table), analysed(table, 2.0)
    assert list(plain.reliability) == ["temperature 1"]
    assert list(scaled.reliability) == ["temperature 1", "temperature 2"]
    # Of several networks, as those of the folds: "temperature 1" would be wrong.
    pooled = analysed(make_table(), temperature=None).reliability
    assert list(pooled) == ["each at its own temperature"]
    pd.testing.assert_frame_equal(pooled["each at its own temperature"], plain.reliability["temperature 1"])
    # What the table holds is after the temperature; before it, the network was more certain.
    pd.testing.assert_frame_equal(scaled.reliability["temperature 2"], plain.reliability["temperature 1"])
    before = scaled.reliability["temperature 1"]
    assert np.average(before["confidence"], weights=before["n"]) > table.filter(like="prob_").max(axis=1).mean()
    assert error_of_table(before) != error_of_table(plain.reliability["temperature 1"])


def test_the_diagram_of_temperature_1_has_the_offset_of_the_classes_back(make_table, settings):
    offset = np.array([0.0, 1.5, -0.5])
    mix = read_mix({"Covid": 0.05}, dict(zip(CLASSES, (0.5, 0.3, 0.2), strict=True)))
    raw = make_table(n=200)
    for moved, given in ((np.zeros(3), Mix()), (mix.shift(CLASSES), mix)):
        plain = make_predictions(raw, classes_of(raw), (logits_of(raw) + moved).astype(np.float32))
        scaled = make_predictions(raw, classes_of(raw), ((logits_of(raw) - offset) / 2 + moved).astype(np.float32))
        quick = {**settings, "resamples": 0}
        before = analyse(scaled, evaluator(quick)(scaled), quick, 2.0, given, tuple(offset)).reliability
        expected = analyse(plain, evaluator(quick)(plain), quick, 1.0, given).reliability
        pd.testing.assert_frame_equal(before["temperature 1"], expected["temperature 1"], rtol=1e-5)
        assert len(before) == 2


def test_one_number_of_bins_serves_the_diagram_and_every_ece(make_table, settings):
    table = make_table(n=200)
    few, many = ({**settings, "calibration": {"bins": bins, "kind": "equal_width"}} for bins in (3, 40))
    for changed in (few, many):
        metrics = evaluator(changed)(table)
        (diagram,) = analyse(table, metrics, changed, None).reliability.values()
        assert metrics["ece"]["value"] == pytest.approx(error_of_table(diagram), abs=1e-12)
    assert evaluator(few)(table)["ece"]["value"] < evaluator(many)(table)["ece"]["value"]


def test_a_class_without_images_has_no_decision_curve_and_says_why_it_has_no_predictive_values(
    analysed, make_table, tmp_path
):
    analysis = analysed(make_table(labels=["Covid", "Normal"] * 20))
    assert list(analysis.decisions) == ["Covid", "Normal"]
    assert analysis.triage["Viral Pneumonia"] == [
        "The predictive values of Viral Pneumonia can't be computed: no image is labelled Viral Pneumonia."
    ]
    assert set(save_analysis(analysis, tmp_path)) == {"reliability", "risk_coverage", "decision_1", "decision_2"}


def test_tables_are_written_with_the_ends_of_their_intervals(analysed, make_table, tmp_path):
    table = make_table()
    table["sex"] = pd.array(["F", "M"] * 30, dtype="string")
    save_analysis(analysed(table), tmp_path, "_val")
    groups = pd.read_csv(tmp_path / "subgroups_val.csv")
    assert groups["group"].unique().tolist() in (["F", "M"], ["M", "F"])
    assert (groups["sensitivity_low"] <= groups["sensitivity"]).all()
    values = pd.read_csv(tmp_path / "predictive_values_val.csv")
    assert values.groupby("class")["prevalence"].agg(list).map(tuple).unique().tolist() == [(0.05, 0.2)]
    assert (values["ppv_low"] <= values["ppv"]).all()
    curves = pd.read_csv(tmp_path / "decision_curves_val.csv")
    assert list(curves["class"].unique()) == ["Viral Pneumonia", "Covid", "Normal"]
    assert (curves["low"] <= curves["model"]).all()
    risk = pd.read_csv(tmp_path / "risk_coverage_val.csv")
    assert (risk["high"].dropna() >= risk["error"][risk["high"].notna()]).all()


def predictions_of(split: str, labels: str, seed: int = 0) -> pd.DataFrame:
    names = [{"v": "Viral Pneumonia", "c": "Covid", "n": "Normal"}[letter] for letter in labels]
    ids = [f"{split}/{i}.png" for i in range(len(names))]
    rows = pd.DataFrame(
        {"image_id": ids, "path": ids, "label": names, "split": split, "source": "s", "patient_id": None}
    )
    logits = np.random.default_rng(seed).normal(size=(len(names), 3)).astype(np.float32)
    logits[np.arange(len(names)), [CLASSES.index(name) for name in names]] += 2
    return make_predictions(rows, CLASSES, logits)


def configured(**changes):
    return OmegaConf.to_container(OmegaConf.merge(asdict(Evaluation(resamples=100)), changes))


HISTORY = pd.DataFrame(
    {
        "phase": ["head", "head"],
        "epoch": [1, 2],
        **{f"{split}/{name}": [0.5, 0.6] for split in ("train", "val") for name in ("loss", "accuracy", "auc")},
    }
)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Writes the results of some splits, which draws all of their plots."""

    def call(*splits: pd.DataFrame, history: pd.DataFrame | None = None, **others):
        folder = tmp_path_factory.mktemp("results")
        tables = {"majority": splits[-1], "thumbnail": splits[-1]}
        predictions = pd.concat(splits, ignore_index=True)
        return write_results(folder, predictions, tables, CLASSES, configured(), history, 2, **others), folder

    return call


@pytest.fixture(scope="module")
def written(write):
    """The results of two splits, and their folder."""
    leaked = ["test/0.png", "test/4.png", "val/0.png"]
    return write(
        predictions_of("val", "vcnvcn"), predictions_of("test", "vcnvcnvcn", 1), history=HISTORY, leaked=leaked
    )


def test_the_headline_is_test_where_there_is_one(written):
    results, folder = written
    assert results.headline == "test"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["accuracy"]["n"] == 9
    assert metrics["val"]["accuracy"]["n"] == 6
    assert list(metrics["test"]["per_class"]) == list(CLASSES)
    assert metrics["baselines"]["test"]["majority"] == metrics["test"]
    assert json.loads((folder / "class_indices.json").read_text()) == {name: i for i, name in enumerate(CLASSES)}
    assert pd.read_parquet(folder / "predictions.parquet")["image_id"].tolist()[-1] == "test/8.png"


def test_leaked_images_are_left_out_in_a_second_result(written):
    results, folder = written
    assert results.without_leaked["accuracy"]["n"] == 7
    assert results.metrics["test"]["accuracy"]["n"] == 9
    assert json.loads((folder / "metrics.json").read_text())["without_leaked"]["test"] == results.without_leaked


@pytest.mark.parametrize("leaked", [["val/0.png"], [f"test/{i}.png" for i in range(6)]])
def test_there_is_no_second_result_where_nothing_or_everything_leaked(write, leaked):
    results, folder = write(predictions_of("test", "vcnvcn", seed=1), leaked=leaked)
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


def page_of(results):
    return run_page(results, ["few_images <b>", "| synthetic"], "python -m cxrnet.train seed=1")


def test_the_metrics_are_the_headline_with_its_ends_and_those_of_each_class(written):
    results, folder = written
    shown = page_of(results)["metrics"]
    test = json.loads((folder / "metrics.json").read_text())["test"]
    assert shown["test/accuracy"] == test["accuracy"]["value"]
    assert [shown["test/accuracy/ci_low"], shown["test/accuracy/ci_high"]] == test["accuracy"]["interval"]
    assert shown["test/sensitivity/Covid"] == test["per_class"]["Covid"]["sensitivity"]["value"]
    for name in ("majority", "thumbnail"):
        assert shown[f"test/balanced_accuracy/{name}"] == test["balanced_accuracy"]["value"]
    assert len({*shown, *metric_names(CLASSES), "train/lr"}) <= 60
    assert not set(shown) & set(metric_names(CLASSES))


def test_what_is_not_defined_is_left_out(write):
    shown = page_of(write(predictions_of("test", "vcvc"))[0])["metrics"]  # no image is labelled Normal
    assert "test/sensitivity/Normal" not in shown
    assert "test/specificity/Normal" in shown
    assert not any(np.isnan(value) for value in shown.values())


def test_without_a_test_split_val_is_shown_apart_from_its_curves(write):
    shown = page_of(write(predictions_of("val", "vcnvcn"))[0])["metrics"]
    assert "final_val/accuracy" in shown
    assert not [name for name in shown if name.startswith(("val/", "test/"))]


def test_the_table_has_every_metric_once(written):
    results, folder = written
    table = page_of(results)["table"]
    assert table["metric"].is_unique
    rows = table.set_index("metric")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert rows.loc["test/f1/Covid", "value"] == metrics["test"]["per_class"]["Covid"]["f1"]["value"]
    assert rows.loc["val/accuracy", ["ci_low", "ci_high"]].tolist() == metrics["val"]["accuracy"]["interval"]
    assert rows.loc["test_without_leaked/accuracy", "n"] == 7
    assert rows.loc["baseline/majority/log_loss", "value"] == metrics["test"]["log_loss"]["value"]


def test_the_description_is_markdown_that_names_cannot_break(written):
    text = page_of(written[0])["description"]
    lines = text.splitlines()
    assert lines[0] == "| Metric | Test (n = 9) | Confidence interval | 8 × 8 thumbnails |"
    assert len([line for line in lines if line.startswith("| ") and line.count("|") == 5]) == 2 + len(HEADLINE)
    assert "- few_images &lt;b>" in lines
    assert "- \\| synthetic" in lines
    assert lines[-1] == "`python -m cxrnet.train seed=1`"
