import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.calibration import error_of_table, fit_temperature, reliability_table
from cxrnet.evaluation.predictions import (
    classes_of,
    label_codes,
    logits_of,
    make_predictions,
    probabilities_of,
    softmax,
)

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


def outcomes(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(size=n)
    return confidence, rng.uniform(size=n) < confidence**2


@pytest.mark.parametrize(("kind", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_bins_are_those_of_scikit_learn(kind, strategy, bins) -> None:
    confidence, correct = outcomes(bins)
    table = reliability_table(confidence, correct, bins, kind)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=bins, strategy=strategy)
    np.testing.assert_allclose(table["accuracy"], accuracy, atol=1e-12)
    np.testing.assert_allclose(table["confidence"], mean, atol=1e-12)
    assert table["n"].sum() == 300
    error = error_of_table(reliability_table(confidence, correct, bins, kind))
    assert error == pytest.approx(np.sum(table["n"] / 300 * np.abs(accuracy - mean)), abs=1e-12)


def test_equal_mass_divides_the_images_and_keeps_equals_together() -> None:
    confidence, correct = outcomes(0, n=100)
    assert reliability_table(confidence, correct, 10, "equal_mass")["n"].tolist() == [10] * 10
    tied, right = np.array([0.9] * 8 + [0.3, 0.4]), np.array([True] * 6 + [False] * 4)
    table = reliability_table(tied, right, 5, "equal_mass")
    assert table["n"].tolist() == [2, 8]
    order = np.random.default_rng(0).permutation(10)
    pd.testing.assert_frame_equal(reliability_table(tied[order], right[order], 5, "equal_mass"), table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": 0}, "calibration.bins: 0 is no number of bins"),
        ({"bins": 2.5}, "calibration.bins: 2.5 is no number of bins"),
        ({"kind": "even"}, "calibration.kind: 'even' is unknown; give equal_width or equal_mass"),
        ({"confidence": np.array([]), "correct": np.array([], bool)}, "calibration: no images"),
    ],
)
def test_what_makes_no_table_is_refused(change, message) -> None:
    good = {"confidence": np.array([0.5]), "correct": np.array([True]), "bins": 10, "kind": "equal_width"}
    with pytest.raises(CxrnetError, match=message):
        reliability_table(**{**good, **change})


@pytest.fixture
def validation(make_table):
    """Predictions whose logits are ``factor`` times those that the labels were drawn from."""

    def make(factor: float, n: int = 500):
        rng = np.random.default_rng(3)
        logits = rng.normal(scale=2.0, size=(n, 3)).astype(np.float32)
        codes = (softmax(logits).cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)
        rows = make_table(labels=[CLASSES[code] for code in codes], split="val")
        return make_predictions(rows, CLASSES, logits * np.float32(factor))

    return make


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
def test_temperature_is_the_least_loss_of_an_independent_search(validation, factor) -> None:
    table = validation(factor)
    codes, logits = label_codes(table), logits_of(table)

    def loss(temperature: float) -> float:
        return log_loss(codes, softmax(logits / temperature))

    found = minimize_scalar(loss, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
    fitted = fit_temperature(table)
    assert fitted.reason is None
    assert fitted.value == pytest.approx(found.x, rel=1e-4)
    assert fitted.value == pytest.approx(factor, rel=0.2)
    assert fitted.n == 500
    assert fitted.nll_before == pytest.approx(loss(1.0), rel=1e-6)
    assert fitted.nll_after == pytest.approx(loss(fitted.value), rel=1e-6)
    assert fitted.nll_after <= fitted.nll_before


def test_with_the_temperature_comes_the_offset_that_gives_each_class_its_share(validation) -> None:
    table = validation(4.0, n=2000)
    wrong = np.array([2.0, 0.0, -3.0], np.float32)
    biased = make_predictions(table, CLASSES, logits_of(table) + wrong)
    share = table["label"].value_counts(normalize=True)
    fitted = fit_temperature(biased, {name: float(share[name]) for name in CLASSES})
    mended = softmax((logits_of(biased) - np.array(fitted.offset)) / fitted.value)
    np.testing.assert_allclose(mended.mean(axis=0), [share[name] for name in CLASSES], atol=1e-6)
    assert fitted.value == pytest.approx(4.0, rel=0.15)
    assert np.array(fitted.offset) - np.mean(fitted.offset) == pytest.approx(wrong - wrong.mean(), abs=0.8)
    alone = fit_temperature(biased)
    assert alone.offset == ()
    assert fitted.nll_after == pytest.approx(log_loss(label_codes(biased), mended), rel=1e-6)
    assert fitted.nll_after < alone.nll_after


@pytest.mark.parametrize(("of_covid", "has"), [(9, False), (10, True), (1, False)])
def test_the_offset_wants_ten_images_of_each_class_and_the_temperature_does_not(validation, of_covid, has) -> None:
    table = validation(4.0)
    covid = (table["label"] == "Covid").to_numpy(bool)
    fewer = table[~covid | (covid.cumsum() <= of_covid)].reset_index(drop=True)
    fitted = fit_temperature(fewer, dict.fromkeys(CLASSES, 1 / 3))
    assert bool(fitted.offset) == has
    assert fitted.reason is None
    if not has:
        assert fitted.value == fit_temperature(fewer).value
        assert f"{of_covid} validation images are of Covid, at least 10" in fitted.offset_reason
    assert fit_temperature(fewer).offset_reason is None


def _unfit(validation, make_table, how):
    match how:
        case "few":
            return validation(4.0, n=19)
        case "perfect":
            return make_table(strength=100.0, split="val")
        case "useless":  # the label is the least probable class
            table = make_table(strength=100.0, split="val")
            return make_predictions(table, classes_of(table), -logits_of(table))
        case "faint":  # in the right direction, and a thousand times too small
            return validation(1e-3)
    raise ValueError(how)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("few", "19 validation images are too few"),
        ("perfect", "0 of 60 validation images are wrong"),
        ("useless", "still grows at a temperature of 100"),
        ("faint", "still grows at a temperature of 0.01"),
    ],
)
def test_what_no_temperature_fits_stays_at_one_and_says_why(validation, make_table, how, reason) -> None:
    fitted = fit_temperature(_unfit(validation, make_table, how))
    assert fitted.value == 1
    assert reason in fitted.reason
    assert fitted.nll_after == fitted.nll_before
    assert np.isfinite(fitted.nll_before)


def test_a_network_that_tells_nothing_gives_the_shares_of_the_classes(make_table) -> None:
    table = _unfit(None, make_table, "useless")
    prior = dict(zip(classes_of(table), (0.5, 0.3, 0.2), strict=True))
    fitted = fit_temperature(table, prior)
    assert (fitted.value, fitted.useless, fitted.reason) == (100, True, None)
    scaled = make_predictions(table, classes_of(table), (logits_of(table) - np.array(fitted.offset)) / fitted.value)
    assert probabilities_of(scaled) == pytest.approx(np.tile([0.5, 0.3, 0.2], (len(table), 1)), abs=0.25)
    assert fitted.nll_after < fitted.nll_before


def test_infinite_logits_are_refused(validation) -> None:
    table = validation(1.0)
    table.loc[:1, "logit_Covid"] = -np.inf
    with pytest.raises(CxrnetError, match="temperature: the logits of 2 of 500 images are not finite"):
        fit_temperature(table)
