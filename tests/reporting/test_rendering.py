import html
import re

import pytest
from jinja2 import UndefinedError
from markdown_it import MarkdownIt

from cxrnet.reporting.rendering import bullets, code, paragraph, plain, render_page

NASTY = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!-- x", "</td>", "a < b > c", "<https://x.org>",
    "[x](javascript:alert(1))", "![x](https://x.org/a.png)", "[x]: https://x.org", "[^1]", "](javascript:alert(1)) [y",
    "a|b", "a\\|b", "\\", "\\\\", "`x`", "``", "*x*", "**x**", "_x_", "__x__", "val_loss", "a_", "~~x~~", "$x$", "x #",
    "# x", "- x", "+ x", "* x", "> x", "1. x", "1) x", "-", "===", "---", "```", "~~~", "-0.5", "&lt;", "&#60;",
    "a & b", "x\n\n# y", "x\r<b>", "x\u2028- y", "Lungen-Trübung", "20\u202f%", "a+b", "covid19_image", "12.5", "x  y",
]  # fmt: skip
TAGS = {"ul", "li", "p", "h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "code"}


def read(markdown: str) -> str:
    """The text of Markdown as a reader has it, after seeing that there is no other markup in it."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
    assert set(re.findall(r"<\s*/?\s*(\w+)", page)) <= TAGS
    return html.unescape(re.sub("<[^>]*>", "", page)).strip()


def as_line(text: str) -> str:
    return re.sub(r"[\n\r\u2028]+", " ", text)


@pytest.mark.parametrize("text", NASTY)
def test_what_is_written_is_read(text):
    assert read(paragraph(text)) == as_line(text)
    assert read(f"# {plain(text)}") == as_line(text)
    assert read(bullets([text, text])).split("\n") == [as_line(text)] * 2
    assert read(f"| {plain(text)} | b |\n|---|---|\n| c | {plain(text)} |").count("\n") == 7  # two rows of two
    assert read(f"| {plain(text)} | b |\n|---|---|\n| c | d |").split("\n")[0] == as_line(text)
    assert read(code(text)) == as_line(text)


@pytest.mark.parametrize("text", [text for text in NASTY if "<" in text])
def test_no_tag_is_left_for_who_reads_html_first(text):
    assert not re.search(r"<[A-Za-z/!?]", paragraph(text))


def test_a_forgotten_value_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(UndefinedError, match="text"):
        render_page("comparison.html.j2", tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
