import pytest

from cxrnet.evaluation.wording import duration, figure_text


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
def test_figures_are_written_with_their_interval(metric, text):
    assert figure_text(metric) == text
