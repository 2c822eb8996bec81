"""Pictures on a page: small, escaped, few enough to be mailed."""

import base64
from io import BytesIO

import numpy as np
import pytest
from jinja2 import Environment, PackageLoader
from PIL import Image

from cxrnet.reporting.pictures import Figure, PictureGroup, Pictures, figure, fitted, picture

GREY = np.linspace(0, 255, 300 * 400).reshape(300, 400).astype(np.uint8)


def opened(source: str) -> Image.Image:
    kind, _, data = source.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def test_a_picture_is_a_small_jpeg_in_the_shape_of_its_image() -> None:
    made = picture(GREY, "an X-ray", side=192)
    assert opened(made.source).size == (192, 144)
    assert opened(made.source).mode == "L"
    assert len(made.source) < 8000


def test_an_overlay_stands_beside_its_image() -> None:
    red = np.zeros((30, 40, 3), np.uint8)
    red[..., 0] = 200
    overlay = picture(red, "a.png: Grad-CAM", "Grad-CAM")
    image, beside = figure("a.png", GREY, ["a.png", "label Covid"], overlay).pictures
    assert opened(image.source).mode == "L"
    assert opened(beside.source).getpixel((20, 15))[0] == pytest.approx(200, abs=3)
    assert beside == overlay
    assert len(figure("a.png", GREY, ["a.png"]).pictures) == 1


def test_a_page_that_is_too_heavy_loses_the_last_pictures_of_its_largest_groups_and_says_so() -> None:
    one = figure("a.png", GREY, ["a.png"])
    bytes_of_one = len(one.pictures[0].source)
    parts = {"errors": Pictures([PictureGroup("errors", [one] * 5)]), "hits": Pictures([PictureGroup("hits", [one])])}
    assert fitted(parts, 6 * bytes_of_one) == parts
    fitting = fitted(parts, 4 * bytes_of_one)
    (errors,), (hits,) = fitting["errors"].groups, fitting["hits"].groups
    assert (len(errors.figures), len(hits.figures)) == (3, 1)
    assert errors.note == "2 more are left out, so that the page can be mailed."
    assert hits.note == ""
    assert not fitted(parts, 0)["errors"].groups[0].figures


def test_names_are_text_and_break_at_their_joints() -> None:
    environment = Environment(loader=PackageLoader("cxrnet", "reporting/templates"), autoescape=True)
    gallery = environment.get_template("pictures.html.j2").module.gallery
    name = 'Covid/<script>x_"1"</script>.png'
    page = gallery(PictureGroup("<b>", [Figure([picture(GREY, name, name)], [name])], "<i>"))
    assert "<script>" not in page
    assert "<b>&lt;" not in page.split("figcaption")[0]
    assert 'alt="Covid/&lt;script&gt;x_&#34;1&#34;&lt;/script&gt;.png"' in page
    assert "Covid/<wbr>&lt;script&gt;x_<wbr>" in page
