import numpy as np
import pandas as pd
import pytest

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import error_of_table
from cxrnet.evaluation.predictions import classes_of, logits_of, make_predictions
from cxrnet.evaluation.prior import Mix, read_mix
from cxrnet.reporting.analysis import analyse, evaluator
from cxrnet.reporting.results import save_analysis

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prevalences": [5]}, "prevalences: 5 is no prevalence"),
        ({"calibration": {"bins": 0, "kind": "equal_width"}}, "calibration.bins: 0"),
        ({"deferral": {"shares": [2]}}, "deferral.shares: 2"),
        ({"decision_curve": {"thresholds": [0, 1], "prevalence": None}}, "decision_curve.thresholds"),
        ({"resamples": 7}, "resamples: 7"),
        ({"level": 95}, "level: 95"),
    ],
)
def test_what_a_setting_gets_wrong_is_said(analysed, make_table, changes, message):
    with pytest.raises(CxrnetError, match=message):
        analysed(make_table(), **changes)
