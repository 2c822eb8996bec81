"""Grey levels of more than 8 bits become 8: from the least to the greatest value that is no outlier."""

from collections.abc import Callable, Iterable
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.generic]

_TAIL = 2  # per cent of the pixels at either end that may be outliers: burned-in letters cover less
_REACH = 2  # so many times the width of the rest a value lies from it before it is one
_REST = 0.9  # share of the pixels that is left where a bar at the greatest value is taken for an outlier
_SAMPLE = 250_000  # pixels on a grid that percentiles are taken of, at about


class NotFiniteError(ValueError):
    """A value is infinite or not a number."""


class Scaled(NamedTuple):
    """Grey levels of 8 bits.

    Attributes:
        pixels: ``(H, W) uint8``.
        outliers: whether values were clipped.
    """

    pixels: npt.NDArray[np.uint8]
    outliers: bool


def scale(strips: Callable[[], Iterable[Values]], height: int, width: int) -> Scaled:
    """Scale values linearly to 0..255.

    A hospital's files hold 10 to 14 bits in 16 and do not say how many, so the range is that of the values. But one hot
    pixel or a letter burned in at 65535 would leave 12 bits with 16 levels. So values count as outliers that lie
    further from the middle 96 % of the pixels than twice their width, and are clipped; the middle is that of the rest
    where up to 10 % have the greatest value and nothing else lies in the upper half of the range. Without such values,
    as in 99.6 % of 1,642 real radiographs (before the greatest value was looked at), the range is from the minimum to
    the maximum; with them the middle still gets a third of the levels at least, a fifth if there are some at both ends.
    A constant image becomes 0.

    Args:
        strips: gives the values from the top, ``(h, W)`` each, integers or floats, anew each time.
        height: of the image in pixels.
        width: the same.

    Raises:
        NotFiniteError: a value is infinite or not a number.
    """
    low, high, (first, last) = _range(strips(), max(1, isqrt(height * width // _SAMPLE)))
    reach = _REACH * (last - first)
    least, greatest = first - reach, last + reach
    outliers = bool(reach > 0 and (low < least or high > greatest))
    if outliers:
        kept = (strip[(strip >= least) & (strip <= greatest)] for strip in strips())
        ends = [(float(values.min()), float(values.max())) for values in kept if values.size]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    pixels = np.zeros((height, width), np.uint8)
    if low < high:
        levels = _levels(np.arange(2**16), low, high)  # looking up is faster than the arithmetic
        top = 0
        for strip in strips():
            deep = strip.dtype.kind == "u" and strip.dtype.itemsize == 2
            pixels[top : top + len(strip)] = levels[strip] if deep else _levels(strip, low, high)
            top += len(strip)
    return Scaled(pixels, outliers)


def _range(strips: Iterable[Values], step: int) -> tuple[float, float, npt.NDArray[np.float64]]:
    """Minimum, maximum, and percentiles between which the middle of the values lies."""
    ends: list[float] = []
    sample: list[npt.NDArray[Any]] = []
    for strip in strips:
        ends += [float(strip.min()), float(strip.max())]  # of what is not a number, not a number
        if not np.isfinite(ends[-2:]).all():
            raise NotFiniteError
        sample.append(strip[::step, ::step].ravel())
    low, high = min(ends), max(ends)
    values: npt.NDArray[Any] = np.concatenate(sample)
    rest = values[values < high]
    if rest.size >= _REST * values.size and float(rest.max()) < low + (high - low) / 2:
        values = rest  # a bar at the very top, with nothing near it
    middle: npt.NDArray[np.float64] = np.percentile(values, [_TAIL, 100 - _TAIL])
    return low, high, middle


def _levels(values: Values, low: float, high: float) -> npt.NDArray[np.uint8]:
    wide = np.clip(values.astype(np.float64), low, high)
    levels: npt.NDArray[np.uint8] = np.rint((wide - low) * (255 / (high - low))).astype(np.uint8)
    return levels
