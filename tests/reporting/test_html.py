import re

import pytest
from jinja2 import UndefinedError

from cxrnet.reporting.html import data_uri, render_page


def test_page_has_the_look_and_nothing_from_outside(tmp_path):
    page = render_page("page.html.j2", tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:;" in page
    assert "Research use only. Not a medical device" in page
    assert not re.search(r"url\(|@import|<script|<link", page)


def test_a_forgotten_value_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(UndefinedError, match="text"):
        render_page("comparison.html.j2", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_data_uri(tmp_path):
    (tmp_path / "a.png").write_bytes(b"PNG")
    assert data_uri(tmp_path / "a.png") == "data:image/png;base64,UE5H"
