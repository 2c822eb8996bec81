import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from cxrnet.evaluation.calibration import error_of_table, reliability_table, top_label
from cxrnet.evaluation.catalogue import METRICS, MOVED, estimates, keys_of
from cxrnet.evaluation.metrics import evaluate
from cxrnet.evaluation.predictions import make_predictions
from cxrnet.evaluation.sums import ECE_BINS, areas, rank, rows_of, sums_of


def values_of(rows, weights):
    return estimates(rows, sums_of(rows, weights))


def expected_of(rows, w):
    """Every metric by scikit-learn, each image counted ``w`` times."""
    by_weight = {"sample_weight": w}
    codes, predicted, probabilities = rows.codes, rows.predicted, rows.probabilities
    one_hot = np.eye(len(rows.classes))[codes]
    auc = {"y_true": one_hot, "y_score": probabilities, **by_weight}
    cosines = np.diag(reference.pairwise.cosine_similarity(one_hot, probabilities))
    confidence, correct = (part.repeat(w.astype(int)) for part in top_label(probabilities, codes))
    expected = {
        ("", "accuracy"): reference.accuracy_score(codes, predicted, **by_weight),
        ("", "balanced_accuracy"): reference.balanced_accuracy_score(codes, predicted, **by_weight),
        ("", "macro_f1"): reference.f1_score(codes, predicted, average="macro", **by_weight),
        ("", "kappa"): reference.cohen_kappa_score(codes, predicted, **by_weight),
        ("", "mcc"): reference.matthews_corrcoef(codes, predicted, **by_weight),
        ("", "log_loss"): reference.log_loss(codes, probabilities, **by_weight),
        ("", "cosine_similarity"): np.average(cosines, weights=w),
        ("", "roc_auc_macro"): reference.roc_auc_score(**auc, average="macro"),
        ("", "roc_auc_weighted"): reference.roc_auc_score(**auc, average="weighted"),
        ("", "pr_auc_macro"): reference.average_precision_score(**auc, average="macro"),
        ("", "brier"): np.average(np.square(one_hot - probabilities).sum(axis=1), weights=w),
        ("", "ece"): error_of_table(reliability_table(confidence, correct, ECE_BINS, "equal_width")),
    }
    for index, name in enumerate(rows.classes):
        positive, hit, p = codes == index, predicted == index, probabilities[:, index]
        expected |= {
            (name, "sensitivity"): reference.recall_score(positive, hit, **by_weight),
            (name, "specificity"): reference.recall_score(~positive, ~hit, **by_weight),
            (name, "precision"): reference.precision_score(positive, hit, **by_weight),
            (name, "npv"): reference.precision_score(~positive, ~hit, **by_weight),
            (name, "f1"): reference.f1_score(positive, hit, **by_weight),
            (name, "roc_auc"): reference.roc_auc_score(positive, p, **by_weight),
            (name, "pr_auc"): reference.average_precision_score(positive, p, **by_weight),
            (name, "brier"): reference.brier_score_loss(positive, p, **by_weight),
        }
    return expected


@pytest.mark.parametrize("classes", [("Normal", "Covid"), ("Viral Pneumonia", "Covid", "Normal"), tuple("dacb")])
def test_metrics_equal_scikit_learn_under_every_weighting(make_table, classes):
    rows = rows_of(make_table(n=97, classes=classes))
    weights = np.r_[np.ones((1, 97)), np.random.default_rng(1).integers(0, 4, (4, 97))]
    found = values_of(rows, weights)
    for place, w in enumerate(weights):
        expected = expected_of(rows, w)
        assert set(expected) == set(keys_of(classes))
        for key, value in expected.items():
            assert found[key][place] == pytest.approx(value, abs=1e-12), key


def table_of(counts, repeat=1):
    """Predictions with this confusion matrix, each image of a patient of its own."""
    counts = np.array(counts) * repeat
    codes, predicted = (places.repeat(counts.ravel()) for places in np.indices(counts.shape).reshape(2, -1))
    classes = tuple("abcd"[: len(counts)])
    rows = pd.DataFrame({"image_id": [str(place) for place in range(len(codes))], "path": "", "split": "test"})
    rows = rows.assign(label=[classes[code] for code in codes], source="invented", patient_id=rows["image_id"])
    return make_predictions(rows, classes, 2 * np.eye(len(counts), dtype=np.float32)[predicted])


@pytest.mark.parametrize(
    ("counts", "name", "value"),
    [
        ([[20, 5], [10, 15]], "kappa", 0.4),  # by hand: accuracy 0.7, 0.5 by chance
        ([[50, 26, 24], [24, 4, 32], [6, 30, 4]], "kappa", (0.29 - 0.35) / 0.65),  # by hand, below chance
        ([[6, 2], [1, 3]], "mcc", (6 * 3 - 1 * 2) / np.sqrt(7 * 8 * 4 * 5)),  # Matthews 1975, of two classes
        ([[0, 9], [9, 0]], "kappa", -1.0),
        ([[0, 9], [9, 0]], "mcc", -1.0),
        ([[10, 0], [10, 0]], "kappa", 0.0),
    ],
)
def test_agreement_by_hand(counts, name, value):
    assert evaluate(table_of(counts))[name]["value"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("counts", "name", "reason"),
    [
        ([[10, 0], [0, 0]], "kappa", "same label and prediction"),
        ([[10, 0], [0, 0]], "mcc", "all labels, or all predictions"),
        ([[10, 0], [10, 0]], "mcc", "all labels, or all predictions"),
    ],
)
def test_agreement_that_is_not_defined_says_why(counts, name, reason):
    metric = evaluate(table_of(counts), 100)[name]
    assert metric["value"] is None
    assert reason in metric["reason"]


@pytest.mark.parametrize("name", ["kappa", "mcc"])
@pytest.mark.parametrize(
    "counts", [[[12, 13], [13, 12]], [[1, 24], [24, 1]], [[24, 1], [1, 24]], [[9, 8, 8], [8, 8, 9], [9, 9, 7]]]
)
def test_intervals_of_agreement_keep_to_their_range(counts, name):
    metric = evaluate(table_of(counts), 500)[name]
    low, high = metric["interval"]
    assert -1 <= low < metric["value"] < high <= 1
    assert metric["method"] == "bootstrap on log odds"


def test_the_interval_of_kappa_is_that_of_its_asymptotic_error():
    """Fleiss, Cohen & Everitt 1969 on Fisher's z; the bootstrap keeps the labels as they are, which changes little."""
    counts = np.array([[200, 50], [100, 150]])
    metric = evaluate(table_of(counts), 2000)["kappa"]
    shares, value, chance = counts / counts.sum(), 0.4, 0.5
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    own = sum(shares[i, i] * (1 - (rows[i] + columns[i]) * (1 - value)) ** 2 for i in range(2))
    off = (1 - value) ** 2 * sum(shares[i, j] * (columns[i] + rows[j]) ** 2 for i, j in ((0, 1), (1, 0)))
    error = np.sqrt((own + off - (value - chance * (1 - value)) ** 2) / counts.sum()) / (1 - chance)
    expected = np.tanh(np.arctanh(value) + np.array([-1.96, 1.96]) * error / (1 - value**2))
    assert metric["interval"] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", ["kappa", "mcc"])
def test_full_agreement_is_not_certain(name):
    """Wilson's lower end of 40 right of 40 is 0.912; chance agrees on half."""
    metric = evaluate(table_of([[20, 0], [0, 20]]), 100)[name]
    assert metric["method"] == "wilson"
    assert metric["interval"] == pytest.approx([(0.9124 - 0.5) / 0.5, 1], abs=1e-4)
    assert "in every resample" in evaluate(table_of([[0, 20], [20, 0]]), 100)[name]["interval_reason"]


@pytest.mark.parametrize("digits", [17, 1])
def test_calibration_is_that_of_the_reliability_diagram(make_table, digits):
    table = make_table(n=300)
    for column in [c for c in table if c.startswith("prob_")]:
        table[column] = table[column].round(digits)  # one digit: most of the bins have no image, or an edge in it
    rows = rows_of(table)
    found = values_of(rows, np.ones((1, 300)))
    expected = error_of_table(reliability_table(*top_label(rows.probabilities, rows.codes), ECE_BINS, "equal_width"))
    assert found["", "ece"][0] == pytest.approx(expected, abs=1e-12)
    assert found[MOVED][0] == pytest.approx(0, abs=1e-12)


def test_without_a_class_its_metrics_are_nan(make_table):
    table = make_table(n=30)
    found = values_of(rows_of(table), (table["label"] != "Covid").to_numpy(float)[None])
    missing = {key for key, value in found.items() if np.isnan(value[0])}
    of_class = {("Covid", name) for name in ("sensitivity", "precision", "npv", "f1", "roc_auc", "pr_auc")}
    assert missing >= of_class | {("", spec.name) for spec in METRICS if spec.mean_of}
    assert not missing & {("Covid", "specificity"), ("Normal", "roc_auc"), ("", "accuracy"), ("", "kappa")}


def test_scores_that_are_all_the_same_have_the_area_of_chance():
    positive = np.arange(10) < 4
    roc_auc, average_precision = areas(rank(positive, np.full(10, 0.5)), np.ones((1, 10)))
    assert (roc_auc[0], average_precision[0]) == (0.5, 0.4)
