import numpy as np
import pandas as pd
import pytest

from cxrnet.evaluation.confidence_intervals import clusters_of, newcombe, on_log_odds, wilson
from cxrnet.evaluation.metrics import evaluate, evaluate_resampled
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.significance import delong_difference

CLASSES = ("Covid", "Normal")


def table_of(labels, scores, patients=None):
    """Labels as ``c`` for Covid and ``n`` for Normal; the score is the probability of Covid."""
    p = np.array(scores)
    rows = pd.DataFrame(
        {
            "image_id": [str(i) for i in range(len(labels))],
            "path": "somewhere.png",
            "label": [CLASSES["cn".index(name)] for name in labels],
            "split": "test",
            "source": "invented",
            "patient_id": patients or pd.NA,
        }
    )
    return make_predictions(rows, CLASSES, np.log(np.stack([p, 1 - p], axis=1)).astype(np.float32))


def noisy(n, positive=0.5, seed=0):
    """Labels and scores of a mediocre model."""
    rng = np.random.default_rng(seed)
    is_covid = np.arange(n) < positive * n
    scores = 1 / (1 + np.exp(-rng.normal(size=n) - np.where(is_covid, 1, -1)))
    return "".join("c" if covid else "n" for covid in is_covid), list(scores)


def test_intervals_agree_with_closed_forms_where_images_are_independent():
    table = table_of(*noisy(600))
    metrics = evaluate(table, 1000)
    assert metrics["accuracy"]["interval"] == pytest.approx(wilson(600 * metrics["accuracy"]["value"], 600), abs=0.01)
    for name, of_class in metrics["per_class"].items():
        for metric in (of_class[name] for name in ("sensitivity", "specificity", "precision", "npv")):
            assert metric["method"] == "bootstrap on log odds"
            assert metric["interval"] == pytest.approx(wilson(metric["value"] * metric["n"], metric["n"]), abs=0.015)
        positive = (table["label"] == name).to_numpy()
        above_chance = delong_difference(positive, table[f"prob_{name}"].to_numpy(), np.zeros(600)).interval(0.95)
        assert of_class["roc_auc"]["interval"] == pytest.approx(np.add(above_chance, 0.5), abs=0.01)


def test_duplicates_of_a_patient_say_no_more_than_one_image():
    labels, scores = noisy(100)
    single = evaluate(table_of(labels, scores), 1000)
    labels, scores = "".join(4 * name for name in labels), np.repeat(scores, 4)
    duplicates = evaluate(table_of(labels, scores, [str(i // 4) for i in range(400)]), 1000)
    assert duplicates["accuracy"]["interval"] == pytest.approx(single["accuracy"]["interval"], abs=0.01)


def separated(positives, negatives):
    """A table that the model gets all right."""
    scores = [*np.linspace(0.7, 0.9, positives), *np.linspace(0.1, 0.3, negatives)]
    return "c" * positives + "n" * negatives, scores


def test_all_right_is_not_certain():
    metrics = evaluate(table_of(*separated(26, 40)), 500)
    covid = metrics["per_class"]["Covid"]
    for name, cases in {"sensitivity": 26, "specificity": 40, "precision": 26, "npv": 40}.items():
        assert covid[name]["interval"] == pytest.approx(wilson(cases, cases)), name
        assert covid[name]["method"] == "wilson"
    assert metrics["accuracy"]["interval"] == pytest.approx(wilson(66, 66))
    low = wilson(26, 26)[0]
    assert covid["f1"]["interval"] == pytest.approx([2 * low / (1 + low), 1])
    assert covid["roc_auc"]["interval"] == pytest.approx(newcombe(1.0, 26, 40))
    assert covid["roc_auc"]["method"] == "newcombe"
    # Means over classes follow from their parts.
    assert metrics["roc_auc_macro"]["method"] == metrics["balanced_accuracy"]["method"] == "combined"
    assert metrics["roc_auc_macro"]["interval"] == pytest.approx(newcombe(1.0, 26, 40))
    apart = np.hypot(1 - wilson(26, 26)[0], 1 - wilson(40, 40)[0]) / 2
    assert metrics["balanced_accuracy"]["interval"] == pytest.approx([1 - apart, 1])
    assert covid["pr_auc"]["interval"] == pytest.approx(wilson(26, 26))
    assert covid["pr_auc"]["method"] == "wilson"
    assert metrics["pr_auc_macro"]["interval"] == pytest.approx([(wilson(26, 26)[0] + wilson(40, 40)[0]) / 2, 1])
    assert metrics["log_loss"]["method"] == "bootstrap on logarithms"
    assert metrics["log_loss"]["interval"][0] > 0


def test_a_mean_over_classes_rests_on_its_smallest_class():
    """With 6 and 54 images it takes the multiple of the error that 11 have, their harmonic mean, not 60."""
    table = table_of(*noisy(60, positive=0.1, seed=1))
    metrics, drawn = evaluate_resampled(table, clusters_of(table), 500, 0)
    of_mean = on_log_odds(metrics["balanced_accuracy"]["value"], drawn["", "balanced_accuracy"], 10.8)
    assert metrics["balanced_accuracy"]["interval"] == pytest.approx(of_mean)
    of_all = on_log_odds(metrics["accuracy"]["value"], drawn["", "accuracy"], 60)
    assert metrics["accuracy"]["interval"] == pytest.approx(of_all)


def test_one_patient_says_nothing_of_others():
    labels, scores = noisy(44, positive=4 / 44)
    metrics = evaluate(table_of(labels, scores, ["1"] * 4 + [f"n{i}" for i in range(40)]), 500)
    covid = metrics["per_class"]["Covid"]
    reason = "all images labelled Covid are of one patient"
    assert covid["sensitivity"]["interval"] == pytest.approx(wilson(covid["sensitivity"]["value"], 1))
    assert covid["specificity"]["method"] == "bootstrap on log odds"
    assert covid["roc_auc"]["interval"] == pytest.approx(newcombe(covid["roc_auc"]["value"], 1, 40))
    assert covid["pr_auc"]["interval_reason"] == reason
    assert (
        metrics["per_class"]["Normal"]["pr_auc"]["interval_reason"]
        == "all images not labelled Normal are of one patient"
    )
    assert metrics["pr_auc_macro"]["interval_reason"] == f"Covid has none: {reason}"
    assert metrics["roc_auc_macro"]["method"] == "combined"


def test_the_only_patient_with_both_classes_is_not_certain():
    """Twenty of sixty images, of which it gets half right: by chance none or twice as many are in a resample."""
    labels, scores = "cn" * 10 + "c" * 20 + "n" * 20, [0.9] * 20 + [0.9] * 20 + [0.1] * 19 + [0.6]
    patients = ["1"] * 20 + [str(i) for i in range(2, 42)]
    accuracy = evaluate(table_of(labels, scores, patients), 500)["accuracy"]
    assert accuracy["value"] == pytest.approx(49 / 60)
    assert np.diff(accuracy["interval"])[0] > 0.25


@pytest.mark.parametrize("others", ["nv", "nvp"])
def test_a_class_of_one_patient_is_not_certain(others):
    """Its own metrics have closed forms or a reason; those of all images let the patient come and go."""
    classes = ("Covid", *others)
    codes = np.r_[np.zeros(10, int), np.repeat(np.arange(1, len(classes)), 20)]
    logits = 2 * np.eye(len(classes))[codes] + np.random.default_rng(0).normal(size=(len(codes), len(classes)))
    logits[:10] = -2 * np.eye(len(classes))[0]  # all wrong
    rows = pd.DataFrame(
        {
            "image_id": [str(i) for i in range(len(codes))],
            "path": "somewhere.png",
            "label": [classes[code] for code in codes],
            "split": "test",
            "source": "invented",
            "patient_id": ["0"] * 10 + [str(i) for i in range(1, len(codes) - 9)],
        }
    )
    table = make_predictions(rows, classes, logits.astype(np.float32))
    metrics, drawn = evaluate_resampled(table, clusters_of(table), 500, 0)
    covid = metrics["per_class"]["Covid"]
    assert covid["sensitivity"]["interval"] == pytest.approx(wilson(0, 1))
    assert covid["pr_auc"]["interval_reason"] == "all images labelled Covid are of one patient"
    assert {metrics[name]["method"] for name in ("balanced_accuracy", "macro_f1", "roc_auc_macro")} == {"combined"}
    assert drawn["", "accuracy"].std() > 0.08
    assert all(np.diff(metrics[name]["interval"])[0] > 0.1 for name in ("accuracy", "brier", "log_loss"))


def test_one_large_patient_is_worth_less_than_many():
    """With 21, 1, ..., 1 images the degrees of freedom are those of Kish's effective number of patients."""
    table = table_of(*noisy(60), ["0"] * 21 + [str(i) for i in range(1, 40)])
    metrics, drawn = evaluate_resampled(table, clusters_of(table), 500, 0)
    clusters = 60**2 / (21**2 + 39)
    interval = on_log_odds(metrics["accuracy"]["value"], drawn["", "accuracy"], clusters)
    assert metrics["accuracy"]["interval"] == pytest.approx(interval)
    sensitivity = metrics["per_class"]["Covid"]["sensitivity"]
    of_class = on_log_odds(sensitivity["value"], drawn["Covid", "sensitivity"], 30**2 / (21**2 + 9))
    assert sensitivity["interval"] == pytest.approx(of_class)


def test_a_patient_with_nearly_all_images_says_nothing_of_others():
    metrics = evaluate(table_of(*noisy(1000), ["0"] * 999 + ["1"]), 500)
    assert metrics["accuracy"]["interval"] == pytest.approx([0, 1], abs=0.01)
    assert metrics["log_loss"]["interval_reason"] == "nearly all images are of one patient"


def test_one_image():
    metrics = evaluate(table_of("c", [0.9]), 500)
    assert metrics["accuracy"]["interval"] == pytest.approx(wilson(1, 1))
    assert metrics["log_loss"]["interval_reason"] == metrics["ece"]["interval_reason"] == "there is only one image"


def test_a_class_that_is_rarely_predicted():
    # One prediction: in a third of the resamples there is none.
    precision = evaluate(table_of("c" * 10 + "n" * 10, [0.9] + [0.2] * 10 + [0.1] * 9), 500)["per_class"]["Covid"][
        "precision"
    ]
    assert precision["interval"] == pytest.approx(wilson(1, 1))
    # Four predictions, in two of a hundred resamples none.
    scores = [0.9, 0.9, 0.8] + [0.2] * 7 + [0.9] + [0.1] * 9
    precision = evaluate(table_of("c" * 10 + "n" * 10, scores), 500)["per_class"]["Covid"]["precision"]
    assert precision["method"] == "bootstrap on log odds"
    assert 450 <= precision["resamples"] < 500


def test_majority_class():
    metrics = evaluate(table_of("c" * 20 + "n" * 40, [0.4] * 60), 500)
    covid = metrics["per_class"]["Covid"]
    assert covid["sensitivity"]["interval"] == pytest.approx(wilson(0, 20))
    assert metrics["accuracy"]["interval"] == pytest.approx(wilson(40, 60))  # the same in every resample of this mix
    assert covid["roc_auc"]["interval_reason"] == "it is 0.5 in every resample"
    assert metrics["log_loss"]["interval_reason"].startswith("it is 0.6")
    assert metrics["balanced_accuracy"]["method"] == "combined"
    assert metrics["balanced_accuracy"]["interval"][0] < 0.5 < metrics["balanced_accuracy"]["interval"][1]


def test_the_calibration_error_of_a_calibrated_model_may_be_zero():
    rng = np.random.default_rng(0)
    scores = rng.random(400)
    labels = "".join("c" if hit else "n" for hit in rng.random(400) < scores)
    metrics = evaluate(table_of(labels, scores), 500)
    wrong = evaluate(table_of("c" * 200 + "n" * 200, [0.99, 0.01] * 200), 500)
    assert metrics["ece"]["method"] == "bootstrap of gaps"
    assert metrics["ece"]["interval"][0] == 0
    assert wrong["ece"]["interval"][0] > 0.4
