"""``--help`` of every script."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = [file.stem for file in sorted(SCRIPTS.glob("*.py")) if file.stem != "frozen_features"]  # which the others share


@pytest.mark.parametrize("name", [*NAMES, "benchmark/run"])
def test_every_script_says_what_it_is_for(name, monkeypatch, capsys):
    file = SCRIPTS / f"{name}.py"
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.setattr(sys, "argv", [file.name, "--help"])
    try:
        runpy.run_path(str(file), run_name="__main__")
    except SystemExit as error:
        assert not error.code  # noqa: PT017
    assert len(capsys.readouterr().out.splitlines()) > 1
