import io
import subprocess
import sys

import pytest
from rich.console import Console

from cxrnet.core import console

# In a process of its own: log_to sets up the logging of the whole process.
LOGGING = """
import logging, sys, warnings
from pathlib import Path
from cxrnet.core import console
folder = Path(sys.argv[1])
logging.getLogger("lightning.pytorch").addHandler(logging.StreamHandler(sys.stdout))
for place in (folder / "one", folder / "two"):
    place.mkdir()
    console.log_to(place)
    logging.getLogger("cxrnet").info("own words")
    logging.getLogger("cxrnet.data").warning("own [bold] warning of " + place.name)
    logging.getLogger("lightning.pytorch.utilities").info("a tip")
    logging.getLogger("mlflow.store").warning("an advertisement")
    logging.getLogger("some.library").error("trouble")
    warnings.warn("old fashioned")
"""


@pytest.fixture
def written(monkeypatch):
    """Return the text written to a console that is no terminal."""
    import rich

    recorder = Console(record=True, force_terminal=False, width=60, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    monkeypatch.setattr(rich, "_console", recorder)
    return recorder.export_text


def test_names_with_brackets_are_shown_as_they_are(written):
    console.heading("Data [1]")
    console.say("test", "class [red] 3, path /a/[b]/c")
    console.warn("[/] is no markup")
    text = written()
    assert "Data [1]" in text
    assert "class [red] 3, path /a/[b]/c" in text
    assert "warning      [/] is no markup" in text


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    line = [sys.executable, "-c", LOGGING, str(folder)]
    return folder, subprocess.run(line, capture_output=True, text=True, check=True)


def test_the_console_shows_own_warnings_and_errors_of_libraries_alone(spoken):
    _, done = spoken
    text = done.stdout + done.stderr
    for shown in ("own [bold] warning of one", "own [bold] warning of two", "trouble"):
        assert shown in text
    assert text.count("trouble") == 2
    for hidden in ("own words", "a tip", "an advertisement", "old fashioned"):
        assert hidden not in text


def test_the_log_file_has_everything_of_its_own_run_once(spoken):
    folder, _ = spoken
    for name, other in (("one", "two"), ("two", "one")):
        log = (folder / name / "run.log").read_text()
        for line in ("own words", f"warning of {name}", "a tip", "an advertisement", "trouble"):
            assert log.count(line) == 1
        assert f"warning of {other}" not in log
    assert "old fashioned" in (folder / "one" / "run.log").read_text()


def test_without_a_terminal_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console, "_LINE_EVERY", 0.0)
    with console.bar("reading images", 3000, done=1000) as advance:
        advance(500)
        advance(500)
        advance(1000)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  reading images  1,500 of 3,000", "  reading images  2,000 of 3,000"]


def test_on_a_terminal_a_bar_that_leaves_nothing_behind(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "get_console", lambda: terminal)
    with console.bar("reading images", 10, done=4) as advance:
        advance(3)
    shown = terminal.file.getvalue()
    assert "reading images" in shown
    assert "7/10" in shown
