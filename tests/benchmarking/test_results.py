"""What is written, drawn and said of a group."""

import json

import pytest
from PIL import Image
from rich import get_console

from cxrnet.benchmarking.figures import draw
from cxrnet.benchmarking.jobs import Answer, Job
from cxrnet.benchmarking.measuring import Measured
from cxrnet.benchmarking.ratios import Ratio
from cxrnet.benchmarking.results import GroupResult, write_results
from cxrnet.benchmarking.saying import number_text, say_group


def measured(name: str, *answers: Answer) -> Measured:
    one = Measured(Job(name, "commands:run", {"line": ["-c", "pass"]}))
    for answer in answers:
        one.add(answer)
    return one


@pytest.fixture
def result() -> GroupResult:
    jobs = [
        measured("plain loop", *(Answer(numbers={"seconds": s, "images": 8}) for s in (80.0, 90.0, 100.0))),
        measured("cxrnet", *(Answer(numbers={"seconds": s, "images": 8}) for s in (8.0, 9.0, 10.0))),
        measured("Keras recipe", Answer(missing="keras not installed")),
        measured("timm's parts", Answer(failed="RuntimeError: [b]out of memory[/b]")),
    ]
    ratios = [
        Ratio("time: plain loop / cxrnet", 10.0, 10.0, extremes=(9.6, 10.4)),
        Ratio("share", 0.0512, 0.03, "at most"),
        Ratio("time: Keras recipe / cxrnet", None, 10.0),
    ]
    return GroupResult("A head", ("seconds", "val_accuracy"), jobs, ratios)


def test_the_file_holds_every_repeat_and_why_one_is_missing(result, tmp_path):
    write_results({"frozen": result}, {"command": "python -m cxrnet.benchmark"}, tmp_path / "benchmark.json")
    written = json.loads((tmp_path / "benchmark.json").read_text())
    assert written["command"] == "python -m cxrnet.benchmark"
    jobs = written["groups"]["frozen"]["jobs"]
    assert jobs["plain loop"]["median"] == {"seconds": 90.0, "images": 8}
    assert [repeat["seconds"] for repeat in jobs["plain loop"]["repeats"]] == [80.0, 90.0, 100.0]
    assert jobs["Keras recipe"]["missing"] == "keras not installed"
    assert jobs["timm's parts"]["failed"] == "RuntimeError: [b]out of memory[/b]"
    assert [ratio["met"] for ratio in written["groups"]["frozen"]["ratios"]] == [True, False, None]
    assert [path.name for path in tmp_path.iterdir()] == ["benchmark.json"]


def test_the_console_shows_medians_targets_and_what_is_missing(result, capsys, monkeypatch):
    monkeypatch.setattr(get_console(), "_width", 100)
    say_group(result)
    lines = capsys.readouterr().out.splitlines()
    for words in (
        ["plain loop", "90", "–"],
        ["missing", "Keras recipe: keras not installed"],
        ["warning", "timm's parts failed: RuntimeError: [b]out of memory[/b]"],
        ["time: plain loop / cxrnet", "10 (9.6 to 10.4)", "≥ 10", "met"],
        ["share", "0.0512", "≤ 0.03", "missed"],
        ["time: Keras recipe / cxrnet", "not measured"],
    ):
        assert any(all(word in line for word in words) for line in lines), words


@pytest.mark.parametrize("number", ["seconds", "ms_per_image"])
def test_a_figure_is_drawn_also_when_something_is_missing(result, number, tmp_path):
    for one in result.measured:
        for numbers in one.repeats:
            numbers["ms_per_image"] = 2.0
    file = draw(GroupResult(result.title, (number,), result.measured, ()), tmp_path / "figure.png")
    assert Image.open(file).format == "PNG"


def test_numbers_have_three_figures():
    assert [number_text(value) for value in (0.01234, 5.678, 99.96, 1234.5)] == ["0.0123", "5.68", "100", "1,234"]
