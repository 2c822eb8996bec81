from pathlib import Path

import pytest

from cxrnet.cli.run_folder import refuse_used, say_places, shown
from cxrnet.errors import CxrnetError


def test_nothing_is_written_over(tmp_path):
    refuse_used(tmp_path, "page.html", "a comparison")
    (tmp_path / "page.html").touch()
    with pytest.raises(CxrnetError, match=r"' holds a comparison already; give another hydra\.run\.dir="):
        refuse_used(tmp_path, "page.html", "a comparison")


def test_a_folder_is_called_from_where_the_person_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "outputs" / "run") == Path("outputs/run")
    assert shown(tmp_path.parent) == tmp_path.parent


def test_places_are_said_under_a_heading(capsys):
    say_places({"page": "outputs/page.html", "MLflow": "not tracked"})
    said = capsys.readouterr().out
    assert "Where things are" in said
    assert "page         outputs/page.html" in said
