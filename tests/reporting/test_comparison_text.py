import dataclasses

import pytest

from cxrnet.evaluation.comparison import compare
from cxrnet.reporting.comparison import text_of


@pytest.fixture(scope="module")
def make_text(make_table):
    labels = [str(label) for label in make_table(n=90)["label"]]

    def make(strengths, labels=labels, metrics=("roc_auc_macro",), resamples=500, seen=None, **columns):
        tables = {
            name: make_table(labels=labels, seed=seed, strength=value).assign(**columns)
            for seed, (name, value) in enumerate(strengths.items())
        }
        return text_of(compare(tables, metrics, metrics[0], resamples, 0, 0.95, 15), seen or {})

    return make


def test_what_is_shown_and_what_is_not(make_text):
    text = make_text({"weak": 0.0, "strong": 3.0, "twin": 3.0})
    assert text.title == "3 runs on the same 90 images"
    assert "has the best figure for ROC-AUC, macro: 0.9" in text.verdict
    assert "95% interval 0." in text.verdict
    assert text.verdict.endswith(
        ("to be better than weak, but not than twin.", "better than weak, but not than strong.")
    )
    assert make_text({"weak": 0.0, "strong": 3.0}).verdict.endswith("The tests show it to be better than weak.")
    assert "The tests do not show it to be better than" in make_text({"strong": 3.0, "twin": 3.0}).verdict


FLATTERED = (
    "But it had seen 2 of the 90 images before it was tested on them (their patient, or a copy), which flatters it: it "
    "is not shown to be better than {}."
)


NOT_SEEN = "which had not seen all of these"


@pytest.mark.parametrize(
    ("others", "words"),
    [({"weak": set()}, NOT_SEEN), ({"weak": {"0"}}, NOT_SEEN), ({}, "of which that is not known")],
)
def test_a_run_that_had_seen_more_is_not_called_better(make_text, others, words):
    text = make_text({"weak": 0.0, "strong": 3.0}, seen={"strong": {"0", "1"}, **others})
    assert text.verdict.endswith(FLATTERED.format(f"weak, {words}"))
    assert "show it to be better" not in text.verdict
    assert text.warnings[0].startswith("strong: 2 of the 90 images were seen before: their patient, or a copy, is")


@pytest.mark.parametrize("seen", [{"weak": {"0", "1"}, "strong": {"0", "1"}}, {"weak": {"0"}}])
def test_runs_that_had_seen_the_same_or_less_can_be_better(make_text, seen):
    text = make_text({"weak": 0.0, "strong": 3.0}, seen=seen)
    assert text.verdict.endswith("The tests show it to be better than weak.")
    assert text.warnings[0].startswith("All runs: 2 of the 90" if len(seen) == 2 else "weak: 1 of the 90")


def test_the_tests_stand_for_those_that_had_seen_as_much(make_text):
    leak = {"0", "1"}
    text = make_text({"weak": 0.0, "strong": 3.0, "clean": 0.1}, seen={"strong": leak, "weak": leak, "clean": set()})
    assert text.verdict.endswith(f"{FLATTERED.format(f'clean, {NOT_SEEN}')} The tests show it to be better than weak.")


def test_many_runs_are_counted(make_text):
    assert make_text({f"run {i}": 1.0 for i in range(6)} | {"best": 9.0}).verdict.endswith("better than 6 others.")


def test_no_verdict_without_a_figure(make_text):
    verdict = make_text({"a": 1.0, "b": 1.0}, labels=["Covid", "Normal"] * 10).verdict
    assert verdict == "No run has a figure for ROC-AUC, macro: no image is labelled Viral Pneumonia."


def test_better_is_what_the_p_and_the_interval_show(make_table):
    labels = [str(label) for label in make_table(n=90)["label"]]
    tables = {name: make_table(labels=labels, seed=int(name), strength=3.0 * int(name)) for name in "01"}
    comparison = compare(tables, ["accuracy"], "accuracy", 500, 0, 0.95, 15)
    assert text_of(comparison, {}).verdict.endswith("The tests show it to be better than 0.")
    wide = dataclasses.replace(comparison, tests=comparison.tests.assign(low=-0.01))
    assert (wide.tests["p_holm"] < 0.001).all()
    assert text_of(wide, {}).verdict.endswith("The tests do not show it to be better than 0.")


def test_too_few_resamples_for_the_runs_are_a_warning(make_text):
    runs = {f"run {i}": 1.0 for i in range(4)}
    warning = make_text(runs, resamples=100).warnings[1]
    assert warning.startswith("No paired bootstrap can show a difference: with 100 resamples and 6 pairs of runs")
    assert len(make_text(runs, resamples=1000).warnings) == 1
    assert len(make_text(runs, resamples=100, metrics=["roc_auc_Covid"]).warnings) == 1
