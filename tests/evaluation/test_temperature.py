import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from cxrnet.errors import CxrnetError
from cxrnet.evaluation.metrics import label_codes
from cxrnet.evaluation.predictions import classes_of, logits_of, make_predictions, probabilities_of, softmax
from cxrnet.evaluation.temperature import fit_temperature

CLASSES = ("Viral Pneumonia", "Covid", "Normal")


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


def test_validation_images_of_another_mix_count_so_that_they_are_of_that_of_the_training(validation) -> None:
    table = validation(2.0, n=4000)
    share = table["label"].value_counts(normalize=True)
    prior = {name: float(share[name]) for name in CLASSES}
    fewer = table[(table["label"] != "Covid") | (np.arange(len(table)) % 4 == 0)].reset_index(drop=True)
    whole, part = fit_temperature(table, prior), fit_temperature(fewer, prior)
    assert part.value == pytest.approx(whole.value, rel=0.1)
    assert part.offset == pytest.approx(whole.offset, abs=0.35)


def test_without_an_image_of_each_class_there_is_no_offset(validation) -> None:
    table = validation(4.0)
    two = table[table["label"] != "Covid"].reset_index(drop=True)
    fitted = fit_temperature(two, dict.fromkeys(CLASSES, 1 / 3))
    assert (fitted.offset, fitted.value) == ((), fit_temperature(two).value)


@pytest.mark.parametrize(("of_covid", "has"), [(9, False), (10, True), (1, False)])
def test_the_offset_wants_ten_images_of_each_class_and_the_temperature_does_not(validation, of_covid, has) -> None:
    table = validation(4.0)
    covid = (table["label"] == "Covid").to_numpy(bool)
    fewer = table[~covid | (covid.cumsum() <= of_covid)].reset_index(drop=True)
    fitted = fit_temperature(fewer, dict.fromkeys(CLASSES, 1 / 3))
    assert bool(fitted.offset) == has
    assert fitted.reason is None
    if has:
        assert fitted.offset_text(CLASSES).startswith("the logits less an offset of Viral Pneumonia ")
    else:
        assert fitted.value == fit_temperature(fewer).value
        assert f"{of_covid} validation images are of Covid, 10 of each class" in fitted.offset_text(CLASSES)
    assert fit_temperature(fewer).offset_text(CLASSES) == ""


def test_fitted_again_on_what_it_mended_the_temperature_is_one(validation) -> None:
    table = validation(4.0)
    logits = logits_of(table) / np.float32(fit_temperature(table).value)
    assert fit_temperature(make_predictions(table, classes_of(table), logits)).value == pytest.approx(1, abs=1e-4)


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
        ("few", "19 validation images are too few, 20 are the least"),
        ("perfect", "0 of 60 validation images are wrong, 5 are the least to learn it from"),
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


def test_images_of_another_split_are_refused(make_table) -> None:
    with pytest.raises(CxrnetError, match="temperature: 60 of 60 images are of split test"):
        fit_temperature(make_table())
