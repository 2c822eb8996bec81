"""Pictures of what a network looks at: the radiograph, the map laid over it, its scale, and what it is of in words."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cxrnet.data.images.decode import UInt8Array
from cxrnet.models.attribution import colours, overlay

_LEAST = 224  # pixels of the longer side of each panel: smaller images are enlarged
_GAP, _BAR, _LINE = 8, 14, 17  # pixels
_FONT = ImageFont.load_default(13)
_INK, _RED, _WHITE = (31, 41, 51), (180, 40, 20), (255, 255, 255)


@dataclass(frozen=True)
class Caption:
    """The words below a picture.

    Attributes:
        lines: name of the file, class, probability, method.
        caution: what is wrong with the map, in red; empty for nothing.
    """

    lines: Sequence[str]
    caution: str = ""


def explanation(image: UInt8Array, heat: npt.NDArray[np.floating], caption: Caption) -> Image.Image:
    """Draw an image ``(H, W) uint8``, beside it the same under a map ``(H, W)`` in 0..1, and the scale of the map."""
    scale = max(1.0, _LEAST / max(image.shape))
    height, width = (round(side * scale) for side in image.shape)
    panels = [Image.fromarray(image).convert("RGB"), overlay(image, heat)]
    full = 2 * width + 3 * _GAP + _BAR + 34
    words = [line for text in caption.lines for line in _wrapped(text, full)]
    red = _wrapped(caption.caution, full) if caption.caution else []
    picture = Image.new("RGB", (full, height + _GAP + _LINE * (len(words) + len(red)) + 4), _WHITE)
    for place, panel in enumerate(panels):
        picture.paste(panel.resize((width, height), Image.Resampling.BICUBIC), (place * (width + _GAP), 0))
    _draw_scale(picture, 2 * (width + _GAP), height)
    draw = ImageDraw.Draw(picture)
    for number, (line, colour) in enumerate([*((w, _INK) for w in words), *((r, _RED) for r in red)]):
        draw.text((2, height + _GAP // 2 + number * _LINE), line, fill=colour, font=_FONT)
    return picture


def _draw_scale(picture: Image.Image, left: int, height: int) -> None:
    """Draw the colours from 1 at the top to 0, with their values."""
    ramp = np.linspace(1, 0, height)[:, None].repeat(_BAR, axis=1)
    picture.paste(Image.fromarray(colours(ramp), "RGB"), (left, 0))
    draw = ImageDraw.Draw(picture)
    for value in (1.0, 0.5, 0.0):
        top = min(round((1 - value) * height), height - _LINE)
        draw.text((left + _BAR + 4, top), f"{value:g}", fill=_INK, font=_FONT)


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines that are no wider than some pixels, also within a long name."""
    return textwrap.wrap(text, max(10, width // 8)) or [""]
