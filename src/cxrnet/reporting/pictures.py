"""X-rays on a page: small JPEGs inside the file, in groups, few enough for the page to be mailed."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import Image

from cxrnet.data.images.decode import UInt8Array

MAIL = 8_000_000
"""Bytes that a page may have to be mailed."""
SIDE = 192
"""Pixels of the longer side of a picture."""
NONE_ASKED = "Pictures are left out (report.images=0), as images of patients may not leave a house."

_QUALITY = 80
_WORDS = 600_000  # bytes of a page besides its pictures and plots


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        source: data URI.
        text: alternative text.
        label: what stands below it.
    """

    source: str
    text: str
    label: str = ""


Overlays = Mapping[str, Picture]
"""By ``image_id``, the picture that stands beside an image, as an attribution does."""


@dataclass(frozen=True)
class Figure:
    """One image, or some that belong together, side by side.

    Attributes:
        pictures: from left to right.
        lines: what is said of them, the first line in bold.
    """

    pictures: Sequence[Picture]
    lines: Sequence[str]


@dataclass(frozen=True)
class PictureGroup:
    """Figures under one heading.

    Attributes:
        title: heading, without a full stop.
        figures: in the order of the page.
        note: sentences below the heading.
        kind: ``single``, ``pair`` or ``strip``: how wide a figure is.
    """

    title: str
    figures: Sequence[Figure]
    note: str = ""
    kind: str = "single"


@dataclass(frozen=True)
class Pictures:
    """The pictures of a page; ``note`` stands above them, or says why there are none."""

    groups: Sequence[PictureGroup] = ()
    note: str = ""


def picture(image: UInt8Array, text: str, label: str = "", side: int = SIDE) -> Picture:
    """Make a picture of an image ``(H, W)`` or ``(H, W, 3) uint8``, its longer side ``side`` pixels at most."""
    small = Image.fromarray(np.ascontiguousarray(image))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = BytesIO()
    small.save(data, "JPEG", quality=_QUALITY, optimize=True)
    return Picture(f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}", text, label)


def figure(
    image_id: str, image: UInt8Array, lines: Sequence[str], overlay: Picture | None = None, side: int = SIDE
) -> Figure:
    """Make a figure of one image, with its overlay beside it if there is one."""
    pictures = [picture(image, f"{image_id}: {'; '.join(lines)}", side=side)]
    if overlay is not None:
        pictures.append(overlay)
    return Figure(pictures, lines)


def room(plots: Iterable[str]) -> int:
    """Return the bytes that pictures may have on a page that can be mailed, beside its plots (data URIs)."""
    return max(0, MAIL - _WORDS - sum(map(len, plots)))


def fitted(parts: Mapping[str, Pictures], limit: int) -> dict[str, Pictures]:
    """Leave the last figures of the largest groups out where all would weigh more than ``limit`` bytes, and say so.

    Args:
        parts: the pictures of each part of a page.
        limit: bytes of all of them together.
    """
    groups = [group for each in parts.values() for group in each.groups]
    most = max((len(group.figures) for group in groups), default=0)
    while most and sum(_bytes(each) for group in groups for each in group.figures[:most]) > limit:
        most -= 1
    return {name: replace(each, groups=[_first(most, group) for group in each.groups]) for name, each in parts.items()}


def _first(most: int, group: PictureGroup) -> PictureGroup:
    if (lost := len(group.figures) - most) <= 0:
        return group
    more = f"{lost} more {'is' if lost == 1 else 'are'} left out, so that the page can be mailed."
    return replace(group, figures=group.figures[:most], note=f"{group.note} {more}".strip())


def _bytes(each: Figure) -> int:
    return sum(len(one.source) for one in each.pictures)
