import io

from rich.console import Console

import cxrnet.core.console
from cxrnet.core.console import bar


def test_without_a_terminal_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(cxrnet.core.console, "_LINE_EVERY", 0.0)
    with bar("reading images", 3000, done=1000) as advance:
        advance(500)
        advance(500)
        advance(1000)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  reading images  1,500 of 3,000", "  reading images  2,000 of 3,000"]


def test_on_a_terminal_a_bar_that_leaves_nothing_behind(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(cxrnet.core.console, "get_console", lambda: console)
    with bar("reading images", 10, done=4) as advance:
        advance(3)
    shown = console.file.getvalue()
    assert "reading images" in shown
    assert "7/10" in shown
