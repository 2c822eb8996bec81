"""Pages of HTML in one file: no network, no script, figures inside.

A template beside this module extends ``page.html.j2``, which brings the look and a content policy that forbids
anything from outside.
"""

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from cxrnet.core.atomic import write_text
from cxrnet.reporting.wording import duration, figure_text, grouped, interval_text, number_text


def render_page(template: str, path: Path, **values: object) -> Path:
    """Write a page, whole or not at all, and return its path.

    Args:
        template: its file name, as ``"comparison.html.j2"``. What it prints is escaped.
        path: the file to write.
        values: what the template calls for; a name without a value is an error.
    """
    environment = Environment(
        loader=PackageLoader("cxrnet", "reporting/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=duration, count=grouped, number=number_text, interval=interval_text, figure=figure_text
    )
    return write_text(path, environment.get_template(template).render(values))


def data_uri(file: Path) -> str:
    """Put a PNG into a page: the value of ``src``."""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
