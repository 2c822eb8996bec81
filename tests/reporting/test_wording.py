import shlex

import pytest

from cxrnet.cli.command_line import typed_words
from cxrnet.evaluation.metrics import Metric, evaluate
from cxrnet.reporting.wording import command_text, duration, interval_gaps, interval_method, level_text, metric_text


def test_durations_are_read_aloud():
    said = [duration(seconds).replace("\u00a0", " ") for seconds in (0.4, 59.6, 192, 7500)]
    assert said == ["0 s", "1 min 00 s", "3 min 12 s", "2 h 05 min"]


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ({"value": 0.95454, "n": 66, "interval": [0.876, 0.989]}, "0.955 (0.88 to 0.99)"),
        ({"value": 0.9996, "n": 4000, "interval": [0.9986, 1.0]}, "1.000 (0.999 to 1.000)"),  # narrow: a digit more
        ({"value": 1.0, "n": 1, "interval_reason": "there is only one image"}, "1.000"),
        ({"value": None, "n": 0, "reason": "no image is labelled Covid"}, "n/a"),
    ],
)
def test_metrics_are_written_with_their_interval(metric, text):
    assert metric_text(metric) == text


def test_a_level_is_not_rounded():
    assert [level_text(level) for level in (0.9, 0.95, 0.975, 0.999)] == ["90 %", "95 %", "97.5 %", "99.9 %"]


@pytest.mark.parametrize(
    "word",
    ["loss.class_weights={COVID: 3.0}", "loss={class_weights: {COVID: 3.0}}", "loss.class_weights=null", "+a={b: 1}"],
)
def test_a_command_is_written_as_it_was_typed(word):
    typed = ["python", "-m", "cxrnet.train", "data=phantom", word, "defer=0.2"]
    assert command_text(typed_words(typed)) == shlex.join(typed)


def test_how_intervals_are_made_follows_what_was_drawn(make_table) -> None:
    drawn = evaluate(make_table(), resamples=100)
    assert "bootstrap of duplicate groups, as patients aren't known" in interval_method(drawn, 0.9, "duplicate group")
    assert interval_method(drawn, 0.9, "image").startswith(
        "90 % confidence intervals (CI): bootstrap of images, within strata"
    )
    assert interval_method(evaluate(make_table()), 0.95, "patient").startswith(
        "No confidence intervals: none were asked for"
    )


def test_a_missing_interval_says_why_and_each_reason_once() -> None:
    flat: Metric = {"value": 1.0, "n": 9, "interval_reason": "it is 1 in every resample"}
    known: Metric = {"value": 0.5, "n": 9, "interval": [0.2, 0.8]}
    absent: Metric = {"value": None, "n": 0, "reason": "no image is labelled A"}
    named = [("F1", flat), ("NPV", known), ("AUC", flat), ("F1", flat), ("ECE", absent)]
    assert interval_gaps(named) == ["F1, AUC: it is 1 in every resample"]
