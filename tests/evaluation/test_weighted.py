import numpy as np
import pytest
from sklearn import metrics as reference

from cxrnet.evaluation.calibration import error_of_table, reliability_table, top_label
from cxrnet.evaluation.metrics import rows_of
from cxrnet.evaluation.point_estimates import ECE_BINS, rows_behind, weighted_figures

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_scikit_learn_with_sample_weight(make_table, seed):
    rows = rows_of(make_table(n=97, seed=seed))
    weights = np.random.default_rng(seed).integers(0, 4, (4, 97)).astype(float)
    figures = weighted_figures(rows, weights)
    codes, called, probabilities, one_hot = rows.codes, rows.called, rows.probabilities, np.eye(3)[rows.codes]
    for row, w in enumerate(weights):
        by_weight = {"sample_weight": w}
        auc = {"y_true": one_hot, "y_score": probabilities, **by_weight}
        expected = {
            ("", "accuracy"): reference.accuracy_score(codes, called, **by_weight),
            ("", "balanced_accuracy"): reference.balanced_accuracy_score(codes, called, **by_weight),
            ("", "macro_f1"): reference.f1_score(codes, called, average="macro", **by_weight),
            ("", "log_loss"): reference.log_loss(codes, probabilities, **by_weight),
            ("", "roc_auc_macro"): reference.roc_auc_score(**auc, average="macro"),
            ("", "roc_auc_weighted"): reference.roc_auc_score(**auc, average="weighted"),
            ("", "pr_auc_macro"): reference.average_precision_score(**auc, average="macro"),
        }
        for index, name in enumerate(CLASSES):
            positive, hit, p = codes == index, called == index, probabilities[:, index]
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
        expected["", "brier"] = sum(expected[name, "brier"] for name in CLASSES)
        for key, value in expected.items():
            assert figures[key][row] == pytest.approx(value, abs=1e-12), key


def test_a_weighting_is_the_table_with_repeated_rows(make_table):
    table = make_table(n=40)
    times = np.random.default_rng(0).integers(0, 3, 40)
    weighted = weighted_figures(rows_of(table), times[None].astype(float))
    repeated = weighted_figures(rows_of(table.loc[table.index.repeat(times)]), np.ones((1, times.sum())))
    for name in ("cosine_similarity", "brier", "ece", "accuracy"):
        assert weighted["", name] == pytest.approx(repeated["", name], abs=1e-12), name


@pytest.mark.parametrize("digits", [17, 1])
@pytest.mark.parametrize(("name", "kind"), [("ece", "equal_width"), ("ece_equal_mass", "equal_mass")])
def test_calibration_is_that_of_the_reliability_diagram(make_table, name, kind, digits):
    table = make_table(n=300)
    for column in [c for c in table if c.startswith("prob_")]:
        table[column] = table[column].round(digits)  # one digit: most of the bins have no image, or an edge in it
    rows = rows_of(table)
    figures = weighted_figures(rows, np.ones((1, 300)))
    expected = error_of_table(reliability_table(*top_label(rows.probabilities, rows.codes), ECE_BINS, kind))
    assert figures["", name][0] == pytest.approx(expected, abs=1e-12)
    assert figures["", f"{name}_moved"][0] == pytest.approx(0, abs=1e-12)


def test_without_a_class_its_figures_are_nan(make_table):
    table = make_table(n=30)
    figures = weighted_figures(rows_of(table), (table["label"] != "Covid").to_numpy(float)[None])
    for name in ("sensitivity", "precision", "npv", "f1", "roc_auc", "pr_auc"):
        assert np.isnan(figures["Covid", name][0]), name
    for name in ("balanced_accuracy", "macro_f1", "roc_auc_macro", "roc_auc_weighted", "pr_auc_macro"):
        assert np.isnan(figures["", name][0]), name
    assert not np.isnan(figures["Covid", "specificity"][0])
    assert not np.isnan(figures["", "accuracy"][0])


def test_rows_behind_a_figure(make_table):
    table = make_table(n=50)
    rows, known, called = rows_of(table), table["label"] == "Covid", table["predicted"] == "Covid"
    expected = {"sensitivity": known, "specificity": ~known, "precision": called, "npv": ~called, "f1": known | called}
    for name, mask in expected.items():
        assert rows_behind(rows, ("Covid", name)).tolist() == mask.tolist(), name
    assert rows_behind(rows, ("Covid", "roc_auc")).all()
    assert rows_behind(rows, ("", "accuracy")).all()
